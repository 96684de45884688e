"""Writes the problems of the study: calibration.jsonl and heldout.jsonl, into the folder named.

The calibration problems are of the side of the split that the nano family's training called
validation, the held-out problems of the held-out side: disjoint from each other and from all that was
trained on (`split_of` in ../../nano/problems.py). Different seeds make other problems than the 200 that
are embedded in the binary.
"""

import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "nano"))
import problems  # noqa: E402

SETS = {"calibration": ("validation", 100, 20), "heldout": ("heldout", 200, 20)}


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder.mkdir(parents=True, exist_ok=True)
    texts: set[str] = set()
    for name, (side, per_level, seed) in SETS.items():
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as file:
            found = problems.problem_set(side, per_level, seed)
            # Any first part of the file has all levels.
            random.Random(seed).shuffle(found)
            for n, p in enumerate(found):
                assert p.text not in texts, "a problem is in both sets"
                texts.add(p.text)
                row = {
                    "unique_id": f"{name}/{p.subject.lower()}/{n}",
                    "problem": p.text,
                    "answer": str(p.answer),
                    "level": p.level,
                    "subject": p.subject,
                }
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
