"""Residual structures and weights in the notation of a textbook; subscripts are columns in brackets."""

from __future__ import annotations

from hierlmm.spec.residual import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    ContinuousAR1,
    Correlated,
    HeterogeneousAR1,
    HeterogeneousCompoundSymmetry,
    KnownVariances,
    Residual,
    Stratified,
    Toeplitz,
)
from hierlmm.spec.weights import Frequency, Weights


def residual_lines(residual: Residual) -> list[str]:
    """The distribution of ε; for rows correlated within groups a second line with their covariance matrix R."""
    if isinstance(residual, Correlated):
        group = residual.group
        return [f"ε[{group}] ~ N(0, R), independent between levels of {group}", f"R has {_correlated(residual)}"]
    if isinstance(residual, KnownVariances):
        return [f"ε ~ N(0, v), independent, v = {residual.column} known"]
    if isinstance(residual, Stratified):
        return [f"ε ~ N(0, σ²[{residual.by}]), independent, one variance for each {residual.by}"]
    return ["ε ~ N(0, σ²), independent"]


def weight_lines(weights: Weights | None) -> list[str]:
    """What a weight says of its row."""
    if weights is None:
        return []
    if isinstance(weights, Frequency):
        return [f"Each row counts {weights.column} times (frequency weights)"]
    return [f"The variance of ε is divided by {weights.column} (precision weights)"]


def _correlated(residual: Correlated) -> str:
    """Variances and correlations of the rows of one group."""
    if isinstance(residual, CompoundSymmetry):
        return "variance σ² and correlation ρ between any two rows"
    if isinstance(residual, HeterogeneousCompoundSymmetry):
        return f"variances σ²[{residual.occasion}] and correlation ρ between any two rows"
    if isinstance(residual, AR1):
        return f"variance σ² and correlation ρ^d at distance d in {residual.position}"
    if isinstance(residual, HeterogeneousAR1):
        return f"variances σ²[{residual.position}] and correlation ρ^d at distance d in {residual.position}"
    if isinstance(residual, ContinuousAR1):
        part = "(1 - c)·" if residual.nugget else ""
        rest = ", c the share of the nugget" if residual.nugget else ""
        return f"variance σ² and correlation {part}exp(-d/r) at distance d in {residual.time}{rest}"
    if isinstance(residual, Toeplitz):
        return f"variance σ² and a correlation for each distance in {residual.position}"
    if isinstance(residual, Antedependence):
        occasion = residual.occasion
        return (
            f"variances σ²[{occasion}] and a correlation of each {occasion} with the next; "
            "farther apart it is the product of those between"
        )
    return f"variances σ²[{residual.occasion}] and a covariance for each pair of {residual.occasion}: unstructured"
