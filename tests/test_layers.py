"""The import table of the house, read from the source: who may know whom, and what may be loaded when."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hierlmm"

# place -> (places of ours it may import, third parties it may import, third parties only inside functions);
# "" is the package itself, for its version.
FITS = {"errors", "spec", "design", "likelihood"}
RESULTS = {"frequentist", "bayes", "compare", "survey", "publication"}
TABLE: dict[str, tuple[set[str], set[str], set[str]]] = {
    "errors": (set(), set(), set()),
    "spec": ({"errors"}, set(), {"formulaic", "tomli_w"}),
    "design": ({"errors", "spec"}, {"numpy", "pandas", "narwhals"}, {"formulaic", "pyarrow"}),
    "likelihood": (set(), {"numpy", "scipy"}, {"numba"}),
    "survey": ({"errors", "spec", "design"}, {"numpy", "scipy", "pandas"}, set()),
    "frequentist": (FITS | {"survey"}, {"numpy", "scipy", "pandas"}, {"joblib", "rich"}),
    "bayes": (
        FITS,
        {"numpy", "scipy", "pandas"},
        {"xarray", "joblib", "rich", "pymc", "pytensor", "nutpie", "arviz", "arviz_base", "arviz_stats"},
    ),
    "compare": (FITS | {"frequentist", "bayes"}, {"numpy", "scipy", "pandas"}, {"joblib", "rich"}),
    "publication": (FITS | {"frequentist", "bayes"}, {"numpy", "scipy", "pandas"}, {"joblib", "rich"}),
    "report": (RESULTS | {"errors", ""}, {"numpy", "pandas", "matplotlib", "jinja2", "openpyxl"}, set()),
    "catalogue": ({"errors", "spec"}, {"pandas"}, set()),
    "saving": (FITS | RESULTS | {""}, {"numpy", "pandas", "scipy"}, {"h5py", "xarray"}),
    "cli": (FITS | RESULTS | {"report", "catalogue", "saving", ""}, {"click", "numpy", "pandas", "rich"}, set()),
    "__main__": ({"cli"}, set(), set()),
}
# Methods of results that hand themselves on in one line, and the place each may name.
DELEGATES = {
    "plot": "report", "report": "report", "to_latex": "report", "to_html": "report", "to_excel": "report",
    "save": "saving",
}  # fmt: skip
# What `import hierlmm` must not load, for the sake of its time.
HEAVY = (
    "pymc", "pytensor", "nutpie", "arviz", "arviz_base", "arviz_stats", "arviz_plots", "xarray", "matplotlib", "numba",
    "scipy.stats", "scipy.optimize", "formulaic", "jinja2", "joblib", "rich", "click",
)  # fmt: skip


def imports(path: Path) -> Iterator[tuple[str, bool, str, int]]:
    """Every import of a file: module, whether it waits for a call, name of the function, line.

    What third parties are imported for type checkers alone is left out: it is never loaded.
    """

    def walk(node: ast.AST, late: bool, function: str) -> Iterator[tuple[str, bool, str, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, late, function, child.lineno) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                yield ("." * child.level + (child.module or ""), late, function, child.lineno)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from walk(child, True, child.name)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                yield from (found for found in walk(child, True, function) if found[0].startswith("hierlmm"))
            else:
                yield from walk(child, late, function)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), False, "")


def place_of(path: Path) -> str:
    """The room of the house that a file stands in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def forbidden(path: Path) -> list[str]:
    """The imports of a file that the table does not allow."""
    place = place_of(path)
    ours, anywhere, late_only = TABLE[place]
    found = []
    for module, late, function, line in imports(path):
        root, _, rest = module.partition(".")
        if root == "hierlmm":
            target = rest.split(".")[0]
            allowed = target in ours | {place} or DELEGATES.get(function) == target
        else:
            allowed = root in sys.stdlib_module_names | anywhere or (late and root in late_only)
        if not allowed:
            found.append(f"{path.relative_to(PACKAGE.parent)}:{line} imports {module}")
    return found


@pytest.mark.parametrize("place", TABLE)
def test_each_place_imports_only_what_the_table_allows(place: str) -> None:
    """DESIGN: frequentist and bayes never meet, likelihood knows none of our classes, imports point backwards."""
    files = [path for path in PACKAGE.rglob("*.py") if place_of(path) == place]

    found = [text for path in files for text in forbidden(path)]

    assert not found, "\n".join(found)


def test_every_file_stands_in_a_place_of_the_table() -> None:
    """A new room must be entered into the table before it may import anything."""
    places = {place_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}

    assert places <= set(TABLE)


def test_a_reversed_import_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself: likelihood importing a result class, and pymc at the top of a file of bayes."""
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "hierlmm")
    likelihood, bayes = (tmp_path / "hierlmm" / place / "new.py" for place in ("likelihood", "bayes"))
    for path, text in (
        (likelihood, "from hierlmm.frequentist.lmm_results import LMMFit\n"),
        (bayes, "import pymc\ndef late():\n    import pymc\nfrom hierlmm.frequentist import lmm\n"),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")

    assert len(forbidden(likelihood)) == 1
    assert len(forbidden(bayes)) == 2


def loaded_after(code: str) -> set[str]:
    """Names of the modules a fresh interpreter has loaded after `code`."""
    program = f"import sys\n{code}\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("code", ["import hierlmm", "import hierlmm as hl\nfor name in hl.__all__: getattr(hl, name)"])
def test_importing_hierlmm_loads_nothing_heavy(code: str) -> None:
    """Neither the package nor any of its public names; what is heavy loads in the function that needs it."""
    loaded = loaded_after(code)

    assert not loaded & set(HEAVY)
