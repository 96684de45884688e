"""The tables of the nano study from the folders of its sweeps: Markdown on standard output.

    python3 report.py HELDOUT

HELDOUT is the folder of heldout.toml's sweep (summary.csv). Plain Python.
"""

import csv
import sys
from pathlib import Path

BINS = ("easy", "medium", "hard")


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "summary.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def percent(text: str) -> str:
    return f"{100 * float(text):.1f}" if text else "-"


def main() -> None:
    folder = Path(sys.argv[1])
    print("| policy | PRM | configuration | N | accuracy, % | ± | pass@N, % | easy | medium | hard "
          "| tokens | policy MFLOPs | PRM MFLOPs | paper's MFLOPs |")
    print("|---|---|---|---:" + "|---:" * 10 + "|")
    for row in rows(folder):
        accuracies = [percent(row[f"accuracy_{name}"]) for name in BINS]
        cells = [row["policy"], row["prm"] or "-", row["configuration"], row["n"],
                 percent(row["accuracy"]), percent(row["interval"]), percent(row["oracle"]),
                 *accuracies, f"{float(row['policy_tokens']):.0f}"]
        cells += [f"{float(row[name]) / 1e6:.0f}" for name in ("policy_flops", "prm_flops", "paper_flops")]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
