//! Allocations, copies, fills.

use super::ops::{Op, copy, submit};
use super::state::current;
use super::{CURRENT, Cu, api, code, get, put, put_opt};
use crate::memory::Kind;
use std::ffi::{c_int, c_uint, c_void};

fn alloc(out: *mut u64, bytes: usize, kind: Kind) -> Cu {
    let (mut s, gpu) = current()?;
    s.not_while_capturing()?;
    if bytes == 0 {
        return Err(code::INVALID_VALUE);
    }
    let owned = kind == Kind::Device;
    let at = gpu
        .heap()
        .alloc(bytes as u64, kind)
        .ok_or(code::OUT_OF_MEMORY)?;
    if owned {
        s.owners.insert(at, CURRENT.get());
    }
    put(out, at)
}

fn free(at: u64) -> Cu {
    if at == 0 {
        return Ok(());
    }
    let (mut s, gpu) = current()?;
    s.not_while_capturing()?;
    s.owners.remove(&at);
    if gpu.heap().free(at) {
        return Ok(());
    }
    eprintln!(
        "offshoot-emulator: free of {at:#x}, which is not the start of a live allocation: {}",
        gpu.heap().describe(at)
    );
    Err(code::INVALID_VALUE)
}

fn now(to: u64, from: u64, len: usize) -> Cu {
    let (mut s, gpu) = current()?;
    s.not_while_capturing()?;
    copy(&gpu, to, from, len as u64)
}

fn later(to: u64, from: u64, len: usize, stream: usize) -> Cu {
    let (s, gpu) = current()?;
    submit(
        s,
        &gpu,
        stream,
        Op::Copy {
            to,
            from,
            len: len as u64,
        },
    )
}

fn fill(to: u64, width: u32, value: u32, count: usize, stream: usize) -> Cu {
    let (s, gpu) = current()?;
    submit(
        s,
        &gpu,
        stream,
        Op::Fill {
            to,
            width,
            value,
            count: count as u64,
        },
    )
}

/// `CUDA_MEMCPY2D`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Copy2d {
    src_x: usize,
    src_y: usize,
    src_type: c_uint,
    src_host: usize,
    src_device: u64,
    src_array: usize,
    src_pitch: usize,
    dst_x: usize,
    dst_y: usize,
    dst_type: c_uint,
    dst_host: usize,
    dst_device: u64,
    dst_array: usize,
    dst_pitch: usize,
    width: usize,
    height: usize,
}

fn copy_2d(p: *const Copy2d, stream: usize) -> Cu {
    let c = get(p)?;
    let side = |kind: c_uint, host: usize, device: u64| match kind {
        1 => Ok(host as u64),
        2 | 4 => Ok(device),
        _ => Err(code::NOT_SUPPORTED),
    };
    let from = side(c.src_type, c.src_host, c.src_device)?;
    let to = side(c.dst_type, c.dst_host, c.dst_device)?;
    for row in 0..c.height {
        let a = from + ((c.src_y + row) * c.src_pitch + c.src_x) as u64;
        let b = to + ((c.dst_y + row) * c.dst_pitch + c.dst_x) as u64;
        later(b, a, c.width, stream)?;
    }
    Ok(())
}

api! {
    fn cuMemAlloc_v2(out: *mut u64, bytes: usize) {
        alloc(out, bytes, Kind::Device)
    }
    fn cuMemAllocPitch_v2(out: *mut u64, pitch: *mut usize, width: usize, height: usize, _element: c_uint) {
        let p = width.next_multiple_of(512);
        alloc(out, p.checked_mul(height).ok_or(code::INVALID_VALUE)?, Kind::Device)?;
        put(pitch, p)
    }
    fn cuMemAllocAsync(out: *mut u64, bytes: usize, _stream: usize) {
        alloc(out, bytes, Kind::Device)
    }
    fn cuMemAllocFromPoolAsync(out: *mut u64, bytes: usize, _pool: usize, _stream: usize) {
        alloc(out, bytes, Kind::Device)
    }
    fn cuMemAllocManaged(out: *mut u64, bytes: usize, _flags: c_uint) {
        alloc(out, bytes, Kind::Managed)
    }
    fn cuMemFree_v2(at: u64) {
        free(at)
    }
    fn cuMemFreeAsync(at: u64, _stream: usize) {
        free(at)
    }
    fn cuMemAllocHost_v2(out: *mut u64, bytes: usize) {
        alloc(out, bytes, Kind::Pinned)?;
        zeroed(out, bytes)
    }
    fn cuMemHostAlloc(out: *mut u64, bytes: usize, _flags: c_uint) {
        alloc(out, bytes, Kind::Pinned)?;
        zeroed(out, bytes)
    }
    fn cuMemFreeHost(at: u64) {
        free(at)
    }
    fn cuMemHostGetDevicePointer_v2(out: *mut u64, host: u64, _flags: c_uint) {
        let (_s, gpu) = current()?;
        // Pinned memory lies in the device's own address range, so both sides see one address.
        gpu.heap().lookup(host).ok_or(code::INVALID_VALUE)?;
        put(out, host)
    }
    fn cuMemHostGetFlags(out: *mut c_uint, _host: u64) {
        put(out, 0)
    }
    fn cuMemHostRegister_v2(_host: *mut c_void, _bytes: usize, flags: c_uint) {
        current()?;
        // Kernels cannot reach host memory of other allocators; copies from it work as always.
        if flags & 2 != 0 { Err(code::NOT_SUPPORTED) } else { Ok(()) }
    }
    fn cuMemHostUnregister(_host: *mut c_void) {
        current().map(|_| ())
    }
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        let (_s, gpu) = current()?;
        put(free, (gpu.heap().capacity() - gpu.heap().used()) as usize)?;
        put(total, gpu.heap().capacity() as usize)
    }
    fn cuMemGetAddressRange_v2(base: *mut u64, size: *mut usize, at: u64) {
        let (_s, gpu) = current()?;
        let e = gpu.heap().find(at).ok_or(code::NOT_FOUND)?;
        put_opt(base, e.base);
        put_opt(size, (e.end - e.base) as usize);
        Ok(())
    }
    fn cuPointerGetAttribute(out: *mut c_void, which: c_int, at: u64) {
        let (_s, gpu) = current()?;
        let (base, size, kind) = gpu.heap().lookup(at).ok_or(code::INVALID_VALUE)?;
        match which {
            1 => put(out.cast(), CURRENT.get()),
            2 => put(out.cast(), if kind == Kind::Pinned { 1u32 } else { 2u32 }),
            3 | 4 => put(out.cast(), at),
            8 => put(out.cast(), u32::from(kind == Kind::Managed)),
            9 => put(out.cast(), 0i32),
            11 => put(out.cast(), base),
            12 => put(out.cast(), size as usize),
            13 => put(out.cast(), 1u32),
            _ => Err(code::NOT_SUPPORTED),
        }
    }
    fn cuMemcpy(to: u64, from: u64, len: usize) {
        now(to, from, len)
    }
    fn cuMemcpyAsync(to: u64, from: u64, len: usize, stream: usize) {
        later(to, from, len, stream)
    }
    fn cuMemcpyHtoD_v2(to: u64, from: u64, len: usize) {
        now(to, from, len)
    }
    fn cuMemcpyDtoH_v2(to: u64, from: u64, len: usize) {
        now(to, from, len)
    }
    fn cuMemcpyDtoD_v2(to: u64, from: u64, len: usize) {
        now(to, from, len)
    }
    fn cuMemcpyHtoDAsync_v2(to: u64, from: u64, len: usize, stream: usize) {
        later(to, from, len, stream)
    }
    fn cuMemcpyDtoHAsync_v2(to: u64, from: u64, len: usize, stream: usize) {
        later(to, from, len, stream)
    }
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, len: usize, stream: usize) {
        later(to, from, len, stream)
    }
    fn cuMemcpy2D_v2(p: *const Copy2d) {
        copy_2d(p, 0)
    }
    fn cuMemcpy2DUnaligned_v2(p: *const Copy2d) {
        copy_2d(p, 0)
    }
    fn cuMemcpy2DAsync_v2(p: *const Copy2d, stream: usize) {
        copy_2d(p, stream)
    }
    fn cuMemsetD8_v2(to: u64, value: u8, count: usize) {
        fill(to, 1, value.into(), count, 0)
    }
    fn cuMemsetD16_v2(to: u64, value: u16, count: usize) {
        fill(to, 2, value.into(), count, 0)
    }
    fn cuMemsetD32_v2(to: u64, value: u32, count: usize) {
        fill(to, 4, value, count, 0)
    }
    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: usize) {
        fill(to, 1, value.into(), count, stream)
    }
    fn cuMemsetD16Async(to: u64, value: u16, count: usize, stream: usize) {
        fill(to, 2, value.into(), count, stream)
    }
    fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: usize) {
        fill(to, 4, value, count, stream)
    }
    fn cuMemPrefetchAsync(_at: u64, _count: usize, _device: c_int, _stream: usize) {
        current().map(|_| ())
    }
    fn cuMemAdvise(_at: u64, _count: usize, _advice: c_int, _device: c_int) {
        current().map(|_| ())
    }
    fn cuDeviceGetDefaultMemPool(out: *mut usize, _dev: c_int) {
        current()?;
        put(out, 1)
    }
    fn cuDeviceGetMemPool(out: *mut usize, _dev: c_int) {
        current()?;
        put(out, 1)
    }
    fn cuMemPoolSetAttribute(_pool: usize, _which: c_int, _value: *mut c_void) {
        current().map(|_| ())
    }
    fn cuMemPoolTrimTo(_pool: usize, _keep: usize) {
        current().map(|_| ())
    }
}

/// Pinned memory reads as zero: the host may touch it without the emulator's knowledge, so it counts as written.
fn zeroed(out: *mut u64, bytes: usize) -> Cu {
    let (_s, gpu) = current()?;
    gpu.heap().fill(get(out)?, bytes as u64, 0);
    Ok(())
}
