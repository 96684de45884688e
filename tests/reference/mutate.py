#!/usr/bin/env python3
"""Alters one choice of a recorded search at a time; the replay must find each alteration.

    python3 tests/reference/mutate.py results.jsonl [--problems 4]

Exit status: 0, all are found; 1, some are not, which are printed; 2, the file cannot be replayed. DORA
needs a `similarity_temperature` of 1e6 or more here, at which its choices do not depend on embeddings.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from reference import record
from reference.options import Unusable
from reference.record import Line, Node
from reference.recorded import Replay

Mutations = Iterator[tuple[str, Line]]


def states(line: Line) -> Mutations:
    """A candidate that was kept is said to be dropped, and the reverse; likewise an invalid one."""
    other = {
        "kept": "dropped",
        "dropped": "kept",
        "duplicate": "dropped",
        "empty": "kept",
        "stopped": "kept",
    }
    for node in line.nodes[1:]:
        if node.state in other:
            state = other[node.state]
            yield f"node {node.id} is {state}", with_nodes(line, {node.id: replace(node, state=state)})


def exchanges(line: Line) -> Mutations:
    """A kept and a dropped sibling exchange their scores: the search kept the worse one.

    Particle filtering draws, and may well keep the worse one.
    """
    if line.options.strategy == "particle-filtering":
        return
    for kept in line.nodes[1:]:
        for dropped in line.nodes[kept.id + 1 :]:
            siblings = kept.parent == dropped.parent and kept.value != dropped.value
            if siblings and {kept.state, dropped.state} == {"kept", "dropped"}:
                changed = {
                    kept.id: replace(kept, reward=dropped.reward, value=dropped.value),
                    dropped.id: replace(dropped, reward=kept.reward, value=kept.value),
                }
                yield f"nodes {kept.id} and {dropped.id} exchange their scores", with_nodes(line, changed)


def moves(line: Line) -> Mutations:
    """A leaf moves to another parent of its round: one path has a child more, one has a child less."""
    parents = {node.parent for node in line.nodes[1:]}
    for node in line.nodes[1:]:
        if node.id in parents:
            continue
        for other in line.nodes[1:]:
            if other.id in parents and other.depth == node.depth - 1 and other.id != node.parent:
                yield (
                    f"node {node.id} moves to {other.id}",
                    with_nodes(line, {node.id: replace(node, parent=other.id)}),
                )


def solutions(line: Line) -> Mutations:
    """Two solutions change places; the last one is missing."""
    for index in range(len(line.solutions) - 1):
        changed = list(line.solutions)
        changed[index : index + 2] = changed[index + 1], changed[index]
        if changed != line.solutions:
            yield f"solutions {index} and {index + 1} change places", replace(line, solutions=changed)
    yield "the last solution is missing", replace(line, solutions=line.solutions[:-1])


def verdicts(line: Line) -> Mutations:
    """Each selection of each budget gives another solution."""
    for place, verdict in enumerate(line.verdicts):
        for index in range(len(line.solutions)):
            if index != verdict["solution"]:
                changed = replaced(line.verdicts, place, verdict | {"solution": index})
                yield f"{verdict['selection']} gives solution {index}", replace(line, verdicts=changed)
    for row, budget in enumerate(line.by_n):
        for place, verdict in enumerate(budget["verdicts"]):
            changed = replaced(budget["verdicts"], place, verdict | {"solution": len(line.solutions)})
            by_n = replaced(line.by_n, row, budget | {"verdicts": changed})
            yield (
                f"N' = {budget['n']}: {verdict['selection']} gives another solution",
                replace(line, by_n=by_n),
            )
    yield "another answer is given", replace(line, prediction=f"not {line.prediction}")


MUTATIONS = (states, exchanges, moves, solutions, verdicts)


def replaced(values: list[Any], place: int, value: Any) -> list[Any]:
    """The list with another value in one place."""
    return [*values[:place], value, *values[place + 1 :]]


def with_nodes(line: Line, changed: dict[int, Node]) -> Line:
    """The line with other nodes."""
    return replace(line, nodes=[changed.get(node.id, node) for node in line.nodes])


def main() -> int:
    """Alters the files of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "results", type=FilePath, nargs="+", help="output of `offshoot solve --trees --out`"
    )
    parser.add_argument("--problems", type=int, help="about so many problems of a file, spread evenly")
    given = parser.parse_args()
    missed = 0
    for path in given.results:
        try:
            counts = dict.fromkeys((kind.__name__ for kind in MUTATIONS), 0)
            lines = record.read(path)
            for line in lines[:: max(len(lines) // (given.problems or len(lines)), 1)]:
                if found := Replay(line, None).differences():
                    raise Unusable(f"{path}: not altered, and yet: {found[0]}")
                for kind in MUTATIONS:
                    for what, altered in kind(line):
                        counts[kind.__name__] += 1
                        if not Replay(altered, None).differences():
                            print(f"{path}: {line.id}: {what}: not found")
                            missed += 1
        except (Unusable, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        print(f"{path}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    print(f"{missed} not found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
