//! Streams and events.

use super::state::{Capture, Event, Guard, Recording, Stream, current};
use super::{CURRENT, Cu, api, code, put, put_opt};
use std::ffi::{c_int, c_uint, c_void};

fn create(out: *mut usize, flags: c_uint, priority: c_int) -> Cu {
    let (mut s, _) = current()?;
    let h = s.handle();
    s.streams.insert(
        h,
        Stream {
            context: CURRENT.get(),
            flags,
            priority,
            capture: None,
        },
    );
    put(out, h)
}

fn known(s: &Guard, stream: usize) -> Cu {
    if stream <= 2 || s.streams.contains_key(&stream) {
        Ok(())
    } else {
        Err(code::INVALID_HANDLE)
    }
}

/// For calls that wait for a stream: an error if it captures.
fn idle(stream: usize) -> Cu {
    let (mut s, _) = current()?;
    known(&s, stream)?;
    if stream <= 2 {
        s.not_while_blocking_capture()
    } else {
        s.not_on_capturing(stream)
    }
}

fn record(event: usize, stream: usize) -> Cu {
    let (mut s, _) = current()?;
    known(&s, stream)?;
    if let (Some(st), Some(e)) = (s.streams.get(&stream), s.events.get(&event))
        && st.context != e.context
    {
        eprintln!("offshoot-emulator: an event and a stream of two contexts");
        return Err(code::INVALID_HANDLE);
    }
    let captured = s
        .streams
        .get(&stream)
        .and_then(|st| Some((stream, st.capture.clone()?)));
    let Some(e) = s.events.get_mut(&event) else {
        return Err(code::INVALID_HANDLE);
    };
    e.recorded = true;
    e.captured = captured;
    Ok(())
}

fn wait(stream: usize, event: usize) -> Cu {
    let (mut s, _) = current()?;
    known(&s, stream)?;
    let Some(e) = s.events.get(&event) else {
        return Err(code::INVALID_HANDLE);
    };
    let Some((from, then)) = e.captured.clone() else {
        return match s.streams.get(&stream) {
            // Work outside of the capture cannot be waited for inside it.
            Some(st) if st.capture.is_some() && e.recorded => Err(code::CAPTURE_UNSUPPORTED),
            _ => Ok(()),
        };
    };
    if !s.captures.contains_key(&then.capture) {
        return Ok(());
    }
    if let Some(r) = s.streams.get_mut(&from).and_then(|st| st.capture.as_mut())
        && from != stream
    {
        r.joined = r.joined.max(then.ops);
    }
    let Some(st) = s.streams.get_mut(&stream) else {
        return Err(code::CAPTURE_UNSUPPORTED);
    };
    match &mut st.capture {
        Some(r) if r.capture != then.capture => Err(code::CAPTURE_UNSUPPORTED),
        Some(r) => {
            for n in then.last {
                if !r.last.contains(&n) {
                    r.last.push(n);
                }
            }
            Ok(())
        }
        None => {
            st.capture = Some(Recording {
                capture: then.capture,
                last: then.last,
                ops: 0,
                joined: 0,
            });
            Ok(())
        }
    }
}

fn begin(stream: usize, mode: c_int) -> Cu {
    let (mut s, _) = current()?;
    let id = s.handle();
    let Some(st) = s.streams.get_mut(&stream) else {
        return Err(if stream <= 2 {
            code::CAPTURE_UNSUPPORTED
        } else {
            code::INVALID_HANDLE
        });
    };
    if st.capture.is_some() || !(0..=2).contains(&mode) {
        return Err(code::INVALID_VALUE);
    }
    st.capture = Some(Recording {
        capture: id,
        last: Vec::new(),
        ops: 0,
        joined: 0,
    });
    s.captures.insert(
        id,
        Capture {
            origin: stream,
            nodes: Vec::new(),
            invalid: false,
            mode,
            thread: std::thread::current().id(),
        },
    );
    Ok(())
}

fn end(stream: usize, out: *mut usize) -> Cu {
    let (mut s, _) = current()?;
    let capture = s
        .streams
        .get(&stream)
        .and_then(|st| Some(st.capture.as_ref()?.capture));
    let Some(capture) = capture else {
        return Err(code::INVALID_VALUE);
    };
    if s.captures.get(&capture).is_some_and(|c| c.origin != stream) {
        return Err(code::CAPTURE_UNMATCHED);
    }
    let mut unjoined = false;
    for (h, st) in &mut s.streams {
        if let Some(other) = st.capture.take_if(|o| o.capture == capture) {
            unjoined |= *h != stream && other.ops > other.joined;
        }
    }
    put(out, 0)?;
    let Some(c) = s.captures.remove(&capture) else {
        return Err(code::CAPTURE_INVALIDATED);
    };
    if c.invalid {
        return Err(code::CAPTURE_INVALIDATED);
    }
    if unjoined {
        return Err(code::CAPTURE_UNJOINED);
    }
    let h = s.handle();
    s.graphs.insert(h, c.nodes);
    put(out, h)
}

fn status(stream: usize) -> Cu<(c_int, usize)> {
    let (s, _) = current()?;
    known(&s, stream)?;
    let capture = s
        .streams
        .get(&stream)
        .and_then(|st| Some(st.capture.as_ref()?.capture));
    let Some(capture) = capture else {
        return Ok((0, 0));
    };
    let invalid = s.captures.get(&capture).is_none_or(|c| c.invalid);
    Ok((if invalid { 2 } else { 1 }, capture))
}

fn event_ready(event: usize) -> Cu {
    let (s, _) = current()?;
    match s.events.get(&event) {
        None => Err(code::INVALID_HANDLE),
        Some(Event {
            captured: Some((_, r)),
            ..
        }) if s.captures.contains_key(&r.capture) => Err(code::CAPTURED_EVENT),
        Some(_) => Ok(()),
    }
}

fn elapsed(out: *mut f32, a: usize, b: usize) -> Cu {
    let (s, _) = current()?;
    for e in [a, b] {
        match s.events.get(&e) {
            None => return Err(code::INVALID_HANDLE),
            Some(e) if !e.recorded => return Err(code::INVALID_HANDLE),
            Some(_) => {}
        }
    }
    // Time is not modelled.
    put(out, 0.0)
}

api! {
    fn cuStreamCreate(out: *mut usize, flags: c_uint) {
        create(out, flags, 0)
    }
    fn cuStreamCreateWithPriority(out: *mut usize, flags: c_uint, priority: c_int) {
        create(out, flags, priority)
    }
    fn cuStreamDestroy_v2(stream: usize) {
        let (mut s, _) = current()?;
        s.streams.remove(&stream).map(|_| ()).ok_or(code::INVALID_HANDLE)
    }
    fn cuStreamSynchronize(stream: usize) {
        idle(stream)
    }
    fn cuStreamQuery(stream: usize) {
        idle(stream)
    }
    fn cuStreamWaitEvent(stream: usize, event: usize, _flags: c_uint) {
        wait(stream, event)
    }
    fn cuStreamGetFlags(stream: usize, out: *mut c_uint) {
        let (s, _) = current()?;
        known(&s, stream)?;
        put(out, s.streams.get(&stream).map_or(0, |st| st.flags))
    }
    fn cuStreamGetPriority(stream: usize, out: *mut c_int) {
        let (s, _) = current()?;
        known(&s, stream)?;
        put(out, s.streams.get(&stream).map_or(0, |st| st.priority))
    }
    fn cuStreamGetCtx(stream: usize, out: *mut usize) {
        let (s, _) = current()?;
        known(&s, stream)?;
        put(out, s.streams.get(&stream).map_or(CURRENT.get(), |st| st.context))
    }
    fn cuStreamGetId(stream: usize, out: *mut u64) {
        let (s, _) = current()?;
        known(&s, stream)?;
        put(out, stream as u64)
    }
    fn cuStreamGetDevice(stream: usize, out: *mut c_int) {
        let (s, _) = current()?;
        known(&s, stream)?;
        let context = s.streams.get(&stream).map_or(CURRENT.get(), |st| st.context);
        put(out, s.contexts.get(&context).ok_or(code::INVALID_CONTEXT)?.device)
    }
    fn cuStreamAddCallback(stream: usize, callback: usize, data: usize, _flags: c_uint) {
        let (mut s, _) = current()?;
        known(&s, stream)?;
        s.not_on_capturing(stream)?;
        if callback == 0 {
            return Err(code::INVALID_VALUE);
        }
        drop(s);
        // SAFETY: the caller hands over a function of this type, `CUstreamCallback`, with its
        // argument.
        let f: extern "C" fn(usize, c_int, usize) = unsafe { std::mem::transmute(callback) };
        f(stream, 0, data);
        Ok(())
    }
    fn cuStreamAttachMemAsync(_stream: usize, _at: u64, _len: usize, _flags: c_uint) {
        current().map(|_| ())
    }
    fn cuStreamBeginCapture_v2(stream: usize, mode: c_int) {
        begin(stream, mode)
    }
    fn cuStreamEndCapture(stream: usize, out: *mut usize) {
        end(stream, out)
    }
    fn cuStreamIsCapturing(stream: usize, out: *mut c_int) {
        put(out, status(stream)?.0)
    }
    fn cuStreamGetCaptureInfo_v2(stream: usize, out: *mut c_int, id: *mut u64, graph: *mut usize, deps: *mut *const c_void, n: *mut usize) {
        let (state, capture) = status(stream)?;
        put(out, state)?;
        put_opt(id, capture as u64);
        put_opt(graph, 0);
        put_opt(deps, std::ptr::null());
        put_opt(n, 0);
        Ok(())
    }
    fn cuThreadExchangeStreamCaptureMode(mode: *mut c_int) {
        const MODES: std::ops::RangeInclusive<c_int> = 0..=2;
        let new = super::get(mode)?;
        if !MODES.contains(&new) {
            return Err(code::INVALID_VALUE);
        }
        put(mode, MODE.replace(new))
    }
    fn cuEventCreate(out: *mut usize, _flags: c_uint) {
        let (mut s, _) = current()?;
        let h = s.handle();
        s.events.insert(h, Event { context: CURRENT.get(), ..Event::default() });
        put(out, h)
    }
    fn cuEventDestroy_v2(event: usize) {
        let (mut s, _) = current()?;
        s.events.remove(&event).map(|_| ()).ok_or(code::INVALID_HANDLE)
    }
    fn cuEventRecord(event: usize, stream: usize) {
        record(event, stream)
    }
    fn cuEventRecordWithFlags(event: usize, stream: usize, _flags: c_uint) {
        record(event, stream)
    }
    fn cuEventSynchronize(event: usize) {
        event_ready(event)
    }
    fn cuEventQuery(event: usize) {
        event_ready(event)
    }
    fn cuEventElapsedTime(out: *mut f32, a: usize, b: usize) {
        elapsed(out, a, b)
    }
    fn cuEventElapsedTime_v2(out: *mut f32, a: usize, b: usize) {
        elapsed(out, a, b)
    }
}

thread_local! {
    /// The mode that the thread has set by `cuThreadExchangeStreamCaptureMode`.
    pub static MODE: std::cell::Cell<c_int> = const { std::cell::Cell::new(0) };
}
