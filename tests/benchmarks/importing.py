"""`python tests/benchmarks/importing.py`: time of `import hierlmm` in fresh interpreters, bytecode cached."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

ROUNDS = 11
STATEMENTS = {"import hierlmm": "import hierlmm", "numpy, pandas": "import numpy, pandas", "nothing": "pass"}


def main() -> None:
    """Print medians in seconds, process start included."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for turn in range(ROUNDS + 1):
        for name, statement in STATEMENTS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True, env=environment)
            if turn:
                times[name].append(time.perf_counter() - start)
    for name, values in times.items():
        print(f"{name:<18}{statistics.median(values):8.3f} s")


if __name__ == "__main__":
    main()
