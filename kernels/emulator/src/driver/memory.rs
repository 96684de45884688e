//! Allocations, copies, fills.

use super::ops::{Op, Span, copy, submit};
use super::state::{current, of_current};
use super::{CURRENT, Cu, api, code, get, put, put_opt};
use crate::memory::Kind;
use std::ffi::{c_int, c_uint, c_void};

/// Allocates in the order of a stream. The stream must not capture; others may.
fn alloc_async(out: *mut u64, bytes: usize, stream: usize) -> Cu {
    current()?.0.not_on_capturing(stream)?;
    reserve(out, bytes, Kind::Device)
}

fn free_async(addr: u64, stream: usize) -> Cu {
    current()?.0.not_on_capturing(stream)?;
    release(addr)
}

fn alloc(out: *mut u64, bytes: usize, kind: Kind) -> Cu {
    current()?.0.not_while_capturing()?;
    reserve(out, bytes, kind)
}

fn reserve(out: *mut u64, bytes: usize, kind: Kind) -> Cu {
    let (mut s, gpu) = current()?;
    if bytes == 0 {
        return Err(code::INVALID_VALUE);
    }
    let owned = kind == Kind::Device;
    let addr = gpu
        .heap()
        .alloc(bytes as u64, kind)
        .ok_or(code::OUT_OF_MEMORY)?;
    if owned {
        s.owners.insert(addr, CURRENT.get());
    }
    put(out, addr)
}

fn free(addr: u64) -> Cu {
    if addr != 0 {
        current()?.0.not_while_capturing()?;
    }
    release(addr)
}

fn release(addr: u64) -> Cu {
    if addr == 0 {
        return Ok(());
    }
    let (mut s, gpu) = current()?;
    if let Some(&owner) = s.owners.get(&addr) {
        of_current(owner, "memory")?;
    }
    s.owners.remove(&addr);
    if gpu.heap().free(addr) {
        return Ok(());
    }
    eprintln!(
        "offshoot-emulator: free of {addr:#x}, which is not the start of a live allocation: {}",
        gpu.heap().describe(addr)
    );
    Err(code::INVALID_VALUE)
}

fn now(to: u64, from: u64, len: usize) -> Cu {
    let (mut s, gpu) = current()?;
    s.not_while_blocking_capture()?;
    copy(&gpu, to, from, len as u64)
}

fn later(to: u64, from: u64, len: usize, stream: usize) -> Cu {
    let (s, gpu) = current()?;
    submit(s, &gpu, stream, Op::Copy(Span::line(to, from, len as u64)))
}

fn fill(to: u64, width: u32, value: u32, count: usize, stream: usize) -> Cu {
    fill_2d(to, 0, width, value, (count, 1), stream)
}

fn fill_2d(
    to: u64,
    pitch: usize,
    width: u32,
    value: u32,
    (count, rows): (usize, usize),
    stream: usize,
) -> Cu {
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
            rows: rows as u64,
            pitch: pitch as u64,
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

/// Where one side of a pitched copy begins.
fn side(kind: c_uint, host: usize, device: u64) -> Cu<u64> {
    const HOST: c_uint = 1;
    const DEVICE: c_uint = 2;
    const UNIFIED: c_uint = 4;
    match kind {
        HOST => Ok(host as u64),
        DEVICE | UNIFIED => Ok(device),
        _ => Err(code::NOT_SUPPORTED),
    }
}

fn copy_2d(p: *const Copy2d, stream: usize) -> Cu {
    let c = get(p)?;
    let from = side(c.src_type, c.src_host, c.src_device)?;
    let to = side(c.dst_type, c.dst_host, c.dst_device)?;
    let span = Span {
        from: from + (c.src_y * c.src_pitch + c.src_x) as u64,
        to: to + (c.dst_y * c.dst_pitch + c.dst_x) as u64,
        width: c.width as u64,
        rows: c.height as u64,
        from_pitch: c.src_pitch as u64,
        to_pitch: c.dst_pitch as u64,
        layers: 1,
        from_layer: 0,
        to_layer: 0,
    };
    let (s, gpu) = current()?;
    submit(s, &gpu, stream, Op::Copy(span))
}

/// `CUDA_MEMCPY3D`
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Copy3d {
    src: Side3d,
    dst: Side3d,
    width: usize,
    height: usize,
    depth: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Side3d {
    x: usize,
    y: usize,
    z: usize,
    lod: usize,
    kind: c_uint,
    host: usize,
    device: u64,
    array: usize,
    reserved: usize,
    pitch: usize,
    height: usize,
}

impl Side3d {
    /// The first byte, and the bytes from one layer to the next.
    fn place(&self) -> Cu<(u64, u64)> {
        let layer = self
            .pitch
            .checked_mul(self.height)
            .ok_or(code::INVALID_VALUE)?;
        let addr = side(self.kind, self.host, self.device)?;
        let offset = self.z * layer + self.y * self.pitch + self.x;
        Ok((addr + offset as u64, layer as u64))
    }
}

impl Copy3d {
    pub fn span(&self) -> Cu<Span> {
        let ((from, from_layer), (to, to_layer)) = (self.src.place()?, self.dst.place()?);
        Ok(Span {
            to,
            from,
            width: self.width as u64,
            rows: self.height as u64,
            to_pitch: self.dst.pitch as u64,
            from_pitch: self.src.pitch as u64,
            layers: self.depth as u64,
            to_layer,
            from_layer,
        })
    }

    /// The structure for a copy, given which addresses are the device's.
    pub fn of(c: &Span, device: impl Fn(u64) -> bool) -> Copy3d {
        let side = |addr: u64, pitch: u64, layer: u64| Side3d {
            kind: if device(addr) { 2 } else { 1 },
            host: if device(addr) { 0 } else { addr as usize },
            device: if device(addr) { addr } else { 0 },
            pitch: pitch as usize,
            height: layer.checked_div(pitch).unwrap_or(1) as usize,
            ..Side3d::default()
        };
        Copy3d {
            src: side(c.from, c.from_pitch, c.from_layer),
            dst: side(c.to, c.to_pitch, c.to_layer),
            width: c.width as usize,
            height: c.rows as usize,
            depth: c.layers as usize,
        }
    }
}

fn copy_3d(p: *const Copy3d, stream: usize) -> Cu {
    let span = get(p)?.span()?;
    let (s, gpu) = current()?;
    submit(s, &gpu, stream, Op::Copy(span))
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
    fn cuMemAllocAsync(out: *mut u64, bytes: usize, stream: usize) {
        alloc_async(out, bytes, stream)
    }
    fn cuMemAllocFromPoolAsync(out: *mut u64, bytes: usize, _pool: usize, stream: usize) {
        alloc_async(out, bytes, stream)
    }
    fn cuMemAllocManaged(out: *mut u64, bytes: usize, _flags: c_uint) {
        alloc(out, bytes, Kind::Managed)
    }
    fn cuMemFree_v2(addr: u64) {
        free(addr)
    }
    fn cuMemFreeAsync(addr: u64, stream: usize) {
        free_async(addr, stream)
    }
    fn cuMemAllocHost_v2(out: *mut u64, bytes: usize) {
        alloc(out, bytes, Kind::Pinned)?;
        zeroed(out, bytes)
    }
    fn cuMemHostAlloc(out: *mut u64, bytes: usize, _flags: c_uint) {
        alloc(out, bytes, Kind::Pinned)?;
        zeroed(out, bytes)
    }
    fn cuMemFreeHost(addr: u64) {
        free(addr)
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
    fn cuMemGetAddressRange_v2(base: *mut u64, size: *mut usize, addr: u64) {
        let (_s, gpu) = current()?;
        let e = gpu.heap().find(addr).ok_or(code::NOT_FOUND)?;
        put_opt(base, e.base);
        put_opt(size, (e.end - e.base) as usize);
        Ok(())
    }
    fn cuPointerGetAttribute(out: *mut c_void, which: c_int, addr: u64) {
        let (_s, gpu) = current()?;
        let (base, size, kind) = gpu.heap().lookup(addr).ok_or(code::INVALID_VALUE)?;
        match which {
            1 => put(out.cast(), CURRENT.get()),
            2 => put(out.cast(), if kind == Kind::Pinned { 1u32 } else { 2u32 }),
            3 | 4 => put(out.cast(), addr),
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
    fn cuMemcpy3D_v2(p: *const Copy3d) {
        copy_3d(p, 0)
    }
    fn cuMemcpy3DAsync_v2(p: *const Copy3d, stream: usize) {
        copy_3d(p, stream)
    }
    fn cuMemcpyPeer(to: u64, _to_ctx: usize, from: u64, _from_ctx: usize, len: usize) {
        now(to, from, len)
    }
    fn cuMemcpyPeerAsync(to: u64, _to_ctx: usize, from: u64, _from_ctx: usize, len: usize, stream: usize) {
        later(to, from, len, stream)
    }
    fn cuMemsetD2D8_v2(to: u64, pitch: usize, value: u8, width: usize, height: usize) {
        fill_2d(to, pitch, 1, value.into(), (width, height), 0)
    }
    fn cuMemsetD2D16_v2(to: u64, pitch: usize, value: u16, width: usize, height: usize) {
        fill_2d(to, pitch, 2, value.into(), (width, height), 0)
    }
    fn cuMemsetD2D32_v2(to: u64, pitch: usize, value: u32, width: usize, height: usize) {
        fill_2d(to, pitch, 4, value, (width, height), 0)
    }
    fn cuMemsetD2D8Async(to: u64, pitch: usize, value: u8, width: usize, height: usize, stream: usize) {
        fill_2d(to, pitch, 1, value.into(), (width, height), stream)
    }
    fn cuMemsetD2D16Async(to: u64, pitch: usize, value: u16, width: usize, height: usize, stream: usize) {
        fill_2d(to, pitch, 2, value.into(), (width, height), stream)
    }
    fn cuMemsetD2D32Async(to: u64, pitch: usize, value: u32, width: usize, height: usize, stream: usize) {
        fill_2d(to, pitch, 4, value, (width, height), stream)
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
    fn cuMemPrefetchAsync_v2(_at: u64, _count: usize, _location: u64, _flags: c_uint, _stream: usize) {
        current().map(|_| ())
    }
    fn cuMemAdvise(_at: u64, _count: usize, _advice: c_int, _device: c_int) {
        current().map(|_| ())
    }
    fn cuMemAdvise_v2(_at: u64, _count: usize, _advice: c_int, _location: u64) {
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
    fn cuDeviceSetMemPool(_dev: c_int, _pool: usize) {
        current().map(|_| ())
    }
    fn cuMemPoolCreate(out: *mut usize, _properties: *const c_void) {
        // There is one pool: allocations are ordered by the calls in any case.
        current()?;
        put(out, 1)
    }
    fn cuMemPoolDestroy(_pool: usize) {
        current().map(|_| ())
    }
    fn cuMemPoolGetAttribute(_pool: usize, which: c_int, out: *mut u64) {
        let (_s, gpu) = current()?;
        match which {
            // Whether memory may be reused in given ways: yes.
            1..=3 => put(out.cast(), 1i32),
            4 => put(out, 0),
            5..=8 => put(out, gpu.heap().used()),
            _ => Err(code::INVALID_VALUE),
        }
    }
    fn cuMemPoolSetAttribute(_pool: usize, _which: c_int, _value: *mut c_void) {
        current().map(|_| ())
    }
    fn cuMemPoolTrimTo(_pool: usize, _keep: usize) {
        current().map(|_| ())
    }
}

/// Pinned memory is zeroed and counts as written, since host writes to it are not seen.
fn zeroed(out: *mut u64, bytes: usize) -> Cu {
    let (_s, gpu) = current()?;
    gpu.heap().fill(get(out)?, bytes as u64, 0);
    Ok(())
}
