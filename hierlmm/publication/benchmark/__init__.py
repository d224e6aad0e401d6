"""Estimates that add up to totals: what they must meet, how they are moved, and their error afterwards."""
