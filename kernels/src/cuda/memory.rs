//! Device memory and page-locked host memory, freed when dropped.
//!
//! Buffers that live as long as a model (weights, tables, activations) lie in one arena ([`Lasting`]).
//! Its size is known before anything is read ([`reserved_bytes`]), so one allocation is enough and a
//! model that does not fit is refused. The KV blocks are the other arena. Plans and scratch memory
//! come from pools and from buffers that grow and never shrink.
#![allow(unsafe_code)] // Calls of the driver with raw addresses; each states what it relies on.

use super::device::{Card, driver_message};
use super::linear;
use crate::{Allocation, Dtype, Error};
use cudarc::driver::{result, sys};
use std::cell::RefCell;
use std::rc::Rc;

/// Bytes on the device.
pub struct Buffer {
    card: Rc<Card>,
    at: sys::CUdeviceptr,
    bytes: usize,
    owner: Owner,
}

/// The owner of a buffer's memory, which frees it.
enum Owner {
    /// The buffer.
    Own,
    /// The arena, freed with the last of its buffers.
    Arena(#[allow(dead_code)] Rc<Buffer>), // Held, never read.
}

impl Buffer {
    /// Uninitialised memory. A buffer of 0 bytes has an address, too.
    pub(crate) fn new(card: &Rc<Card>, bytes: usize, what: &'static str) -> Result<Buffer, Error> {
        card.bind()?;
        // SAFETY: the context is current.
        let at = unsafe { result::malloc_sync(bytes.max(16)) };
        let at = at.map_err(|_| Error::OutOfMemory {
            device: card.name().into(),
            bytes,
            what,
        })?;
        Ok(Buffer {
            card: Rc::clone(card),
            at,
            bytes,
            owner: Owner::Own,
        })
    }

    /// Memory of zeros.
    pub(crate) fn zeroed(
        card: &Rc<Card>,
        bytes: usize,
        what: &'static str,
    ) -> Result<Buffer, Error> {
        let buffer = Buffer::new(card, bytes, what)?;
        buffer.fill(0)?;
        Ok(buffer)
    }

    /// The card whose memory it is.
    pub(crate) fn card(&self) -> &Rc<Card> {
        &self.card
    }

    /// Its address on the device.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Its size.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Enqueues filling all of it with one byte.
    pub(crate) fn fill(&self, byte: u8) -> Result<(), Error> {
        if self.bytes == 0 {
            return Ok(());
        }
        self.card.bind()?;
        // SAFETY: the range is this buffer's.
        unsafe { result::memset_d8_async(self.at, byte, self.bytes, self.card.stream()) }
            .map_err(|e| self.card.failure("filling memory", &driver_message(&e)))
    }

    /// Enqueues a copy to the device. `values` may change when this returns: the driver stages copies
    /// from pageable memory.
    pub(crate) fn write<T: bytemuck::Pod>(&self, offset: usize, values: &[T]) -> Result<(), Error> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        assert!(offset + bytes.len() <= self.bytes, "a copy past the end");
        if bytes.is_empty() {
            return Ok(());
        }
        self.card.bind()?;
        // SAFETY: the range is inside this buffer, checked above.
        unsafe { result::memcpy_htod_async(self.at + offset as u64, bytes, self.card.stream()) }
            .map_err(|e| {
                self.card
                    .failure("a copy to the device", &driver_message(&e))
            })
    }

    /// Enqueues a copy to the beginning of the buffer by way of page-locked memory: unlike
    /// [`Buffer::write`], which may wait for work enqueued before, this returns at once.
    pub(crate) fn upload<T: bytemuck::Pod>(&self, values: &[T]) -> Result<(), Error> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        assert!(bytes.len() <= self.bytes, "a copy past the end");
        if bytes.is_empty() {
            return Ok(());
        }
        self.card.bind()?;
        self.card.reclaim_uploads();
        let mut from = Pinned::new(&self.card, bytes.len())?;
        from.bytes_mut().copy_from_slice(bytes);
        // SAFETY: the range is inside this buffer, checked above; `from` is kept until the event is
        // done.
        unsafe { result::memcpy_htod_async(self.at, from.bytes_mut(), self.card.stream()) }
            .map_err(|e| {
                self.card
                    .failure("a copy to the device", &driver_message(&e))
            })?;
        let event = self.card.event()?;
        self.card.keep_until(event, from.into_parts());
        Ok(())
    }

    /// Enqueues a copy to page-locked memory; done when the returned event is.
    pub(crate) fn read(&self, offset: usize, mut to: Pinned) -> Result<Copying, Error> {
        let bytes = to.used;
        assert!(offset + bytes <= self.bytes, "a copy past the end");
        if bytes > 0 {
            self.card.bind()?;
            let at = self.at + offset as u64;
            // SAFETY: the range is inside this buffer; `to` lives until the event is done, since
            // `Copying` waits for it when dropped.
            unsafe { result::memcpy_dtoh_async(to.bytes_mut(), at, self.card.stream()) }.map_err(
                |e| {
                    self.card
                        .failure("a copy from the device", &driver_message(&e))
                },
            )?;
        }
        let event = self.card.event()?;
        Ok(Copying {
            card: Rc::clone(&self.card),
            event: Some(event),
            to: Some(to),
        })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if matches!(self.owner, Owner::Own) {
            // Nobody can handle a failure here; the context frees everything at its end.
            let _ = self.card.bind();
            // SAFETY: allocated by `new`. `cuMemFree` waits for work that still uses memory of
            // `cuMemAlloc`; `cuMemFreeAsync` would not.
            let _ = unsafe { result::free_sync(self.at) };
        }
    }
}

/// Memory for what lives as long as a model.
pub(crate) struct Lasting {
    card: Rc<Card>,
    state: RefCell<State>,
}

/// What a buffer takes of the arena: a multiple of what the driver aligns its own allocations to.
fn span(bytes: usize) -> usize {
    bytes.max(1).next_multiple_of(256)
}

/// The elements that `len` elements of a vector or of a row of activations are padded to.
pub(super) fn padded(len: usize) -> usize {
    len.next_multiple_of(8)
}

/// Bytes of the arena that holds all of `models`.
pub(super) fn reserved_bytes(models: &[Allocation]) -> usize {
    let bytes = |allocation: &Allocation| match *allocation {
        // A copy in bf16 may lie beside it.
        Allocation::Vector { len } => {
            span(padded(len) * size_of::<f32>()) + span(padded(len) * Dtype::Bf16.bytes())
        }
        // Loading refuses quantised matrices.
        Allocation::Matrix { rows, cols } | Allocation::Quantized { rows, cols, .. } => {
            linear::weight_bytes(rows, cols)
        }
        Allocation::Rope {
            positions,
            half_dim,
        } => 2 * positions * half_dim * size_of::<f32>(),
        Allocation::Activations { rows, cols } => rows * padded(cols) * Dtype::F32.bytes(),
        Allocation::HalfActivations { rows, cols } => rows * padded(cols) * Dtype::Bf16.bytes(),
    };
    models.iter().map(bytes).map(span).sum()
}

enum State {
    /// Every buffer is an allocation of its own, whose bounds the emulator checks: tests and studies.
    Single,
    /// The arena and the bytes of it in use.
    Arena(Rc<Buffer>, usize),
}

impl Lasting {
    pub(crate) fn new(card: &Rc<Card>) -> Lasting {
        Lasting {
            card: Rc::clone(card),
            state: RefCell::new(State::Single),
        }
    }

    /// Allocates the arena, of [`reserved_bytes`].
    pub(crate) fn reserve(&self, bytes: usize) -> Result<(), Error> {
        let arena = Buffer::new(&self.card, bytes, "weights and activations")?;
        self.state.replace(State::Arena(Rc::new(arena), 0));
        Ok(())
    }

    /// Uninitialised memory.
    pub(crate) fn buffer(&self, bytes: usize, what: &'static str) -> Result<Buffer, Error> {
        let span = span(bytes);
        match &mut *self.state.borrow_mut() {
            State::Arena(arena, taken) if *taken + span <= arena.bytes => {
                let at = arena.at + *taken as u64;
                *taken += span;
                Ok(Buffer {
                    card: Rc::clone(&self.card),
                    at,
                    bytes,
                    owner: Owner::Arena(Rc::clone(arena)),
                })
            }
            _ => Buffer::new(&self.card, bytes, what),
        }
    }

    /// Memory that holds `values`.
    pub(crate) fn of<T: bytemuck::Pod>(
        &self,
        values: &[T],
        what: &'static str,
    ) -> Result<Buffer, Error> {
        let buffer = self.buffer(std::mem::size_of_val(values), what)?;
        buffer.write(0, values)?;
        Ok(buffer)
    }

    /// Memory of zeros.
    pub(crate) fn zeroed(&self, bytes: usize, what: &'static str) -> Result<Buffer, Error> {
        let buffer = self.buffer(bytes, what)?;
        buffer.fill(0)?;
        Ok(buffer)
    }
}

/// A buffer that is replaced by a larger one when it is too small.
pub struct Growing {
    what: &'static str,
    buffer: Option<Buffer>,
}

impl Growing {
    pub(crate) fn new(what: &'static str) -> Growing {
        Growing { what, buffer: None }
    }

    /// Its address; 0 before the first allocation.
    pub(crate) fn at(&self) -> u64 {
        self.buffer.as_ref().map_or(0, Buffer::at)
    }

    /// The buffer, of at least that many bytes. Its content may be lost.
    pub(crate) fn of(&mut self, card: &Rc<Card>, bytes: usize) -> Result<&Buffer, Error> {
        if self.buffer.as_ref().is_none_or(|b| b.bytes() < bytes) {
            self.buffer = None;
            let bytes = bytes.next_power_of_two().max(4096);
            self.buffer = Some(Buffer::new(card, bytes, self.what)?);
        }
        Ok(self.buffer.as_ref().expect("made above"))
    }
}

/// Page-locked host memory, from a pool and back to it.
pub struct Pinned {
    card: Rc<Card>,
    at: *mut u8,
    capacity: usize,
    used: usize,
}

/// Page-locked memory not in use: address and capacity.
#[derive(Default)]
pub(crate) struct PinnedPool(RefCell<Vec<(*mut u8, usize)>>);

impl PinnedPool {
    /// Puts memory into the pool; nothing may use it any more.
    pub(crate) fn give(&self, part: (*mut u8, usize)) {
        self.0.borrow_mut().push(part);
    }

    /// Frees everything. The context must be current.
    pub(crate) fn free(&self) {
        for (at, _) in self.0.borrow_mut().drain(..) {
            // SAFETY: allocated by `Pinned::new`, not in use: it is in the pool.
            let _ = unsafe { result::free_host(at.cast()) };
        }
    }
}

impl Pinned {
    /// Memory for `bytes` bytes.
    pub(crate) fn new(card: &Rc<Card>, bytes: usize) -> Result<Pinned, Error> {
        let mut pool = card.pinned().0.borrow_mut();
        let fitting = pool.iter().position(|&(_, capacity)| capacity >= bytes);
        let (at, capacity) = match fitting {
            Some(index) => pool.swap_remove(index),
            None => {
                let capacity = bytes.next_power_of_two().max(4096);
                card.bind()?;
                // SAFETY: the context is current.
                let at = unsafe { result::malloc_host(capacity, 0) };
                let at = at.map_err(|_| Error::OutOfMemory {
                    device: card.name().into(),
                    bytes,
                    what: "page-locked host memory",
                })?;
                (at.cast(), capacity)
            }
        };
        Ok(Pinned {
            card: Rc::clone(card),
            at,
            capacity,
            used: bytes,
        })
    }

    /// Its address and capacity, for the pool.
    fn into_parts(self) -> (*mut u8, usize) {
        let parts = (self.at, self.capacity);
        // Drops the card only: the parts still own the memory.
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: read once, and `this` is not dropped.
        drop(unsafe { std::ptr::read(&this.card) });
        parts
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `used <= capacity` bytes of memory that only this value uses. They are written before
        // they are read.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.used) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.card.pinned().give((self.at, self.capacity));
    }
}

/// A copy to the host that may not be finished.
pub struct Copying {
    card: Rc<Card>,
    event: Option<sys::CUevent>,
    to: Option<Pinned>,
}

impl Copying {
    /// Waits for the bytes.
    pub(crate) fn finish<T: bytemuck::Pod>(mut self) -> Result<Vec<T>, Error> {
        self.wait()?;
        let mut to = self.to.take().expect("taken once");
        Ok(bytemuck::pod_collect_to_vec(to.bytes_mut()))
    }

    fn wait(&mut self) -> Result<(), Error> {
        match self.event.take() {
            Some(event) => self.card.wait_for(event),
            None => Ok(()),
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        // The memory must not return to the pool while the device writes to it.
        let _ = self.wait();
    }
}
