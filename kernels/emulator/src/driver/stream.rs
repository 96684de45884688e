//! Streams and events.

use super::state::{Capture, Event, Guard, Recording, Stream, current};
use super::{Cu, api, code, put, put_opt};
use std::ffi::{c_int, c_uint, c_void};

fn create(out: *mut usize, flags: c_uint, priority: c_int) -> Cu {
    let (mut s, _) = current()?;
    let h = s.handle();
    s.streams.insert(
        h,
        Stream {
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

/// For calls that wait: not on a stream that captures.
fn idle(stream: usize) -> Cu {
    let (mut s, _) = current()?;
    known(&s, stream)?;
    match s.streams.get(&stream) {
        Some(st) if st.capture.is_some() => s.not_while_capturing(),
        Some(_) => Ok(()),
        None => s.not_while_capturing(),
    }
}

fn record(event: usize, stream: usize) -> Cu {
    let (mut s, _) = current()?;
    known(&s, stream)?;
    let captured = s
        .streams
        .get(&stream)
        .and_then(|st| st.capture)
        .map(|r| (r.capture, stream, r.ops));
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
    let Some((capture, from, ops)) = e.captured else {
        return match s.streams.get(&stream) {
            // Work outside of the capture cannot be waited for inside it.
            Some(st) if st.capture.is_some() && e.recorded => Err(code::CAPTURE_UNSUPPORTED),
            _ => Ok(()),
        };
    };
    if !s.captures.contains_key(&capture) {
        return Ok(());
    }
    if let Some(r) = s.streams.get_mut(&from).and_then(|st| st.capture.as_mut())
        && from != stream
    {
        r.joined = r.joined.max(ops);
    }
    let Some(st) = s.streams.get_mut(&stream) else {
        return Err(code::CAPTURE_UNSUPPORTED);
    };
    match st.capture {
        Some(r) if r.capture != capture => Err(code::CAPTURE_UNSUPPORTED),
        Some(_) => Ok(()),
        None => {
            st.capture = Some(Recording {
                capture,
                ops: 0,
                joined: 0,
            });
            Ok(())
        }
    }
}

fn begin(stream: usize) -> Cu {
    let (mut s, _) = current()?;
    let id = s.handle();
    let Some(st) = s.streams.get_mut(&stream) else {
        return Err(if stream <= 2 {
            code::CAPTURE_UNSUPPORTED
        } else {
            code::INVALID_HANDLE
        });
    };
    if st.capture.is_some() {
        return Err(code::INVALID_VALUE);
    }
    st.capture = Some(Recording {
        capture: id,
        ops: 0,
        joined: 0,
    });
    s.captures.insert(
        id,
        Capture {
            origin: stream,
            nodes: Vec::new(),
            invalid: false,
        },
    );
    Ok(())
}

fn end(stream: usize, out: *mut usize) -> Cu {
    let (mut s, _) = current()?;
    let Some(r) = s.streams.get(&stream).and_then(|st| st.capture) else {
        return Err(code::INVALID_VALUE);
    };
    if s.captures
        .get(&r.capture)
        .is_some_and(|c| c.origin != stream)
    {
        return Err(code::CAPTURE_UNMATCHED);
    }
    let mut unjoined = false;
    for (h, st) in &mut s.streams {
        if let Some(other) = st.capture.filter(|o| o.capture == r.capture) {
            unjoined |= *h != stream && other.ops > other.joined;
            st.capture = None;
        }
    }
    put(out, 0)?;
    let Some(c) = s.captures.remove(&r.capture) else {
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
    let Some(r) = s.streams.get(&stream).and_then(|st| st.capture) else {
        return Ok((0, 0));
    };
    let invalid = s.captures.get(&r.capture).is_none_or(|c| c.invalid);
    Ok((if invalid { 2 } else { 1 }, r.capture))
}

fn event_ready(event: usize) -> Cu {
    let (s, _) = current()?;
    match s.events.get(&event) {
        None => Err(code::INVALID_HANDLE),
        Some(Event {
            captured: Some((c, ..)),
            ..
        }) if s.captures.contains_key(c) => Err(code::CAPTURED_EVENT),
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
    // Time is not modelled, and a made-up figure would be believed.
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
        put(out, super::CURRENT.get())
    }
    fn cuStreamAttachMemAsync(_stream: usize, _at: u64, _len: usize, _flags: c_uint) {
        current().map(|_| ())
    }
    fn cuStreamBeginCapture_v2(stream: usize, _mode: c_int) {
        begin(stream)
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
        // Every mode is treated as the strictest, global.
        put(mode, 0)
    }
    fn cuEventCreate(out: *mut usize, _flags: c_uint) {
        let (mut s, _) = current()?;
        let h = s.handle();
        s.events.insert(h, Event::default());
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
