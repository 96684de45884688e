#!/usr/bin/env python3
"""bench/gpu-check's results as one JSON file and a table of products against roofline and PyTorch.

    bench/gpu-report.py FOLDER

Reads the sections' outputs in FOLDER, writes FOLDER/report.json, prints Markdown. A product's roofline is its
weights' bytes over the bandwidth that the torch section measured: right for few rows only.
"""

import json
import pathlib
import sys


def sections(folder):
    """Every section that went well, by name: its JSON, or its text."""
    found = {}
    for ok in sorted(folder.glob("*.ok")):
        text = ok.with_suffix(".out").read_text()
        try:
            found[ok.stem] = json.loads(text)
        except ValueError:
            found[ok.stem] = text
    return found


def microseconds(value):
    """A time, if there is one."""
    return "not measured" if value is None else f"{value * 1e6:.1f}"


def products(found):
    """The table's lines."""
    torch = found.get("torch", {})
    read = torch.get("bytes_per_second", {}).get("read")
    yield "| rows/n/k | linear us | cuBLASLt us | PyTorch us | of the weight-read roofline | SwiGLU fused us | apart us |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for name, times in found.items():
        if not name.startswith("product-"):
            continue
        shape = name.removeprefix("product-").replace("-", "/")
        _, n, k = (int(size) for size in shape.split("/"))
        share = "not measured" if read is None else f"{2 * n * k / read / times['linear']:.2f}"
        others = [times.get("cublaslt"), torch.get("products", {}).get(shape)]
        fused = [times.get("swiglu fused"), times.get("swiglu apart")]
        row = [shape, microseconds(times["linear"]), *map(microseconds, others), share]
        yield "| " + " | ".join(row + [microseconds(t) for t in fused]) + " |"


def main():
    """The report."""
    if len(sys.argv) != 2:
        sys.exit("error: expected one folder")
    folder = pathlib.Path(sys.argv[1])
    found = sections(folder)
    (folder / "report.json").write_text(json.dumps(found, indent=2) + "\n")
    print("\n".join(products(found)))


if __name__ == "__main__":
    main()
