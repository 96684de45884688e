"""Selections: the solutions to one answer (SEMANTICS.md, "Selections"), and the smaller budgets."""

from __future__ import annotations

from dataclasses import dataclass

from .answers import key
from .options import Options, Unusable
from .scores import AGGREGATIONS, aggregate


@dataclass(frozen=True)
class Candidate:
    """A solution as a selection sees it."""

    answer: str | None
    scores: list[float]
    confidence: dict[str, float] | None = None
    counts: bool = True
    """Whether selections count it: not if its confidence was below the bar."""


_CONFIDENCES = {"self-certainty": "self_certainty", "tail-confidence": "tail"}


def names(has_prm: bool, has_confidences: bool) -> list[str]:
    """Every selection that a run has."""
    scored = [f"{name}-{way}" for name in AGGREGATIONS for way in ("max", "vote")]
    confident = [f"{name}-{way}" for name in _CONFIDENCES for way in ("max", "vote")]
    return [*(scored if has_prm else []), "majority", *(confident if has_confidences else [])]


def select(selection: str, solutions: list[Candidate]) -> int | None:
    """The index of the solution that is given; None where no solution has an answer.

    Of a group that wins a vote the first solution stands for it.
    """
    groups: dict[object, list[int]] = {}
    for index, solution in enumerate(solutions):
        if solution.answer is not None and solution.counts:
            groups.setdefault(key(solution.answer), []).append(index)
    if not groups:
        return None
    if selection not in names(has_prm=True, has_confidences=True):
        raise Unusable(f"the reference has no selection {selection}")
    if selection == "majority":
        return max(groups.values(), key=lambda group: (len(group), -group[0]))[0]
    aggregation, way = selection.rsplit("-", 1)
    if aggregation in _CONFIDENCES:
        scores = [(solution.confidence or {}).get(_CONFIDENCES[aggregation], 0.0) for solution in solutions]
    else:
        scores = [aggregate(aggregation, solution.scores) for solution in solutions]
    if way == "max":
        members = [index for group in groups.values() for index in group]
        return max(members, key=lambda index: (scores[index], -index))
    if aggregation == "self-certainty":
        scores = _borda(scores)
    return max(
        groups.values(), key=lambda group: (sum(scores[index] for index in group), len(group), -group[0])
    )[0]


def _borda(scores: list[float]) -> list[float]:
    """The square root of N - r + 1 for rank r, 1 the highest score, of equal ones the earlier first."""
    weights = [0.0] * len(scores)
    for below, index in enumerate(sorted(range(len(scores)), key=lambda index: (scores[index], -index))):
        weights[index] = (below + 1) ** 0.5
    return weights


def smaller_budgets(options: Options) -> list[tuple[int, int]]:
    """(N', solutions of a run with it), smallest first (SEMANTICS.md, "Smaller budgets")."""
    if (
        options.strategy in ("majority", "best-of-n")
        and options.stop_rule == "none"
        and options.confidence_bar is None
    ):
        smallest, candidates = 1, 1
    elif options.strategy == "dvts":
        smallest, candidates = options.beam_width, options.beam_width
    else:
        return []
    budgets = []
    while smallest < options.n:
        budgets.append((smallest, smallest // candidates))
        smallest *= 2
    return budgets
