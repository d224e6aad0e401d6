"""The public names of the package are there, and are all that is public."""

from __future__ import annotations

import inspect
from types import ModuleType

import hierlmm as hl

# The names that users, the catalogue and the tutorials rely on.
PROMISED = {
    "lmm", "fay_herriot", "fit", "posterior", "to_pymc", "compare", "read", "load", "models", "priors", "Priors",
    "ModelSpec", "Independent", "KnownVariances", "NutsOptions", "Case", "HierlmmError",
    "SamplingVariances", "Stratified", "CompoundSymmetry", "HeterogeneousCompoundSymmetry", "AR1", "HeterogeneousAR1",
    "ContinuousAR1", "Toeplitz", "Antedependence", "Unstructured", "Frequency", "Precision",
    "Moments", "moments",
}  # fmt: skip


def test_every_name_in_all_exists() -> None:
    """httpx's test: a comma left out of __all__ fuses two names and is found here."""
    missing = [name for name in hl.__all__ if not hasattr(hl, name)]

    assert not missing


def test_the_promised_names_are_public() -> None:
    """DESIGN, "The public face"."""
    assert set(hl.__all__) >= PROMISED


def test_no_name_is_listed_twice_and_dir_shows_them_all() -> None:
    """`dir(hierlmm)` is what completion shows."""
    assert len(hl.__all__) == len(set(hl.__all__))
    assert set(dir(hl)) >= set(hl.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Lazy loading must not turn a typing error into an import error."""
    assert getattr(hl, "lmmm", None) is None


def test_every_public_name_says_what_it_is() -> None:
    """A docstring of its own, of more than a name."""
    public = {name: getattr(hl, name) for name in hl.__all__ if not name.startswith("__")}

    silent = [name for name, value in public.items() if len(inspect.getdoc(value) or "") < 20]

    assert not silent


def test_priors_is_the_module_of_prior_types() -> None:
    """`hl.priors.HalfT(...)` as in the documentation."""
    assert isinstance(hl.priors, ModuleType)
    assert {"Flat", "HalfT", "HalfNormal", "HalfCauchy", "LKJ", "Normal", "Priors"} <= set(dir(hl.priors))
