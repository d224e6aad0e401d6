"""From estimates of areas to what an office publishes: totals that agree, ranks, exceedance, rules of publication."""
