"""Results of synthetic and composite estimation."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.survey.text import row, spread_rows, wrapped

Vector = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SyntheticEstimates:
    """Post-stratified synthetic means of D areas, in the order of the table of counts.

    labels, estimate  (D,); variance (D,) of sampling alone, without the bias; population (D,) counts
    groups            (G,) post-strata, with their mean, its variance, number of records and population
    """

    variable: str
    estimator: str
    poststrata: str
    area: str
    labels: pd.Index
    estimate: Vector
    variance: Vector
    population: Vector
    groups: pd.Index
    group_mean: Vector
    group_variance: Vector
    group_n: Codes
    group_population: Vector
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        _freeze(self)

    @property
    def areas(self) -> pd.DataFrame:
        """area, estimate, sampling_se (without the bias), population."""
        return pd.DataFrame(
            {
                "area": self.labels,
                "estimate": self.estimate,
                "sampling_se": np.sqrt(self.variance),
                "population": self.population,
            }
        )

    @property
    def poststratum_means(self) -> pd.DataFrame:
        """poststratum, estimate, se, n, population."""
        return pd.DataFrame(
            {
                "poststratum": self.groups,
                "estimate": self.group_mean,
                "se": np.sqrt(self.group_variance),
                "n": self.group_n,
                "population": self.group_population,
            }
        )

    def summary(self) -> str:
        """Post-strata and the spread over areas, in at most 80 columns."""
        lines = wrapped(f"Synthetic means of {self.variable}, post-strata by {self.poststrata}")
        lines.append(row("Post-stratum", ["estimate", "se", "records"]))
        lines += [
            row(f"  {label}", [float(mean), float(se), str(n)])
            for label, mean, se, n, _ in self.poststratum_means.itertuples(index=False)
        ]
        lines += ["", row(f"{len(self.labels)} areas", ["smallest", "median", "largest"])]
        lines += spread_rows(self.areas, {"estimate": "estimate", "sampling_se": "standard error of sampling"})
        lines += wrapped("  The bias of an area unlike the others is in no standard error here.")
        for note in self.notes:
            lines += ["", *wrapped(note)]
        return "\n".join(line.rstrip() for line in lines)

    def __repr__(self) -> str:
        return self.summary()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CompositeEstimates:
    """Sample-size-dependent means of D areas: weight direct + (1 - weight) synthetic.

    labels, estimate, weight, synthetic  (D,); direct nan where there is none
    n, size, population  records, sum of their weights, known number of units
    """

    variable: str
    delta: float
    labels: pd.Index
    estimate: Vector
    weight: Vector
    direct: Vector
    synthetic: Vector
    n: Codes
    size: Vector
    population: Vector

    def __post_init__(self) -> None:
        _freeze(self)

    @property
    def areas(self) -> pd.DataFrame:
        """area, estimate, weight (on the direct estimate), direct, synthetic, n, weight_sum, population."""
        return pd.DataFrame(
            {
                "area": self.labels,
                "estimate": self.estimate,
                "weight": self.weight,
                "direct": self.direct,
                "synthetic": self.synthetic,
                "n": self.n,
                "weight_sum": self.size,
                "population": self.population,
            }
        )

    def summary(self) -> str:
        """The spread over areas, in at most 80 columns."""
        lines = wrapped(f"Sample-size-dependent means of {self.variable}, delta {self.delta:g}")
        kept, none = int((self.weight == 1).sum()), int((self.n == 0).sum())
        lines += wrapped(
            f"  {len(self.labels)} areas: {kept} keep their direct estimate, {none} have none and get the synthetic one"
        )
        lines += ["", row("", ["smallest", "median", "largest"])]
        shown = {"weight": "weight on the direct estimate", "direct": "direct", "synthetic": "synthetic"}
        lines += spread_rows(self.areas, {**shown, "estimate": "estimate"})
        lines += ["", "No error estimate: the bias of the synthetic part is unknown."]
        return "\n".join(line.rstrip() for line in lines)

    def __repr__(self) -> str:
        return self.summary()


def _freeze(result: SyntheticEstimates | CompositeEstimates) -> None:
    for field in fields(result):
        value = getattr(result, field.name)
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
