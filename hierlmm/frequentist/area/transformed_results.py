"""Area means on the scale of the data, where the model is on another: numbers and labels."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.types import AreaDesign
from hierlmm.errors import listed
from hierlmm.frequentist.area.tables import ratio
from hierlmm.spec.arealines import modelled

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class BackTransformed:
    """M areas in the order of `design.areas` on the scale of the data, (M,) arrays.

    transformation  "log", "arcsine_root" or "logit"; kind the back-transformation: see `area.transformed`
    estimate        of the area mean; mse its mean squared error, mse_kind what that is, mse_valid as in `AreaFit`
    lower, upper    interval of the given level, interval what it is
    gamma           weight on the direct estimate on the scale of the model; synthetic the estimate without it
    mcse            Monte Carlo standard error of mse: 0 where it is a formula
    replicates      of the bootstrap: 0 where there was none; failed those whose fit did not converge, left out
    """

    design: AreaDesign
    transformation: str
    kind: str
    estimate: Vector
    mse: Vector
    mse_kind: str
    mse_valid: NDArray[np.bool_]
    lower: Vector
    upper: Vector
    level: float
    interval: str
    gamma: Vector
    synthetic: Vector
    mcse: Vector | None = None
    replicates: int = 0
    failed: int = 0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    @property
    def areas(self) -> pd.DataFrame:
        """One row an area in table order: area, direct, sampling_variance (as given), estimate, se, mse, lower, upper,
        cv, direct_cv, gamma, synthetic, role, above_direct, mse_valid; after a bootstrap mcse, that of mse.
        """
        design = self.design
        direct, D = design.as_given
        se = np.sqrt(self.mse)
        frame = pd.DataFrame(
            {
                "area": design.areas,
                "direct": direct,
                "sampling_variance": D,
                "estimate": self.estimate,
                "se": se,
                "mse": self.mse,
                "lower": self.lower,
                "upper": self.upper,
                "cv": ratio(se, self.estimate),
                "direct_cv": ratio(np.sqrt(D), direct),
                "gamma": self.gamma,
                "synthetic": self.synthetic,
                "role": design.role,
                "above_direct": design.sampled & (self.mse > np.where(design.sampled, D, np.inf)),
                "mse_valid": self.mse_valid,
            }
        )
        if self.mcse is not None:
            frame["mcse"] = self.mcse
        frame.attrs |= {
            "scale": f"of the data, from {design.spec.transformation}",
            "back_transformation": self.kind,
            "mse": self.mse_kind,
            "interval": self.interval,
        }
        return frame

    def summary(self) -> str:
        """What was done, and the first areas, in at most 80 columns."""
        frame, m = self.areas, int(self.design.sampled.sum())
        spec = self.design.spec
        head = f"{spec.response} by area, taken back from {modelled(spec.response, spec.transformation)}: {self.kind}"
        told = [f"Mean squared error: {self.mse_kind}.", f"Interval ({100 * self.level:g} %): {self.interval}."]
        if self.failed:
            told.append(f"{self.failed} of {self.replicates} replicates did not converge and were left out.")
        if (doubtful := ~self.mse_valid).any():
            told.append(f"No ground for the mean squared error of {listed(self.design.areas[doubtful])}.")
        lines = [line for text in (head, *told) for line in textwrap.wrap(text, 80)]
        shown = frame[["area", "direct", "estimate", "se", "lower", "upper"]].head(10)
        table = shown.to_string(index=False, float_format=lambda value: f"{value:.5g}", max_colwidth=20)
        more = f"... {len(frame)} areas, {m} of them in the fit" if len(frame) > len(shown) else ""
        return "\n".join([*lines, "", *table.splitlines(), *([more] if more else [])])

    def __repr__(self) -> str:
        return self.summary()
