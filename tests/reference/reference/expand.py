"""The children of paths: which are valid, which end, what they are worth (SEMANTICS.md, "Expansion",
"Lookahead")."""

from __future__ import annotations

from dataclasses import dataclass

from .options import Options
from .path import Path
from .requests import Asking, LookAhead, Score, Together, Write
from .scores import aggregate


@dataclass
class Expansion:
    """What came of a round."""

    families: list[tuple[Path, list[Path]]]
    """Each path that was expanded with its valid children, in the order of their branches."""

    @property
    def candidates(self) -> list[Path]:
        """All valid children, in the order of their parents and then of their branches."""
        return [child for _, children in self.families for child in children]

    @property
    def dead_ends(self) -> list[Path]:
        """The paths without a valid child, in their order."""
        return [path for path, children in self.families if not children]


def expand(wanted: list[tuple[Path, int]], options: Options) -> Asking[Expansion]:
    """Writes and values children of every path."""
    families = yield Together([_family(path, count, options) for path, count in wanted])
    expansion = Expansion([(path, children) for (path, _), children in zip(wanted, families)])
    yield from _value(expansion.candidates, options)
    return expansion


def end_dead_ends(expansion: Expansion) -> list[Path]:
    """Ends the paths without a valid child where they are, and returns them."""
    for path in expansion.dead_ends:
        path.end("dead-end")
    return expansion.dead_ends


def _family(parent: Path, count: int, options: Options) -> Asking[list[Path]]:
    """The valid children of one path, written again while there is none."""
    tried: list[Path] = []
    for attempt in range(options.max_retries):
        row = yield Write(parent, count, attempt)
        tried += row
        valid = _valid(row)
        if valid:
            for child in valid:
                _end_if_it_must(child, options)
            return valid
    return _rescued(tried) if parent.parent is None else []


def _valid(row: list[Path]) -> list[Path]:
    """The valid ones of the children of one path; the others get their state."""
    texts: set[str] = set()
    valid = []
    for child in row:
        if child.cut:
            child.state = "length-cut"
        elif not child.text and not child.ended:
            child.state = "empty"
        elif child.text in texts:
            child.state = "duplicate"
        else:
            texts.add(child.text)
            valid.append(child)
    return valid


def _rescued(tried: list[Path]) -> list[Path]:
    """Cut first steps, where no first step is valid: each distinct text that is not empty."""
    texts: set[str] = set()
    rescued = []
    for child in tried:
        if not child.cut or not child.text:
            continue
        if child.text in texts:
            child.state = "duplicate"
        else:
            texts.add(child.text)
            child.ending = "length-cut"
            rescued.append(child)
    return rescued


def _end_if_it_must(child: Path, options: Options) -> None:
    if child.ended or (options.answer_marker and options.answer_marker in child.text):
        child.ending = "finished"
    elif child.path_tokens() >= options.max_tokens:
        child.ending = "length-cut"
    elif child.depth() >= options.max_steps:
        child.ending = "step-limit"


def _value(children: list[Path], options: Options) -> Asking[None]:
    """Scores the children that have a step of their own, and values all."""
    scored = [child for child in children if child.text]
    rewards = yield Score(scored)
    for child, reward in zip(scored, rewards):
        child.reward = reward
    for child in children:
        child.value = aggregate(options.aggregation, child.rewards())
    if options.lookahead:
        going_on = [child for child in children if child.ending is None]
        values = yield LookAhead(going_on)
        for child, value in zip(going_on, values):
            child.value = value


def keep(path: Path) -> None:
    """The search keeps a candidate; if it has ended, its state says how."""
    if path.ending is not None:
        path.end(path.ending)


def drop(path: Path) -> None:
    """The search goes on without a candidate."""
    path.state = "dropped"


def ranked(candidates: list[Path]) -> list[Path]:
    """Best first (SEMANTICS.md, "Ranking")."""

    def rank(item: tuple[int, Path]) -> tuple[float, float, int]:
        index, path = item
        above = path.parent.value if path.parent is not None else None
        return (-_number(path.value), -_number(above), index)

    return [path for _, path in sorted(enumerate(candidates), key=rank)]


def _number(value: float | None) -> float:
    """The stem has no value; its children are compared among themselves only."""
    return 0.0 if value is None else value
