"""Bootstrap of linear mixed models: parametric, of residuals at every level, and wild by cluster."""
