#!/usr/bin/env python3
"""Times of PyTorch on one GPU, for bench/gpu-check: a figure a line, as `offshoot kernels time --figures`.

    bench/gpu-torch.py R/N/K...

Ceilings: bytes per second that a sum over 4 GiB reads, and that a copy reads and writes. Linear layers:
microseconds of torch.nn.functional.linear in bf16, weights of 256 MiB in turn so that L2 holds none of
them, 20 calls in a CUDA graph. Each figure is the median of 9 spans, after 300 ms of work.
"""

import json
import statistics
import sys
import time

try:
    import torch
except ImportError:
    sys.exit("error: python3 has no PyTorch")
if not torch.cuda.is_available():
    sys.exit("error: PyTorch finds no GPU")


def figure(section, case, name, value, unit):
    """Prints one line, at once."""
    line = {"section": section, "case": case, "figure": name, "unit": unit, "value": value}
    print(json.dumps(line), flush=True)


def seconds(span, calls):
    """Of one of a span's calls, by the device's events."""
    start = time.perf_counter()
    while time.perf_counter() - start < 0.3 and not seconds.warm:
        span()
        torch.cuda.synchronize()
    seconds.warm = True
    times = []
    for _ in range(9):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        span()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / calls)
    return statistics.median(times)


seconds.warm = False


def graph(call, calls):
    """A graph of that many calls."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for turn in range(calls):
            call(turn)
    torch.cuda.synchronize()
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        for turn in range(calls):
            call(turn)
    return recorded.replay


def linear(rows, n, k):
    """Seconds of a linear layer."""
    copies = max(2, min(20, -(-(256 << 20) // (2 * n * k))))
    weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]
    x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
    return seconds(graph(lambda turn: torch.nn.functional.linear(x, weights[turn % copies]), 20), 20)


def main():
    """All figures."""
    with torch.inference_mode():
        a = torch.ones(1 << 30, device="cuda", dtype=torch.float32)
        b = torch.empty_like(a)
        size = a.numel() * a.element_size()
        figure("ceilings", "read", "torch", size / seconds(a.sum, 1) / 1e12, "TB/s")
        figure("ceilings", "copy", "torch", 2 * size / seconds(lambda: b.copy_(a), 1) / 1e12, "TB/s")
        del a, b
        for shape in sys.argv[1:]:
            rows, n, k = (int(size) for size in shape.split("/"))
            figure("linear", shape, "torch", linear(rows, n, k) * 1e6, "us")


if __name__ == "__main__":
    main()
