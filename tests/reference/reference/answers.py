"""When two answers are the same. Offshoot's normal form is the grader's; the reference reads numbers only,
which are all the answers that the nano family gives, and compares other answers as text."""

from __future__ import annotations

import re
from fractions import Fraction

_NUMBER = re.compile(r"[+-]?(\d+(,\d{3})*(\.\d*)?|\.\d+)")
_FRACTION = re.compile(r"([+-]?)\\[dt]?frac\{(\d+)\}\{(\d+)\}|([+-]?)(\d+)/(\d+)")


def key(answer: str) -> Fraction | str:
    """A number's value; else the text without spaces."""
    text = "".join(answer.split()).replace("\\$", "").replace("$", "")
    if _NUMBER.fullmatch(text):
        return Fraction(text.replace(",", ""))
    if found := _FRACTION.fullmatch(text):
        sign = found[1] or found[4] or ""
        over, under = int(found[2] or found[5]), int(found[3] or found[6])
        if under:
            return Fraction(over, under) * (-1 if sign == "-" else 1)
    return text


_BOX = re.compile(r"\\(?:boxed|fbox)\{([^{}]*)\}")


def last_boxed(solution: str) -> str | None:
    """The content of the last closed box without braces in it."""
    found = _BOX.findall(solution)
    return found[-1].strip() if found else None
