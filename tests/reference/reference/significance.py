"""Whether two programs have equal chances of success on every problem."""

from __future__ import annotations

import math


def stratified_p_value(here: list[int], there: list[int], runs_here: int, runs_there: int) -> float:
    """The two-sided p-value of the exact conditional test of Cochran, Mantel and Haenszel, problems as
    strata.

    `here[i]` of `runs_here` runs solved problem i, and `there[i]` of `runs_there`. If chances are equal,
    then given all the successes on a problem those of `here` are hypergeometric; their sum is the
    statistic. The p-value is the probability of a sum at least as far from its mean.
    """
    sums = [1.0]
    for a, b in zip(here, there):
        sums = _convolved(sums, _hypergeometric(a + b, runs_here, runs_there))
    mean = sum(index * p for index, p in enumerate(sums))
    distance = abs(sum(here) - mean)
    return min(1.0, sum(p for index, p in enumerate(sums) if abs(index - mean) >= distance - 1e-9))


def _hypergeometric(successes: int, runs_here: int, runs_there: int) -> list[float]:
    """How many of `successes` fall to `runs_here` of all runs: probabilities of 0 to `runs_here`."""
    ways = math.comb(runs_here + runs_there, successes)
    return [
        math.comb(runs_here, own) * math.comb(runs_there, successes - own) / ways
        if own <= successes
        else 0.0
        for own in range(runs_here + 1)
    ]


def _convolved(a: list[float], b: list[float]) -> list[float]:
    out = [0.0] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            out[i + j] += x * y
    return out


def holm(p_values: list[float]) -> list[float]:
    """Adjusted p-values (Holm, 1979), in the given order: equal chances are rejected where one is below the
    level."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def interval(here: list[float], there: list[float]) -> tuple[float, float, float]:
    """The mean difference of pairs, one a problem, and the ends of its 95 % interval (normal)."""
    differences = [a - b for a, b in zip(here, there)]
    mean = sum(differences) / len(differences)
    variance = sum((d - mean) ** 2 for d in differences) / (len(differences) - 1)
    half = 1.959964 * math.sqrt(variance / len(differences))
    return mean, mean - half, mean + half
