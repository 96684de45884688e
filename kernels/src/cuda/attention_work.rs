//! The work of attention calls ([`super::items`]) in device memory: pooled, or at fixed addresses
//! for recorded passes.

use super::CudaBackend;
use super::device::Card;
use super::items::{self, AttentionShape, AttentionWork};
use super::memory::Buffer;
use super::plan::{Place, Plan, Pool, Pooled};
use crate::Error;
use std::rc::Rc;

/// Parts of the work: items, entries, dests, units, lists, merges, merge slots.
const PARTS: usize = 7;
/// The index of the merges.
const MERGES: usize = 5;

/// [`AttentionWork`] on the device.
pub(super) struct DeviceWork {
    memory: Memory,
    /// The addresses of the parts.
    parts: [u64; PARTS],
    /// Merges, including empty ones.
    pub(super) merge_count: usize,
    /// Slots of partial results.
    pub(super) partials: usize,
    /// Thread blocks.
    pub(super) workers: usize,
}

enum Memory {
    Pooled(Pooled),
    Region(Rc<Region>),
}

/// Memory at a fixed address for the work of one shape, larger than the work: recorded launches
/// contain its addresses.
pub(super) struct Region {
    buffer: Buffer,
    /// Words of each part.
    capacities: [usize; PARTS],
    version: u64,
}

/// The work of a plan for one shape, built and uploaded at its first use.
pub(super) fn of_plan(
    backend: &CudaBackend,
    plan: &Plan,
    shape: &AttentionShape,
) -> Result<Rc<DeviceWork>, Error> {
    if let Some((_, work)) = plan.work.borrow().iter().find(|(s, _)| s == shape) {
        return Ok(Rc::clone(work));
    }
    let work = items::build(&plan.step, shape, backend.sharing);
    let work = DeviceWork::upload(&backend.card, &backend.plans, plan, shape, &work)?;
    let work = Rc::new(work);
    plan.work.borrow_mut().push((*shape, Rc::clone(&work)));
    Ok(work)
}

impl DeviceWork {
    /// Uploads to pooled memory, or, for a plan with a fixed place, to the region of this shape
    /// there. A region has room for the largest number of merges; the surplus merges are empty.
    fn upload(
        card: &Rc<Card>,
        pool: &Pool,
        plan: &Plan,
        shape: &AttentionShape,
        work: &AttentionWork,
    ) -> Result<DeviceWork, Error> {
        let parts: [&[u32]; PARTS] = [
            bytemuck::cast_slice(&work.items),
            bytemuck::cast_slice(&work.entries),
            bytemuck::cast_slice(&work.dests),
            bytemuck::cast_slice(&work.units),
            &work.lists,
            bytemuck::cast_slice(&work.merges),
            &work.merge_slots,
        ];
        let (memory, base, capacities, merge_count) = match plan.place() {
            None => {
                // 16 bytes: the kernel reads entries and merges four words at a time.
                let capacities = parts.map(|part| part.len().next_multiple_of(4));
                let pooled = pool.upload(card, &concatenated(&parts, &capacities))?;
                let base = pooled.at();
                (Memory::Pooled(pooled), base, capacities, work.merges.len())
            }
            Some(place) => {
                let max_merges = plan.step.rows.len() * shape.group;
                let region = region(card, place, shape, &parts, max_merges)?;
                let words = concatenated(&parts, &region.capacities);
                region.buffer.upload(&words)?;
                let (base, capacities) = (region.buffer.at(), region.capacities);
                (Memory::Region(region), base, capacities, max_merges)
            }
        };
        let mut next = base;
        let parts = capacities.map(|capacity| {
            let address = next;
            next += 4 * capacity as u64;
            address
        });
        Ok(DeviceWork {
            memory,
            parts,
            merge_count,
            partials: work.partials,
            workers: work.lists.len() - 1,
        })
    }

    /// Changes whenever the addresses do.
    pub(super) fn version(&self) -> u64 {
        match &self.memory {
            Memory::Pooled(pooled) => pooled.at(),
            Memory::Region(region) => region.version,
        }
    }

    pub(super) fn items(&self) -> u64 {
        self.parts[0]
    }

    pub(super) fn entries(&self) -> u64 {
        self.parts[1]
    }

    pub(super) fn dests(&self) -> u64 {
        self.parts[2]
    }

    pub(super) fn units(&self) -> u64 {
        self.parts[3]
    }

    pub(super) fn lists(&self) -> u64 {
        self.parts[4]
    }

    pub(super) fn merges(&self) -> u64 {
        self.parts[MERGES]
    }

    pub(super) fn merge_slots(&self) -> u64 {
        self.parts[6]
    }
}

/// The region of a shape at a plan's place; replaced by a larger one if it is too small.
fn region(
    card: &Rc<Card>,
    place: &Place,
    shape: &AttentionShape,
    parts: &[&[u32]; PARTS],
    max_merges: usize,
) -> Result<Rc<Region>, Error> {
    let mut regions = place.regions.borrow_mut();
    let found = regions.iter().position(|(s, _)| s == shape);
    let mut capacities = parts.map(|part| part.len().next_power_of_two().max(64));
    capacities[MERGES] = 4 * max_merges;
    let mut version = 0;
    if let Some(index) = found {
        let region = &regions[index].1;
        let mut both = region.capacities.iter().zip(parts);
        if both.all(|(&capacity, part)| part.len() <= capacity) {
            return Ok(Rc::clone(region));
        }
        for (capacity, old) in capacities.iter_mut().zip(&region.capacities) {
            *capacity = (*capacity).max(*old);
        }
        version = region.version + 1;
        regions.swap_remove(index);
    }
    let bytes = 4 * capacities.iter().sum::<usize>();
    let region = Rc::new(Region {
        buffer: Buffer::new(card, bytes, "attention's work")?,
        capacities,
        version,
    });
    regions.push((*shape, Rc::clone(&region)));
    Ok(region)
}

/// The parts one after the other, each padded with zeros to its capacity.
fn concatenated(parts: &[&[u32]; PARTS], capacities: &[usize; PARTS]) -> Vec<u32> {
    let mut words = Vec::with_capacity(capacities.iter().sum());
    for (part, capacity) in parts.iter().zip(capacities) {
        let end = words.len() + capacity;
        words.extend_from_slice(part);
        words.resize(end, 0);
    }
    words
}
