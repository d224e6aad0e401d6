"""The area-level model as functions of arrays: criteria, estimators of the area variance, conditional moments."""
