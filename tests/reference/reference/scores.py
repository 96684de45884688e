"""Aggregations: the scores of a path's steps to one score (SEMANTICS.md, "Aggregations")."""

from __future__ import annotations

import math

NO_SCORES = -1.0
"""The score of a path without scores, below every probability."""

AGGREGATIONS = ("min", "last", "mean", "product")


def aggregate(name: str, rewards: list[float]) -> float:
    """`rewards` in the order of the steps."""
    if not rewards:
        return NO_SCORES
    if name == "min":
        return min(rewards)
    if name == "last":
        return rewards[-1]
    if name == "mean":
        return sum(rewards) / len(rewards)
    if name == "product":
        return math.prod(rewards)
    raise ValueError(f"the reference has no aggregation {name}")
