"""Design-based estimation from survey records: direct estimates, their variances, synthetic and composite ones.

The modules in the order in which data flow through them:

plan, indicators             what was asked: the columns that describe the sample, variables made of a column
sample: values, weights, population   records as arrays, each column with its checks
estimates, units, variances, limits   the formulas: estimates, primary sampling units, design variances, intervals
direct, direct_results, direct_summary           `hl.direct_estimates`
synthetic, synthetic_results                     `hl.synthetic_estimates`, `hl.composite_estimates`
gvf, gvf_loglinear, gvf_proportions, smoothing, smoothing_results, smoothing_summary   `hl.smooth_variances`
join                                             `hl.join_areas`
tables, sums, text           tables of areas at the door, sums by code, printed lines

From records to a fitted model in one call: `hierlmm.frequentist.area.records`.
"""
