"""A line of a results file of `offshoot solve --trees --out`, as far as the reference reads it."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path as FilePath
from typing import Any

from .options import Options, Unusable
from .strategies import STRATEGIES


@dataclass(frozen=True)
class Node:
    """A step of the recorded tree; node 0 is the stem."""

    id: int
    parent: int | None
    depth: int
    text: str
    reward: float | None
    value: float | None
    num_tokens: int
    lookahead_tokens: int
    state: str
    chosen: bool


@dataclass(frozen=True)
class Solution:
    """A recorded solution."""

    steps: list[str]
    scores: list[float]
    answer: str | None
    ending: str
    num_tokens: int
    node: int
    confidence: dict[str, float] | None


@dataclass(frozen=True)
class Line:
    """One solved problem."""

    id: str
    problem: str
    options: Options
    selection: str
    prediction: str | None
    verdicts: list[dict[str, Any]]
    by_n: list[dict[str, Any]]
    policy_tokens: int
    system: str | None
    kv_dtype: str | None
    solutions: list[Solution]
    nodes: list[Node]


def read(path: FilePath) -> list[Line]:
    """The lines of a results file with trees."""
    lines = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        expected = "expected a line of `offshoot solve --trees --out`"
        try:
            lines.append(_line(json.loads(text)))
        except KeyError as error:
            raise Unusable(f'{path}, line {number}: no "{error.args[0]}"; {expected}') from error
        except (TypeError, ValueError, Unusable) as error:
            tail = "" if isinstance(error, Unusable) else f"; {expected}"
            raise Unusable(f"{path}, line {number}: {error}{tail}") from error
    if not lines:
        raise Unusable(f"{path}: no lines; expected the output of `offshoot solve --trees --out`")
    return lines


def _line(line: dict[str, Any]) -> Line:
    settings = line["settings"]
    strategy = settings["search"]["strategy"]
    if strategy not in STRATEGIES:
        raise Unusable(f"the reference has no strategy {strategy}; it has {', '.join(STRATEGIES)}")
    return Line(
        id=line["id"],
        problem=line["problem"],
        options=Options.read(settings["search"]),
        selection=line["selection"],
        prediction=line["prediction"],
        verdicts=line["verdicts"],
        by_n=line["by_n"],
        policy_tokens=line["tokens"]["policy"],
        system=settings["system"],
        kv_dtype=settings["kv_dtype"],
        solutions=[_pick(Solution, solution) for solution in line["solutions"]],
        nodes=[_pick(Node, node) for node in line["tree"]["nodes"]],
    )


def _pick(kind: Any, values: dict[str, Any]) -> Any:
    return kind(
        **{
            field.name: values.get(field.name) if field.name == "confidence" else values[field.name]
            for field in fields(kind)
        }
    )
