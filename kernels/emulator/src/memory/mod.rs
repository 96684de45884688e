//! Device memory: one reserved address range, allocations with guard zones, and their shadows.
//!
//! A device address is a host address inside the reservation, so a raw access that stays inside it
//! cannot leave the emulated device. Three shadows lie beside the data, all reserved and backed by
//! memory only where accessed: which allocation a page belongs to, one bit per byte for "written",
//! and one word per four bytes for the race check between blocks.

mod heap;
mod region;

pub use heap::{Extent, Heap, Kind};

/// Generic addresses carry the state space above bit 48; the device heap lies below it.
pub const SHARED_WINDOW: u64 = 1 << 48;
/// See [`SHARED_WINDOW`].
pub const LOCAL_WINDOW: u64 = 2 << 48;
/// See [`SHARED_WINDOW`].
pub const PARAM_WINDOW: u64 = 3 << 48;
/// The shift of the state space in a generic address.
pub const WINDOW_SHIFT: u32 = 48;
