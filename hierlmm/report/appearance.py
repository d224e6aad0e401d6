"""How the pictures of a report look: colours that colour-blind readers can tell apart, sizes, and safe labels.

The colours are those of Okabe & Ito (2008), Color Universal Design; every role has a marker of its own as well, so
that nothing rests on colour alone.
"""

from __future__ import annotations

FIT = "#0072B2"
POSTERIOR = "#D55E00"
DIRECT = "#595959"
GUIDE = "#b3b3b3"
TEXT = "#222222"
FIT_MARKER, POSTERIOR_MARKER, DIRECT_MARKER = "o", "D", "o"

# One colour a step of the attribution, in the order of the steps.
STEPS = {
    "estimator": "#999999",
    "averaging": "#56B4E9",
    "variance_prior": "#E69F00",
    "fixed_prior": "#CC79A7",
    "monte_carlo": "#009E73",
}
STEP_NAMES = {
    "estimator": "estimator",
    "averaging": "averaging",
    "variance_prior": "prior of the variances",
    "fixed_prior": "prior of the coefficients",
    "monte_carlo": "Monte Carlo",
}

# A longer name of an area or level is cut in pictures; tables show it whole.
LONGEST, LAST = 26, 9
# The same for the label of an axis.
AXIS = 50

# What `matplotlib.rc_context` is given while a report is drawn; plot functions leave style to their caller.
SETTINGS: dict[str, object] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica Neue", "Arial", "Noto Sans", "Noto Sans CJK JP"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.edgecolor": "#8c8c8c",
    "axes.labelcolor": TEXT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": TEXT,
    "xtick.color": "#595959",
    "ytick.color": "#595959",
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.0,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.3,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "hierlmm",
}


def plain(text: object, longest: int = LONGEST) -> str:
    """`text` as matplotlib shows it letter for letter: on one line, cut where long, `$` not taken for mathematics."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    # Long names often differ at their end only, so the middle goes.
    cut = line if len(line) <= longest else f"{line[: longest - LAST - 1]}…{line[-LAST:]}"
    return cut.replace("$", r"\$")
