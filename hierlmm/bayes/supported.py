"""Which specs have a posterior here: those whose residuals are independent, or the area-level model."""

from __future__ import annotations

from collections.abc import Mapping

from hierlmm.design import build
from hierlmm.design.types import AreaDesign, LMMDesign
from hierlmm.errors import SpecError, listed
from hierlmm.spec.covariance import Diagonal, General
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import AreaResidual, Independent


def supported_design(
    spec: ModelSpec, data: object, matrices: Mapping[str, object] | None = None
) -> LMMDesign | AreaDesign:
    """The design of a spec that the Bayesian half can fit.

    Raises SpecError for weights, for residual structures other than Independent() and that of the area-level model,
    and for covariances of random effects other than General() and Diagonal(); DesignError as `build` does.
    """
    if isinstance(spec, ModelSpec):  # `build` refuses anything else
        check_supported(spec)
    return build(spec, data, matrices)


def check_supported(spec: ModelSpec) -> None:
    """Raise SpecError, naming all that stands in the way, for a spec that only REML and ML can fit."""
    found = []
    if not isinstance(spec.residual, Independent | AreaResidual):
        found.append(f"residual={spec.residual!r}")
    if spec.weights is not None:
        found.append(f"weights={spec.weights!r}")
    found += [str(term) for term in spec.random if not isinstance(term.covariance, General | Diagonal)]
    if found:
        raise SpecError(
            "Posteriors and PyMC models exist for independent residuals of one variance, random effects with an "
            "unstructured or diagonal covariance matrix, and no weights, and for the area-level model of "
            f"fay_herriot(...); found {listed(found)}. Leave these out, or fit the model by hl.fit(...)."
        )
