"""What one check found: what was looked at, the value, a verdict, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """How a check came out; the value is the sentence that explains the word."""

    OK = "nothing wrong was seen"
    LOOK = "look at the plot or the numbers named before the result is used"
    ACT = "the result should not be used as it stands"
    NOT_CHECKED = "the data do not allow the check, or are too many for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One item of the check-list.

    topic   what was looked at, in a few words
    value   what was found, with the threshold it was held against
    advice  what to do; "" where there is nothing to do
    """

    topic: str
    value: str
    verdict: Verdict
    advice: str = ""


def graded(topic: str, value: str, advice: str, *, look: bool, act: bool = False) -> Finding:
    """A finding whose advice is given where there is something to look at or to act on."""
    verdict = Verdict.ACT if act else Verdict.LOOK if look else Verdict.OK
    return Finding(topic=topic, value=value, verdict=verdict, advice="" if verdict is Verdict.OK else advice)
