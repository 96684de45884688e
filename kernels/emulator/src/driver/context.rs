//! Initialisation, devices, contexts, errors.

use super::state::{Context, State, current, lock, ready};
use super::{CURRENT, Cu, NAMES, api, code, put};
use crate::gpu::Options;
use std::ffi::{c_char, c_int, c_uint, c_void};

fn attribute(p: &crate::Profile, which: i32) -> Option<i32> {
    Some(match which {
        1 => 1024,
        2 | 3 => 1024,
        4 => 64,
        5 => 0x7fff_ffff,
        6 | 7 => 65535,
        8 => 48 << 10,
        9 => 64 << 10,
        10 => 32,
        11 => 0x7fff_ffff,
        12 => 65536,
        13 => p.clock_khz as i32,
        14 => 512,
        15 => 1,
        16 => p.sms as i32,
        17 => 0,
        18 => 0,
        19 => 1,
        20 => 0,
        31 => 1,
        32 => 0,
        33 => 0,
        34 => 0,
        35 => 0,
        36 => p.memory_khz as i32,
        37 => p.bus_bits as i32,
        38 => p.l2 as i32,
        39 => p.threads_per_sm as i32,
        40 => 3,
        41 => 1,
        75 => p.capability.0 as i32,
        76 => p.capability.1 as i32,
        78 => 1,
        79 | 80 => 1,
        81 => p.shared_per_sm as i32,
        82 => 65536,
        83 => 1,
        84 | 85 => 0,
        86 | 87 => 1,
        88..=91 => i32::from(which == 89),
        95 => 1,
        96 => 0,
        97 => p.shared_optin as i32,
        98 => 0,
        101 => 1,
        102 => 0,
        106 => p.blocks_per_sm as i32,
        108 => 0,
        109 => 0,
        111 => 1024,
        115 => 1,
        116..=119 => 0,
        120 => 0,
        _ if (1..150).contains(&which) => 0,
        _ => return None,
    })
}

fn context_end(s: &mut State, handle: usize) {
    let owned: Vec<u64> = s
        .owners
        .iter()
        .filter(|(_, c)| **c == handle)
        .map(|(a, _)| *a)
        .collect();
    if let Some(gpu) = s.gpu.clone() {
        // After a fault the program cannot free its memory any more.
        let ended_well = s.contexts.get(&handle).is_some_and(|c| c.sticky == 0);
        if ended_well && gpu.heap().checks() && !owned.is_empty() {
            let bytes: u64 = owned
                .iter()
                .filter_map(|a| gpu.heap().lookup(*a))
                .map(|l| l.1)
                .sum();
            eprintln!(
                "offshoot-emulator: leak: {} allocations, {bytes} bytes, were not freed before the context ended",
                owned.len()
            );
            let mut shown: Vec<_> = owned.iter().filter_map(|a| gpu.heap().lookup(*a)).collect();
            shown.sort_by_key(|l| l.0);
            for (addr, size, _) in shown.into_iter().take(8) {
                eprintln!("    {size} bytes at {addr:#x}");
            }
        }
        for a in owned {
            gpu.heap().free(a);
            s.owners.remove(&a);
        }
        if gpu.options_counters() {
            super::procs::write_counters(&gpu);
        }
    }
    s.contexts.remove(&handle);
    let of_others: Vec<usize> = (s.streams.iter())
        .filter(|(_, stream)| stream.context != handle)
        .map(|(h, _)| *h)
        .collect();
    s.captures
        .retain(|_, capture| of_others.contains(&capture.origin));
    if CURRENT.get() == handle {
        CURRENT.set(0);
    }
}

/// Refuses a number that is no device of the driver.
fn device(s: &State, ordinal: c_int) -> Cu {
    let devices = s.options.as_ref().map_or(1, |options| options.devices);
    if (0..devices).contains(&ordinal) {
        Ok(())
    } else {
        Err(code::INVALID_DEVICE)
    }
}

fn name_of(error: c_int) -> Cu<&'static (i32, &'static std::ffi::CStr, &'static std::ffi::CStr)> {
    NAMES
        .iter()
        .find(|n| n.0 == error)
        .ok_or(code::INVALID_VALUE)
}

fn create(out: *mut usize, flags: c_uint, ordinal: c_int) -> Cu {
    let mut s = ready()?;
    device(&s, ordinal)?;
    s.device()?;
    let h = s.handle();
    s.contexts.insert(
        h,
        Context {
            sticky: 0,
            primary: false,
            flags,
            device: ordinal,
        },
    );
    CURRENT.set(h);
    put(out, h)
}

fn release(ordinal: c_int, all: bool) -> Cu {
    let mut s = ready()?;
    device(&s, ordinal)?;
    let Some((handle, references)) = s.primaries.get(&ordinal).copied() else {
        return if all {
            Ok(())
        } else {
            Err(code::INVALID_CONTEXT)
        };
    };
    if all || references == 1 {
        s.primaries.remove(&ordinal);
        context_end(&mut s, handle);
    } else {
        s.primaries.insert(ordinal, (handle, references - 1));
    }
    Ok(())
}

fn destroy(ctx: usize) -> Cu {
    let mut s = ready()?;
    match s.contexts.get(&ctx) {
        Some(c) if !c.primary => {}
        _ => return Err(code::INVALID_CONTEXT),
    }
    context_end(&mut s, ctx);
    Ok(())
}

api! {
    fn cuInit(flags: c_uint) {
        if flags != 0 {
            return Err(code::INVALID_VALUE);
        }
        let mut s = lock();
        if s.options.is_none() {
            let options = Options::from_env().map_err(|e| {
                eprintln!("offshoot-emulator: {e}");
                code::INVALID_VALUE
            })?;
            if options.counters {
                super::procs::register_exit();
            }
            s.options = Some(options);
        }
        Ok(())
    }
    fn cuDriverGetVersion(version: *mut c_int) {
        put(version, ready()?.options.as_ref().map_or(12090, |options| options.driver))
    }
    fn cuDeviceGetCount(count: *mut c_int) {
        put(count, ready()?.options.as_ref().map_or(1, |options| options.devices))
    }
    fn cuDeviceGet(out: *mut c_int, ordinal: c_int) {
        device(&*ready()?, ordinal)?;
        put(out, ordinal)
    }
    fn cuDeviceGetName(out: *mut c_char, len: c_int, dev: c_int) {
        let s = ready()?;
        device(&s, dev)?;
        let Some(o) = &s.options else { return Err(code::NOT_INITIALIZED) };
        for (i, b) in o.profile.name.bytes().chain([0]).take(len.max(0) as usize).enumerate() {
            // The last byte that fits ends the string.
            let b = if i as c_int + 1 == len { 0 } else { b };
            put(out.wrapping_add(i), b as c_char)?;
        }
        Ok(())
    }
    fn cuDeviceGetUuid(out: *mut [u8; 16], dev: c_int) {
        device(&*ready()?, dev)?;
        let mut uuid = *b"offshoot-emulat0";
        uuid[15] += dev as u8;
        put(out, uuid)
    }
    fn cuDeviceGetUuid_v2(out: *mut [u8; 16], dev: c_int) {
        device(&*ready()?, dev)?;
        let mut uuid = *b"offshoot-emulat0";
        uuid[15] += dev as u8;
        put(out, uuid)
    }
    fn cuDeviceTotalMem_v2(out: *mut usize, dev: c_int) {
        let s = ready()?;
        device(&s, dev)?;
        put(out, s.options.as_ref().map_or(0, |o| o.profile.memory as usize))
    }
    fn cuDeviceGetAttribute(out: *mut c_int, which: c_int, dev: c_int) {
        let s = ready()?;
        device(&s, dev)?;
        let Some(o) = &s.options else { return Err(code::NOT_INITIALIZED) };
        put(out, attribute(&o.profile, which).ok_or(code::INVALID_VALUE)?)
    }
    fn cuDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, dev: c_int) {
        let s = ready()?;
        device(&s, dev)?;
        let Some(o) = &s.options else { return Err(code::NOT_INITIALIZED) };
        put(major, o.profile.capability.0 as c_int)?;
        put(minor, o.profile.capability.1 as c_int)
    }
    fn cuDeviceGetPCIBusId(out: *mut c_char, len: c_int, dev: c_int) {
        device(&*ready()?, dev)?;
        let id = format!("0000:{dev:02x}:00.0\0");
        for (i, b) in id.bytes().take(len.max(0) as usize).enumerate() {
            put(out.wrapping_add(i), b as c_char)?;
        }
        Ok(())
    }
    fn cuDeviceCanAccessPeer(out: *mut c_int, _a: c_int, _b: c_int) {
        put(out, 0)
    }
    fn cuDevicePrimaryCtxRetain(out: *mut usize, dev: c_int) {
        let mut s = ready()?;
        device(&s, dev)?;
        s.device()?;
        let (h, references) = match s.primaries.get(&dev) {
            Some(&primary) => primary,
            None => {
                let h = s.handle();
                s.contexts.insert(h, Context { sticky: 0, primary: true, flags: 0, device: dev });
                (h, 0)
            }
        };
        s.primaries.insert(dev, (h, references + 1));
        put(out, h)
    }
    fn cuDevicePrimaryCtxRelease(dev: c_int) {
        release(dev, false)
    }
    fn cuDevicePrimaryCtxRelease_v2(dev: c_int) {
        release(dev, false)
    }
    fn cuDevicePrimaryCtxReset(dev: c_int) {
        release(dev, true)
    }
    fn cuDevicePrimaryCtxReset_v2(dev: c_int) {
        release(dev, true)
    }
    fn cuDevicePrimaryCtxSetFlags_v2(dev: c_int, _flags: c_uint) {
        device(&*ready()?, dev)
    }
    fn cuDevicePrimaryCtxGetState(dev: c_int, flags: *mut c_uint, active: *mut c_int) {
        let s = ready()?;
        device(&s, dev)?;
        put(flags, 0)?;
        put(active, c_int::from(s.primaries.contains_key(&dev)))
    }
    fn cuCtxCreate_v2(out: *mut usize, flags: c_uint, dev: c_int) {
        create(out, flags, dev)
    }
    fn cuCtxCreate_v4(out: *mut usize, _params: *mut c_void, flags: c_uint, dev: c_int) {
        create(out, flags, dev)
    }
    fn cuCtxCreate_v3(out: *mut usize, _affinity: *mut c_void, _count: c_int, flags: c_uint, dev: c_int) {
        create(out, flags, dev)
    }
    fn cuCtxSetFlags(flags: c_uint) {
        let (mut s, _) = current()?;
        if let Some(c) = s.contexts.get_mut(&CURRENT.get()) {
            c.flags = flags;
        }
        Ok(())
    }
    fn cuCtxGetCacheConfig(out: *mut c_int) {
        current()?;
        put(out, 0)
    }
    fn cuCtxGetId(ctx: usize, out: *mut u64) {
        current()?;
        put(out, if ctx == 0 { CURRENT.get() } else { ctx } as u64)
    }
    fn cuCtxDestroy_v2(ctx: usize) {
        destroy(ctx)
    }
    fn cuCtxSetCurrent(ctx: usize) {
        let s = ready()?;
        if ctx != 0 && !s.contexts.contains_key(&ctx) {
            return Err(code::INVALID_CONTEXT);
        }
        CURRENT.set(ctx);
        Ok(())
    }
    fn cuCtxGetCurrent(out: *mut usize) {
        ready()?;
        put(out, CURRENT.get())
    }
    fn cuCtxPushCurrent_v2(ctx: usize) {
        let s = ready()?;
        if !s.contexts.contains_key(&ctx) {
            return Err(code::INVALID_CONTEXT);
        }
        STACK.with_borrow_mut(|st| st.push(CURRENT.get()));
        CURRENT.set(ctx);
        Ok(())
    }
    fn cuCtxPopCurrent_v2(out: *mut usize) {
        ready()?;
        let old = CURRENT.get();
        if old == 0 {
            return Err(code::INVALID_CONTEXT);
        }
        CURRENT.set(STACK.with_borrow_mut(|st| st.pop()).unwrap_or(0));
        super::put_opt(out, old);
        Ok(())
    }
    fn cuCtxGetDevice(out: *mut c_int) {
        let s = ready()?;
        let context = s.contexts.get(&CURRENT.get()).ok_or(code::INVALID_CONTEXT)?;
        put(out, context.device)
    }
    fn cuCtxGetFlags(out: *mut c_uint) {
        let (s, _) = current()?;
        put(out, s.contexts.get(&CURRENT.get()).map_or(0, |c| c.flags))
    }
    fn cuCtxGetApiVersion(_ctx: usize, out: *mut c_uint) {
        put(out, 12090)
    }
    fn cuCtxSynchronize() {
        let (mut s, _) = current()?;
        s.not_while_capturing()
    }
    fn cuCtxGetLimit(out: *mut usize, limit: c_int) {
        current()?;
        put(out, if limit == 0 { 1024 } else { 1 << 20 })
    }
    fn cuCtxSetLimit(_limit: c_int, _value: usize) {
        current().map(|_| ())
    }
    fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) {
        current()?;
        super::put_opt(least, 0);
        super::put_opt(greatest, 0);
        Ok(())
    }
    fn cuCtxSetCacheConfig(_config: c_int) {
        current().map(|_| ())
    }
    fn cuGetErrorName(error: c_int, out: *mut *const c_char) {
        put(out, name_of(error)?.1.as_ptr())
    }
    fn cuGetErrorString(error: c_int, out: *mut *const c_char) {
        put(out, name_of(error)?.2.as_ptr())
    }
}

thread_local! {
    static STACK: std::cell::RefCell<Vec<usize>> = const { std::cell::RefCell::new(Vec::new()) };
}
