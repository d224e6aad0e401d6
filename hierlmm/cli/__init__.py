"""The command line: parses, calls, prints."""

from hierlmm.cli.program import main, program

__all__ = ["main", "program"]
