"""Bootstrap of linear mixed models: parametric, of residuals at every level, and wild by cluster."""

from hierlmm.frequentist.bootstrap.results import Bootstrap
from hierlmm.frequentist.bootstrap.run import bootstrap

__all__ = ["Bootstrap", "bootstrap"]
