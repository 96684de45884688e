"""What a strategy asks of the models. A strategy is a generator that yields these and is sent the answers,
so that one and the same strategy runs over recorded trees (replay.py) and over sampling (sample.py)."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from .path import Path

T = TypeVar("T")
Asking = Generator[Any, Any, T]
"""A generator that yields requests and returns a T."""


@dataclass(frozen=True)
class Write:
    """So many children of a path, for the `attempt`-th time. Answer: `list[Path]`, in the order of the
    branches."""

    parent: Path
    count: int
    attempt: int


@dataclass(frozen=True)
class Together:
    """Parts that do not depend on each other. A record lists what they wrote one part after the other; a
    sampler may batch them. Answer: `list` of what they return."""

    parts: list[Asking[Any]]


@dataclass(frozen=True)
class WriteWhole:
    """So many more whole solutions. Answer: `list[Path]`, their last steps."""

    stem: Path
    count: int


@dataclass(frozen=True)
class ReadAnswers:
    """The answers of whole solutions. Answer: `list[str | None]`."""

    solutions: list[Path]


@dataclass(frozen=True)
class LowestWindows:
    """The lowest windows of whole solutions. Answer: `list[float]`."""

    solutions: list[Path]


@dataclass(frozen=True)
class Score:
    """The PRM's score of the last step of each path. Answer: `list[float]`."""

    paths: list[Path]


@dataclass(frozen=True)
class LookAhead:
    """The values of paths by the scores of greedy steps beyond them. Answer: `list[float]`."""

    paths: list[Path]


@dataclass(frozen=True)
class Embed:
    """The mean of the policy's final hidden states over each path's tokens. Answer: `list[list[float]]`."""

    paths: list[Path]


@dataclass(frozen=True)
class Choose:
    """The children of each path, computed from embeddings: `widths`, and `shares` before rounding. Answer:
    `list[int]`, `widths` again, or recorded ones that differ no more than the error of the embeddings
    explains."""

    paths: list[Path]
    shares: list[float]
    widths: list[int]
