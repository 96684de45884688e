#!/usr/bin/env python3
"""Times of PyTorch on one GPU, for bench/gpu-check: one JSON object on standard output.

Memory: bytes per second that a sum over 4 GiB reads, and that a copy reads and writes. Products: seconds of
torch.nn.functional.linear in bf16, of the shapes (rows/n/k) given, weights of 256 MiB in turn so that the
cache holds none of them. Each figure is the median of 21 spans of 20 calls.
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


def seconds(call, spans=21, calls=20):
    """Of one call."""
    call(0)
    times = []
    for _ in range(spans):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for turn in range(calls):
            call(turn)
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / calls)
    return statistics.median(times)


def product(rows, n, k):
    """Seconds of a linear layer."""
    copies = max(1, min(32, (256 << 20) // (2 * n * k)))
    weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]
    x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
    return seconds(lambda turn: torch.nn.functional.linear(x, weights[turn % copies]))


def memory():
    """Bytes per second."""
    a = torch.ones(1 << 30, device="cuda", dtype=torch.float32)
    b = torch.empty_like(a)
    size = a.numel() * a.element_size()
    return {
        "read": size / seconds(lambda _: a.sum(), calls=3),
        "copy": 2 * size / seconds(lambda _: b.copy_(a), calls=3),
    }


def main():
    """The whole report."""
    with torch.inference_mode():
        report = {
            "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "bytes_per_second": memory(),
            "products": {
                shape: product(*(int(size) for size in shape.split("/"))) for shape in sys.argv[1:]
            },
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
