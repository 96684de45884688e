"""Strategies that write whole solutions: CoT, majority vote, best-of-N."""

from __future__ import annotations

from collections.abc import Callable

from ..answers import key
from ..options import Options
from ..path import Path, stem
from ..requests import Asking, LowestWindows, ReadAnswers, Score, WriteWhole
from ..scores import aggregate
from ..stop_rules import looks, scores_settled, settled


def cot(problem: str, options: Options) -> Asking[list[Path]]:
    """Chain of thought (Wei et al., arXiv 2201.11903): one solution, or N drawn ones."""
    return (yield from _write(stem(), options.n))


def majority(problem: str, options: Options) -> Asking[list[Path]]:
    """Self-consistency (Wang et al., arXiv 2203.11171), with a look after some solutions if there is a stop
    rule."""
    if options.confidence_bar is not None:
        return (yield from _above_the_bar(options))
    return (yield from _until_settled(options, "majority"))


def best_of_n(problem: str, options: Options) -> Asking[list[Path]]:
    """N solutions whose steps the PRM scores; with a stop rule they are looked at like a majority vote."""
    return (yield from _until_settled(options, options.selection or "last-vote", _scored))


def _until_settled(
    options: Options, selection: str, score: Callable[..., Asking[None]] | None = None
) -> Asking[list[Path]]:
    """N solutions, or those of a look at which the vote is settled."""
    start, solutions = stem(), []
    stops = [] if options.stop_rule == "none" else looks(options.n)
    for until in [*stops, options.n]:
        new = yield from _write(start, until - len(solutions))
        solutions += new
        if score is not None:
            yield from score(new)
        if until < options.n:
            answers = yield ReadAnswers(solutions)
            keys = [None if answer is None else key(answer) for answer in answers]
            if options.stop_rule == "unbeatable" and selection != "majority":
                aggregation = selection.rsplit("-", 1)[0]
                scores = [aggregate(aggregation, solution.rewards()) for solution in solutions]
                done = scores_settled(selection, list(zip(keys, scores)), options.n)
            else:
                done = settled(options.stop_rule, keys, options.n)
            if done:
                break
    return solutions


def _above_the_bar(options: Options) -> Asking[list[Path]]:
    """DeepConf (arXiv 2508.15260, section 3.2): solutions below the warm-up's percentile 100 - η do not
    count."""
    start = stem()
    solutions = yield from _write(start, options.confidence_warmup)
    lowest = yield LowestWindows(solutions)
    bar = percentile(lowest, 100 - (options.confidence_bar or 0.0))
    solutions += yield from _write(start, options.n - len(solutions))
    lowest = yield LowestWindows(solutions)
    for solution, window in zip(solutions, lowest):
        if window < bar:
            solution.end("low-confidence")
    return solutions


def percentile(values: list[float], percent: float) -> float:
    """Interpolated between the two nearest of the sorted values, the lowest being 0 percent and the highest
    100."""
    values = sorted(values)
    place = (len(values) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (place - below)


def _scored(solutions: list[Path]) -> Asking[None]:
    """Scores and values the steps of solutions."""
    steps = [step for solution in solutions for step in solution.line()]
    rewards = yield Score(steps)
    for step, reward in zip(steps, rewards):
        # Nothing is ranked by `aggregation` here: a node's value is its own score.
        step.reward = step.value = reward


def _write(start: Path, count: int) -> Asking[list[Path]]:
    solutions = yield WriteWhole(start, count)
    for solution in solutions:
        solution.end("length-cut" if solution.cut else "finished")
    return solutions
