"""What every test shares: quiet, repeatable Hypothesis runs, and fits of catalogue models made once a session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import settings

import hierlmm as hl

# Examples are derived from the test itself, so that a failure on one machine is a failure on every machine; slow
# machines are no failures.
settings.register_profile("hierlmm", derandomize=True, deadline=None)
settings.load_profile("hierlmm")

# Draws and seed of posteriors that are sampled: enough draws for a Monte Carlo error well below the posterior sd.
NUTS_DRAWS = 4000
SEED = 20_261_121


@cache
def _case(name: str) -> hl.Case:
    return hl.load(name)


@cache
def _result(name: str, by: str, priors: tuple[str, ...]) -> object:
    case = _case(name)
    if by not in ("integrate", "nuts"):
        return hl.fit(case.spec, case.data, method=by)
    draws = 0 if by == "integrate" else NUTS_DRAWS
    return hl.posterior(case.spec, case.data, priors=priors, engine=by, draws=draws, seed=SEED)


@pytest.fixture(scope="session")
def catalogue_result() -> Callable[..., object]:
    """The fit or posterior of a catalogue model, by its name, method or engine, and prior texts; computed once."""

    def result(name: str, by: str, priors: tuple[str, ...] = ()) -> object:
        return _result(name, by, priors)

    return result


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: what samples with NUTS comes last, and before it what compiles PyMC models."""

    def cost(item: pytest.Item) -> int:
        if item.get_closest_marker("nuts"):
            return 2
        return int(item.path.name.startswith(("test_compile", "test_sample")))

    items.sort(key=cost)
