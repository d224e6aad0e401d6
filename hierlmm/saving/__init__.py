"""Results in files: any fit, posterior or comparison in one file, by value, without pickle."""

from hierlmm.saving.files import read, save
from hierlmm.saving.manifest import FORMAT

__all__ = ["FORMAT", "read", "save"]
