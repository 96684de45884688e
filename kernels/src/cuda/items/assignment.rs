//! The assignment of units to workers.
//!
//! Units go to multiprocessors, largest first, either to the least loaded (LPT) or by first fit
//! into the smallest capacity that holds all of them (MULTIFIT, Coffman, Garey and Johnson 1978);
//! the more even assignment is taken.

use super::AttentionShape;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Units assigned to workers; a unit is given by its cost, the largest first.
pub(super) struct Assignment {
    /// The worker of each unit.
    pub(super) workers: Vec<usize>,
    /// Cost of the heaviest worker.
    pub(super) heaviest: u64,
    /// Cost of the heaviest multiprocessor.
    pub(super) heaviest_sm: u64,
    pub(super) total: u64,
}

impl Assignment {
    pub(super) fn new(shape: &AttentionShape, costs: &[u64]) -> Assignment {
        let sms = shape.sms.max(1);
        let lpt = Assignment::within_sms(shape, costs, &least_loaded(costs, sms));
        let mut best = None;
        // Bisects the capacity to a hundredth: more is not worth the host's time.
        let mut low = lpt.total.div_ceil(sms as u64);
        low = low.max(costs.first().copied().unwrap_or(0));
        let mut high = lpt.heaviest_sm;
        while low + low / 100 < high {
            let middle = (low + high) / 2;
            match first_fit(costs, sms, middle) {
                Some(placed) => (best, high) = (Some(placed), middle),
                None => low = middle + 1,
            }
        }
        let time = |found: &Assignment| shape.time(found.heaviest, found.heaviest_sm);
        match best.map(|placed| Assignment::within_sms(shape, costs, &placed)) {
            Some(multifit) if time(&multifit) < time(&lpt) => multifit,
            _ => lpt,
        }
    }

    /// Each unit goes to the least loaded worker of its multiprocessor, `placed`. Workers w, w +
    /// sms, ... share one.
    fn within_sms(shape: &AttentionShape, costs: &[u64], placed: &[usize]) -> Assignment {
        let (sms, workers) = (shape.sms.max(1), shape.workers());
        let mut loads = vec![0; workers];
        let workers = costs.iter().zip(placed).map(|(cost, &sm)| {
            let lightest = (sm..workers).step_by(sms).min_by_key(|&w| loads[w]);
            let worker = lightest.expect("a multiprocessor has a worker");
            loads[worker] += cost;
            worker
        });
        let workers = workers.collect();
        let sm_load = |sm| loads[sm..].iter().step_by(sms).sum();
        Assignment {
            workers,
            heaviest: loads.iter().copied().max().unwrap_or(0),
            heaviest_sm: (0..sms).map(sm_load).max().unwrap_or(0),
            total: costs.iter().sum(),
        }
    }
}

/// The multiprocessor of each unit: the least loaded (LPT).
fn least_loaded(costs: &[u64], sms: usize) -> Vec<usize> {
    let mut loads: BinaryHeap<_> = (0..sms).map(|sm| Reverse((0, sm))).collect();
    let place = |cost| {
        let Reverse((load, sm)) = loads.pop().expect("there are multiprocessors");
        loads.push(Reverse((load + cost, sm)));
        sm
    };
    costs.iter().map(place).collect()
}

/// The multiprocessor of each unit: the first whose load stays within `capacity`; `None` if a unit
/// fits nowhere.
pub(super) fn first_fit(costs: &[u64], sms: usize, capacity: u64) -> Option<Vec<usize>> {
    let mut loads = vec![0; sms];
    let (mut sm, mut last) = (0, None);
    let place = |&cost: &u64| {
        // A multiprocessor without room for the last unit has none for one of the same cost.
        if last.replace(cost) != Some(cost) {
            sm = 0;
        }
        while *loads.get(sm)? + cost > capacity {
            sm += 1;
        }
        loads[sm] += cost;
        Some(sm)
    };
    costs.iter().map(place).collect()
}
