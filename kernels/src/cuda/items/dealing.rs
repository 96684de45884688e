//! Which worker does what.
//!
//! Units go to multiprocessors, the heaviest first to whoever has least to do (LPT) or by first fit into the least
//! capacity that holds all (MULTIFIT, Coffman, Garey and Johnson 1978), whichever is more even.

use super::Shape;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Units on workers; the units are known by their costs, the largest first.
pub(super) struct Dealt {
    /// The worker of each.
    pub(super) workers: Vec<usize>,
    pub(super) heaviest: u64,
    pub(super) heaviest_sm: u64,
    pub(super) total: u64,
}

impl Dealt {
    pub(super) fn new(shape: &Shape, costs: &[u64]) -> Dealt {
        let sms = shape.sms.max(1);
        let spread = Dealt::on(shape, costs, &spread(costs, sms));
        let mut best = None;
        // More than a hundredth is not worth the host's time.
        let mut low = spread.total.div_ceil(sms as u64);
        low = low.max(costs.first().copied().unwrap_or(0));
        let mut high = spread.heaviest_sm;
        while low + low / 100 < high {
            let middle = (low + high) / 2;
            match fill(costs, sms, middle) {
                Some(placed) => (best, high) = (Some(placed), middle),
                None => low = middle + 1,
            }
        }
        let time = |dealt: &Dealt| shape.time(dealt.heaviest, dealt.heaviest_sm);
        match best.map(|placed| Dealt::on(shape, costs, &placed)) {
            Some(filled) if time(&filled) < time(&spread) => filled,
            _ => spread,
        }
    }

    /// Units on multiprocessors go to the worker there that has least to do. Workers w, w + sms, ...
    /// share one.
    fn on(shape: &Shape, costs: &[u64], placed: &[usize]) -> Dealt {
        let (sms, workers) = (shape.sms.max(1), shape.workers());
        let mut loads = vec![0; workers];
        let workers = costs.iter().zip(placed).map(|(cost, &sm)| {
            let least = (sm..workers).step_by(sms).min_by_key(|&w| loads[w]);
            let worker = least.expect("a multiprocessor has a worker");
            loads[worker] += cost;
            worker
        });
        let workers = workers.collect();
        let of_sm = |sm| loads[sm..].iter().step_by(sms).sum();
        Dealt {
            workers,
            heaviest: loads.iter().copied().max().unwrap_or(0),
            heaviest_sm: (0..sms).map(of_sm).max().unwrap_or(0),
            total: costs.iter().sum(),
        }
    }
}

/// The multiprocessor of each unit: the one that has least to do.
fn spread(costs: &[u64], sms: usize) -> Vec<usize> {
    let mut loads: BinaryHeap<_> = (0..sms).map(|sm| Reverse((0, sm))).collect();
    let place = |cost| {
        let Reverse((load, sm)) = loads.pop().expect("there are multiprocessors");
        loads.push(Reverse((load + cost, sm)));
        sm
    };
    costs.iter().map(place).collect()
}

/// The multiprocessor of each unit: the first that has no more than `capacity` with it; none if one has
/// no place.
pub(super) fn fill(costs: &[u64], sms: usize, capacity: u64) -> Option<Vec<usize>> {
    let mut loads = vec![0; sms];
    let (mut sm, mut last) = (0, None);
    let place = |&cost: &u64| {
        // What had no room for the last one has none for its equal.
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
