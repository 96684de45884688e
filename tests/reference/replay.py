#!/usr/bin/env python3
"""Makes every choice of the searches in a results file again, and compares.

    offshoot solve --strategy beam --trees --out results.jsonl
    python3 tests/reference/replay.py results.jsonl [--policy DIR] [--prm DIR]

Exit status: 0, every choice is the same; 1, there are differences, which are printed; 2, the file cannot be
replayed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path as FilePath

from reference import record
from reference.options import Unusable
from reference.recorded import Replay
from reference.strategies import STRATEGIES


def main() -> int:
    """Replays the files of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "results", type=FilePath, nargs="+", help="output of `offshoot solve --trees --out`"
    )
    parser.add_argument("--policy", type=FilePath, help="the policy's directory: embeds paths (dora)")
    parser.add_argument(
        "--prm", type=FilePath, help="a token-classification PRM's directory: scores paths again"
    )
    parser.add_argument(
        "--prm-problems", type=int, default=5, help="problems whose scores are computed again"
    )
    given = parser.parse_args()
    try:
        differences = sum(replay_file(path, record.read(path), given) for path in given.results)
    except (Unusable, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if differences else 0


def replay_file(path: FilePath, lines: list[record.Line], given: argparse.Namespace) -> int:
    """Prints what differs in one file and a summary; returns how many differences there are."""
    names = list(dict.fromkeys(line.options.strategy for line in lines))
    embed = None
    if any(STRATEGIES[line.options.strategy].needs_embeddings(line.options) for line in lines):
        if given.policy is None:
            raise Unusable(f"{path} is of strategy {', '.join(names)}, which needs --policy DIR")
        from reference.embeddings import Embedder

        embed = Embedder(given.policy)
    found, choices, close = [], 0, 0
    for line in lines:
        replay = Replay(line, embed)
        found += replay.differences()
        choices, close = choices + replay.choices, close + replay.close
    if given.prm is not None:
        from reference.prm import Scorer, score_differences

        found += score_differences(Scorer(given.prm), lines[: given.prm_problems])
    for difference in found:
        print(difference)
    within = f", {close} of them by a rounding that the embeddings' error may turn" if close else ""
    print(
        f"{path}: {', '.join(names)}, {len(lines)} problems, {choices} choices{within}: "
        f"{len(found)} differences"
    )
    return len(found)


if __name__ == "__main__":
    sys.exit(main())
