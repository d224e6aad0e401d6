"""The answer to `fit.test_component(...)`: every test that applies, and which of them is exact."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap

import pandas as pd

from hierlmm.errors import FitError

COLUMNS = ("test", "statistic", "reference", "p", "exact", "mc_error")


@dataclass(frozen=True, slots=True)
class TestRow:
    """One test: its statistic, the law it is referred to, in words, and the p-value.

    exact     whether that law is the finite-sample law of the statistic where the model holds
    mc_error  standard error of p where it is simulated, else 0
    """

    __test__ = False

    test: str
    statistic: float
    reference: str
    p: float
    exact: bool
    mc_error: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ComponentTests:
    """Tests that the variances of `terms` are zero, or that one of them is `value` times the residual variance.

    terms         "group:term" of each random coefficient under test
    value         hypothetical ratio of the variance to the residual one
    rows          the tests that apply, the one to report first
    inapplicable  (test, why not) of the others
    intervals     quantity, estimate, lower, upper: exact intervals of the variance ratio and the intraclass
                  correlation, where there are any; `level` their confidence
    notes         what else a reader should know
    """

    terms: tuple[str, ...]
    value: float
    rows: tuple[TestRow, ...]
    inapplicable: tuple[tuple[str, str], ...]
    intervals: pd.DataFrame
    level: float
    notes: tuple[str, ...]

    @property
    def frame(self) -> pd.DataFrame:
        """One row a test: test, statistic, reference, p, exact, mc_error."""
        values = [tuple(getattr(row, name) for name in COLUMNS) for row in self.rows]
        return pd.DataFrame(values, columns=list(COLUMNS))

    @property
    def answer(self) -> TestRow:
        """The test to report: an exact one where there is one. Its rule does not look at the p-values.

        Raises FitError where no test applies.
        """
        if not self.rows:
            reasons = "; ".join(f"{test}: {why}" for test, why in self.inapplicable)
            raise FitError(f"No test of Var({' and '.join(self.terms)}) = {self.value:g} applies. {reasons}.")
        return self.rows[0]

    def summary(self) -> str:
        """The tests as text, at most 80 columns wide."""
        what = " and ".join(self.terms)
        equals = "0" if self.value == 0 else f"{self.value:g} times the residual variance"
        lines = wrap(f"H0: Var({what}) = {equals}", 80)
        lines.append(f"{'':<48}{'statistic':>11}{'p':>12}")
        for row in self.rows:
            kind = "exact" if row.exact else "approx."
            lines.append(f"{row.test[:47]:<48}{row.statistic:>11.5g}{row.p:>12.4g}  {kind}")
            error = f", Monte Carlo error {row.mc_error:.1g}" if row.mc_error else ""
            lines += wrap(row.reference + error, 80, initial_indent="    ", subsequent_indent="    ")
        for quantity, estimate, lower, upper in self.intervals.itertuples(index=False):
            lines.append(
                f"{quantity}: {estimate:.4g}, exact {100 * self.level:g} % interval (by F) {lower:.4g} to {upper:.4g}"
            )
        lines += wrap(self._report(), 80)
        for test, reason in self.inapplicable:
            lines += wrap(f"Not given: {test}: {reason}.", 80, subsequent_indent="    ")
        for note in self.notes:
            lines += wrap(note, 80, subsequent_indent="    ")
        return "\n".join(lines)

    def _report(self) -> str:
        """The line that names the test to report."""
        if not self.rows:
            return "Report: none, no test applies."
        row = self.answer
        kind = "no exact test applies" if not row.exact else "exact"
        if row.exact and row.mc_error:
            kind = f"exact test, simulated, error {row.mc_error:.1g}"
        return f"Report: {row.test}, p = {row.p:.4g} ({kind})."

    def __repr__(self) -> str:
        return self.summary()
