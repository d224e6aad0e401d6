"""The estimators of the area variance in words."""

from __future__ import annotations

HEADINGS: dict[str, str] = {
    "reml": "REML",
    "ml": "ML",
    "fh": "Fay-Herriot moments",
    "pr": "Prasad-Rao moments",
    "amrl_ll": "Li-Lahiri adjusted restricted likelihood",
    "ampl_ll": "Li-Lahiri adjusted profile likelihood",
    "amrl_yl": "Yoshimori-Lahiri adjusted restricted likelihood",
    "ampl_yl": "Yoshimori-Lahiri adjusted profile likelihood",
    "mix": "MIX (REML where positive, otherwise Li-Lahiri)",
}
