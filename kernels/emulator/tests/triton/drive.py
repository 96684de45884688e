"""Loads Triton's PTX through the driver API with nothing but ctypes: `python drive.py LIBRARY`."""

import array
import ctypes
import math
import pathlib
import random
import re
import struct
import sys

cuda = ctypes.CDLL(sys.argv[1])
here = pathlib.Path(__file__).parent


def call(name, *args):
    code = getattr(cuda, name)(*args)
    if code:
        text = ctypes.c_char_p()
        cuda.cuGetErrorName(code, ctypes.byref(text))
        raise SystemExit(f"{name}: {text.value.decode()}")


call("cuInit", 0)
context = ctypes.c_void_p()
call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
call("cuCtxSetCurrent", context)
buffers = []


def upload(data):
    at, data = ctypes.c_uint64(), bytes(data)
    call("cuMemAlloc_v2", ctypes.byref(at), ctypes.c_size_t(len(data)))
    call("cuMemcpyHtoD_v2", at, ctypes.c_char_p(data), ctypes.c_size_t(len(data)))
    buffers.append(at)
    return at


def download(at, count):
    out = ctypes.create_string_buffer(4 * count)
    call("cuMemcpyDtoH_v2", out, at, ctypes.c_size_t(4 * count))
    return struct.unpack(f"{count}f", out.raw)


def launch(name, grid, *args):
    text = (here / f"{name}.ptx").read_text()
    warps, shared = map(int, re.match(r".*warps (\d+) shared (\d+)", text).groups())
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(text.encode()))
    call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
    call("cuFuncSetAttribute", function, 8, shared)
    # Triton appends two scratch pointers to every kernel's parameters.
    args = [*args, ctypes.c_uint64(0), ctypes.c_uint64(0)]
    pointers = (ctypes.c_void_p * len(args))(*[ctypes.cast(ctypes.byref(a), ctypes.c_void_p) for a in args])
    call("cuLaunchKernel", function, grid, 1, 1, 32 * warps, 1, 1, shared, None, pointers, None)
    call("cuCtxSynchronize")
    call("cuModuleUnload", module)


random.seed(1)
floats = lambda n: array.array("f", [random.uniform(-2, 2) for _ in range(n)])

n = 1000
x, y = floats(n), floats(n)
dx, dy, do = upload(x), upload(y), upload(bytes(4 * n))
launch("add", math.ceil(n / 256), dx, dy, do, ctypes.c_int32(n))
single = lambda v: struct.unpack("f", struct.pack("f", v))[0]
assert list(download(do, n)) == [single(a + b) for a, b in zip(x, y)], "add"

rows, cols = 5, 300
x = floats(rows * cols)
dx, do = upload(x), upload(bytes(4 * rows * cols))
launch("softmax", rows, dx, do, ctypes.c_int32(cols))
got = download(do, rows * cols)
for r in range(rows):
    e = [math.exp(v) for v in x[r * cols : (r + 1) * cols]]
    for c in range(cols):
        want = e[c] / sum(e)
        assert abs(got[r * cols + c] - want) < 1e-6 * max(want, 1e-3), f"softmax {r} {c}"

m, k = 64, 96
bf16 = lambda n: [struct.unpack("I", struct.pack("f", random.uniform(-1, 1)))[0] >> 16 for _ in range(n)]
wide = lambda h: struct.unpack("f", struct.pack("I", h << 16))[0]
a, b = bf16(m * k), bf16(k * m)
da, db, dc = upload(array.array("H", a)), upload(array.array("H", b)), upload(bytes(4 * m * m))
launch("matmul", 1, da, db, dc, ctypes.c_int32(k))
got = download(dc, m * m)
for i in range(m):
    for j in range(m):
        want = sum(wide(a[i * k + x]) * wide(b[x * m + j]) for x in range(k))
        assert abs(got[i * m + j] - want) < 1e-5, f"matmul {i} {j}: {got[i * m + j]} {want}"

# With a second argument the buffers are left for the emulator to complain about.
for at in buffers if len(sys.argv) < 3 else []:
    call("cuMemFree_v2", at)
call("cuDevicePrimaryCtxRelease_v2", 0)
print("3 kernels of Triton ran")
