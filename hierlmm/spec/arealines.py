"""The distributions of an area-level model in the notation of a textbook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hierlmm.spec.areaeffects import SAR
from hierlmm.spec.residual import AreaResidual, SamplingCovariance, SamplingVariances
from hierlmm.spec.transformation import ArcsineRoot, Log, Transformation

if TYPE_CHECKING:
    from hierlmm.spec.model import ModelSpec

# What becomes of the areas that a policy speaks of, by its field and its value.
TREATED = {
    ("unsampled", "synthetic"): "Areas without a direct estimate or variance are predicted from the covariates.",
    ("zero_variance", "direct"): "Areas with D = 0 keep their direct estimate.",
    ("zero_variance", "unsampled"): "Areas with D = 0 are taken as areas without a direct estimate.",
    ("absurd_variance", "unsampled"): "Areas of absurd D are taken as areas without a direct estimate.",
    ("absurd_variance", "accept"): "Absurd values of D are taken as they stand.",
    ("missing_covariates", "drop"): "Areas without their covariates are left out.",
}


def modelled(response: str, transformation: Transformation | None) -> str:
    """The left side of the equation: the response, or what it is transformed to."""
    if transformation is None:
        return response
    if isinstance(transformation, Log):
        return f"log({response})"
    return f"arcsin √{response}" if isinstance(transformation, ArcsineRoot) else f"logit({response})"


def area_lines(spec: ModelSpec, residual: AreaResidual) -> list[str]:
    """The laws of effects and sampling errors, and what is done about unusual areas; blanks may break a line."""
    area = spec.random[0].factor
    lines = [*_effects(spec, area), _errors(residual, spec.transformation, spec.response)]
    if not isinstance(spec.area_effects, SAR) and isinstance(residual, SamplingVariances):
        lines.append(
            f"This is the linear mixed model with a random intercept for each {area} and known residual variances."
        )
    if spec.transformation is not None:
        lines.append(f"Estimates are taken back to the scale of {spec.response}.")
    treated = [text for (name, value), text in TREATED.items() if getattr(residual, name, None) == value]
    if isinstance(spec.area_effects, SAR):
        treated = [text.replace("from the covariates.", "from the covariates and neighbours.") for text in treated]
    return [*lines, *treated]


def _effects(spec: ModelSpec, area: str) -> list[str]:
    effects = spec.area_effects
    if not isinstance(effects, SAR):
        return [f"v[{area}]\N{NO-BREAK SPACE}~\N{NO-BREAK SPACE}N(0,\N{NO-BREAK SPACE}A), one for each {area}; "
                "A\N{NO-BREAK SPACE}is estimated"]  # fmt: skip
    rows = ", its rows divided by their sums" if effects.standardise == "rows" else ""
    W = effects.matrix
    return [f"v = ρ {W} v + u, u[{area}] ~ N(0, A); ρ and A are estimated, {W} is the proximity matrix{rows}"]


def _errors(residual: AreaResidual, transformation: Transformation | None, response: str) -> str:
    tie = "\N{NO-BREAK SPACE}"
    if isinstance(residual, SamplingCovariance):
        S = residual.matrix
        if transformation is None:
            return f"e{tie}~{tie}N(0,{tie}{S}), {S} known"
        slope = response if isinstance(transformation, Log) else f"({response} (1 - {response}))"
        return f"e{tie}~{tie}N(0,{tie}H{tie}{S}{tie}H), {S} known; H diagonal, 1/{slope}"
    if isinstance(transformation, ArcsineRoot):
        known = f"1/(4 {transformation.size})"
    elif isinstance(transformation, Log):
        known = f"{residual.column}/{response}²"
    elif transformation is not None:
        known = f"{residual.column}/({response} (1 - {response}))²"
    else:
        known = str(residual.column)
    return f"e{tie}~{tie}N(0,{tie}D), D{tie}={tie}{known.replace(' ', tie)} known"
