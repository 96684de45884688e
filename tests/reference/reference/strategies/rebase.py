"""REBASE (arXiv 2408.00724, section 3.2) with its authors' rounding."""

from __future__ import annotations

import math

from ..expand import drop, end_dead_ends, expand, keep
from ..options import Options
from ..path import Path, stem
from ..requests import Asking


def run(problem: str, options: Options) -> Asking[list[Path]]:
    """Ended paths leave and take one of the budget each; a softmax of values shares out the rest."""
    wanted, solutions = [(stem(), options.n)], []
    while wanted:
        expansion = yield from expand(wanted, options)
        solutions += end_dead_ends(expansion)
        going_on = []
        for path in expansion.candidates:
            if path.ending:
                keep(path)
                solutions.append(path)
            else:
                going_on.append(path)
        budget = max(options.n - len(solutions), 0)
        widths = shares([path.value or 0.0 for path in going_on], budget, options.balance_temperature)
        for path, width in zip(going_on, widths):
            if not width:
                drop(path)
        wanted = [(path, width) for path, width in zip(going_on, widths) if width]
    return solutions


def shares(values: list[float], budget: int, temperature: float) -> list[int]:
    """Children of each path: best first, each ⌈what is left · its weight / the weights not served⌉."""
    order = sorted(range(len(values)), key=lambda index: -values[index])
    top = max(values, default=0.0)
    weights = [math.exp((value - top) / temperature) for value in values]
    widths = [0] * len(values)
    # A running difference in f64, as in the authors' code: where values are equal its rounding decides.
    not_served = sum(weights)
    for index in order:
        if not_served > 0:
            widths[index] = min(math.ceil(budget * weights[index] / not_served), budget)
        budget -= widths[index]
        not_served -= weights[index]
    return widths
