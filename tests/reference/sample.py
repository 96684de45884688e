#!/usr/bin/env python3
"""Samples searches with transformers and compares how often they are right with Offshoot.

    python3 tests/reference/sample.py --offshoot target/release/offshoot --policy DIR --prm DIR

An interrupted study goes on where it was with `--drawn FILE`. A row for each search: both accuracies; the
p-value of the exact conditional Cochran-Mantel-Haenszel test (two-sided, problems as strata), and Holm's
correction of it over the searches; the mean difference over the problems with its 95 % interval. "Equal" is
said where the corrected p-value is above 0.01 and the interval lies within the margin. The last row is a
control: the reference draws at another temperature, which the test must see.

Exit status: 0, every search is equal and the control is not; 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from reference.answers import key
from reference.lockstep import run
from reference.options import Options
from reference.sampler import Sampler
from reference.selections import Candidate, select
from reference.significance import holm, interval, stratified_p_value
from reference.strategies import STRATEGIES

LEVEL = 0.01
MARGIN = 5.0
"""In percentage points."""
CONTROL_TEMPERATURE = 1.1
REFERENCE_SEED = 1_000_000
"""The reference's own seeds begin here: particle filtering draws by them, and must not draw what Offshoot
drew."""
SEARCHES = (
    "cot",
    "majority",
    "best-of-n",
    "beam --beam-width 2",
    "beam --beam-width 2 --lookahead 1",
    "dvts --beam-width 2",
    "rebase",
    "dora",
    "particle-filtering",
)
CONTROL = "majority"
HELDOUT = FilePath(__file__).parents[2] / "session/src/embedded/nano-heldout.jsonl"


@dataclass
class Counts:
    """How many runs solved each problem."""

    solved: list[int]
    runs: int

    def shares(self) -> list[float]:
        """Of each problem, in percent."""
        return [100 * count / self.runs for count in self.solved]

    def accuracy(self) -> float:
        """In percent."""
        return sum(self.shares()) / len(self.solved)


class Drawn:
    """What has been drawn: a file with a line for each run of a search, so that a study can be stopped and
    taken up."""

    def __init__(self, path: FilePath | None) -> None:
        self._path = path
        text = path.read_text() if path is not None and path.exists() else ""
        self._lines = [json.loads(line) for line in text.splitlines()]

    def find(self, search: str, side: str, seed: int) -> dict[str, Any] | None:
        """The line of one run."""
        wanted = [search, side, seed]
        return next(
            (line for line in self._lines if [line["search"], line["side"], line["seed"]] == wanted), None
        )

    def add(self, line: dict[str, Any]) -> dict[str, Any]:
        """Keeps a line."""
        self._lines.append(line)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        right = sum(line["solved"])
        print(
            f"{line['search']}, {line['side']}, seed {line['seed']}: {right} right",
            file=sys.stderr,
            flush=True,
        )
        return line

    def counts(self, search: str, side: str) -> Counts:
        """Sums over the runs of one side."""
        runs = [line["solved"] for line in self._lines if [line["search"], line["side"]] == [search, side]]
        return Counts([sum(column) for column in zip(*runs)], len(runs))


def main() -> int:
    """Samples, compares, prints a table."""
    given = arguments()
    problems = [json.loads(line) for line in given.problems.read_text().splitlines()]
    problems = problems[:: len(problems) // given.count][: given.count]
    sampler = Sampler(given.policy, given.prm)
    drawn = Drawn(given.drawn)
    for seed in range(max(given.runs, given.seeds)):
        for search in given.searches:
            draw(given, sampler, drawn, problems, search, seed)
    print("    " + shlex.join(["python3", "tests/reference/sample.py", *sys.argv[1:]]), "\n")
    print(machine(given.offshoot), "\n")
    print(
        f"{len(problems)} problems, N = {given.n}. "
        f"Runs of the reference: {given.runs}; of Offshoot: {given.seeds}.\n"
    )
    rows = [
        (search, drawn.counts(search, "reference"), drawn.counts(search, "offshoot"))
        for search in given.searches
    ]
    p_values = [
        stratified_p_value(here.solved, there.solved, here.runs, there.runs) for _, here, there in rows
    ]
    print(
        "| search | reference | Offshoot | p-value | Holm | difference, 95 % interval | |\n"
        "|---|---:|---:|---:|---:|---:|---|"
    )
    equal = [print_row(*row, p, corrected) for row, p, corrected in zip(rows, p_values, holm(p_values))]
    seen = True
    if CONTROL in given.searches:
        here, there = drawn.counts(CONTROL, "control"), drawn.counts(CONTROL, "offshoot")
        p = stratified_p_value(here.solved, there.solved, here.runs, there.runs)
        print_row(f"{CONTROL}, reference at temperature {CONTROL_TEMPERATURE}", here, there, p, p)
        seen = p <= LEVEL
    return 0 if all(equal) and seen else 1


def draw(
    given: argparse.Namespace,
    sampler: Sampler,
    drawn: Drawn,
    problems: list[dict[str, Any]],
    search: str,
    seed: int,
) -> None:
    """The runs of one search with this number that are wanted and not there yet."""
    there = drawn.find(search, "offshoot", seed)
    if there is None and seed < given.seeds:
        solved, settings = offshoot(given, search, problems, seed)
        drawn.add(
            {"search": search, "side": "offshoot", "seed": seed, "solved": solved, "settings": settings}
        )
    first = drawn.find(search, "offshoot", 0)
    for side in ("reference", "control"):
        wanted = seed < given.runs and (side == "reference" or search == CONTROL)
        if wanted and first is not None and drawn.find(search, side, seed) is None:
            options = Options.read(first["settings"]["search"])
            if side == "control":
                options = replace(options, sampling=options.sampling | {"temperature": CONTROL_TEMPERATURE})
            solved = sample(sampler, options, first["settings"]["system"], problems, seed)
            drawn.add({"search": search, "side": side, "seed": seed, "solved": solved})


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--offshoot", required=True, help="the binary")
    parser.add_argument(
        "--policy", type=FilePath, required=True, help="a directory; a llama or qwen policy"
    )
    parser.add_argument(
        "--prm", type=FilePath, required=True, help="a directory; token classification with <extra_0>"
    )
    parser.add_argument("--problems", type=FilePath, default=HELDOUT, help="default: the bundled problems")
    parser.add_argument("--count", type=int, default=200, help="problems, spread evenly over the file")
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--runs", type=int, default=4, help="runs of the reference")
    parser.add_argument("--seeds", type=int, default=16, help="runs of Offshoot")
    parser.add_argument(
        "--drawn", type=FilePath, help="keeps every run in this file, and takes up what is there"
    )
    parser.add_argument("--searches", nargs="+", default=SEARCHES, help="flags of `solve --strategy`")
    return parser.parse_args()


def print_row(search: str, here: Counts, there: Counts, p: float, corrected: float) -> bool:
    """Prints a row; returns whether the accuracies are equal."""
    mean, low, high = interval(here.shares(), there.shares())
    equal = corrected > LEVEL and -MARGIN < low and high < MARGIN
    word = (
        f"equal within {MARGIN:.0f} points" if equal else "different" if corrected <= LEVEL else "undecided"
    )
    cells = [
        f"`{search}`",
        f"{here.accuracy():.1f} %",
        f"{there.accuracy():.1f} %",
        f"{p:.3g}",
        f"{corrected:.3g}",
    ]
    print("|", " | ".join([*cells, f"{mean:+.1f} ({low:+.1f} to {high:+.1f})", word]), "|")
    return equal


def offshoot(
    given: argparse.Namespace, search: str, problems: list[dict[str, Any]], seed: int
) -> tuple[list[int], dict[str, Any]]:
    """Which problems Offshoot solves, and the settings of its run."""
    strategy = search.split()[0]
    with tempfile.TemporaryDirectory() as folder:
        chosen, results = FilePath(folder, "problems.jsonl"), FilePath(folder, "results.jsonl")
        chosen.write_text("".join(json.dumps(problem) + "\n" for problem in problems))
        command = [given.offshoot, "solve", "--problems", chosen, "--policy", given.policy.resolve()]
        command += ["--strategy", *search.split(), "--seed", str(seed), "--out", results, "--json"]
        if strategy != "cot":
            command += ["--n", str(given.n)]
        if STRATEGIES[strategy].has_prm:
            command += ["--prm", given.prm.resolve()]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = [json.loads(line) for line in results.read_text().splitlines()]
    return [int(bool(line["correct"])) for line in lines], lines[0]["settings"]


def sample(
    sampler: Sampler, options: Options, system: str | None, problems: list[dict[str, Any]], seed: int
) -> list[int]:
    """Which problems the reference solves."""
    row = STRATEGIES[options.strategy]
    selection = options.selection or ("last-vote" if row.has_prm else "majority")
    texts = [problem["problem"] for problem in problems]
    each = sampler.begin(texts, system, options, REFERENCE_SEED + seed)
    searches = [row.run(text, own) for text, own in zip(texts, each)]
    solved = []
    for problem, solutions in zip(problems, run(searches, sampler.answer)):
        candidates = [Candidate(sampler.read_answer(path), path.rewards()) for path in solutions]
        given = select(selection, candidates)
        answer = None if given is None else candidates[given].answer
        solved.append(int(answer is not None and key(answer) == key(problem["answer"])))
    return solved


def machine(binary: str) -> str:
    """Versions and processor, as a sentence."""
    import torch
    import transformers

    version = subprocess.run(
        [binary, "--version"], check=True, capture_output=True, text=True
    ).stdout.strip()
    cpu = FilePath("/proc/cpuinfo")
    names = (
        [
            line.split(":")[1].strip()
            for line in cpu.read_text().splitlines()
            if line.startswith("model name")
        ]
        if cpu.exists()
        else []
    )
    processor = names[0] if names else platform.machine()
    return (
        f"{version}; Python {platform.python_version()}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, one thread; {processor}."
    )


if __name__ == "__main__":
    sys.exit(main())
