"""Writes the PTX files beside this one with the Triton compiler (no GPU needed):

    pip install triton==3.9.0 && python make.py

The files are kept in the repository so that the test needs no 280 MB wheel. Each begins with a comment that says the
kernel's warps and shared memory.
"""

import pathlib

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def add(x, y, o, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    tl.store(o + i, tl.load(x + i, mask=m) + tl.load(y + i, mask=m), mask=m)


@triton.jit
def softmax(x, o, cols, B: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, B)
    v = tl.load(x + row * cols + i, mask=i < cols, other=float("-inf"))
    e = tl.exp(v - tl.max(v, axis=0))
    tl.store(o + row * cols + i, e / tl.sum(e, axis=0), mask=i < cols)


@triton.jit
def matmul(a, b, c, k, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    rm, rn, rk = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    acc = tl.zeros((M, N), tl.float32)
    for k0 in range(0, k, K):
        x = tl.load(a + rm[:, None] * k + (k0 + rk)[None, :])
        y = tl.load(b + (k0 + rk)[:, None] * N + rn[None, :])
        acc += tl.dot(x, y)
    tl.store(c + rm[:, None] * N + rn[None, :], acc)


KERNELS = [
    (add, {"x": "*fp32", "y": "*fp32", "o": "*fp32", "n": "i32", "B": "constexpr"}, {"B": 256}, {}),
    (softmax, {"x": "*fp32", "o": "*fp32", "cols": "i32", "B": "constexpr"}, {"B": 512}, {}),
    (
        matmul,
        {"a": "*bf16", "b": "*bf16", "c": "*fp32", "k": "i32", "M": "constexpr", "N": "constexpr", "K": "constexpr"},
        {"M": 64, "N": 64, "K": 32},
        {(0,): [["tt.divisibility", 16]], (1,): [["tt.divisibility", 16]], (2,): [["tt.divisibility", 16]], (3,): [["tt.divisibility", 16]]},
    ),
]

here = pathlib.Path(__file__).parent
for fn, signature, constants, attrs in KERNELS:
    source = ASTSource(fn=fn, signature=signature, constexprs=constants, attrs=attrs)
    c = triton.compile(source, target=GPUTarget("cuda", 80, 32))
    body = c.asm["ptx"].split("\t.section\t.debug_abbrev")[0].replace(str(here.resolve()) + "/", "")
    head = f"// triton {triton.__version__}: warps {c.metadata.num_warps} shared {c.metadata.shared}\n"
    (here / f"{fn.__name__}.ptx").write_text(head + body)
