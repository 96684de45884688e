//! Repeated measurements: median, extremes, spread.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Repeated measurements of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stat {
    /// The median; of an even count, the mean of the two values in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many.
    pub runs: usize,
}

impl Stat {
    /// Of these values; `None` if there are none.
    pub fn of(values: &[f64]) -> Option<Stat> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let runs = sorted.len();
        let median = (sorted[(runs - 1) / 2] + sorted[runs / 2]) / 2.0;
        Some(Stat {
            median,
            min,
            max,
            runs,
        })
    }

    /// The rate of `amount` of work in each of these times: the shortest time gives the highest
    /// rate.
    pub fn rate(&self, amount: f64) -> Stat {
        Stat {
            median: amount / self.median,
            min: amount / self.max,
            max: amount / self.min,
            runs: self.runs,
        }
    }

    /// Half the distance between the extremes, as a share of the median.
    pub fn spread(&self) -> f64 {
        (self.max - self.min) / 2.0 / self.median
    }

    /// The median with its spread in per cent: `12.3 ±4%`.
    pub fn words(&self, scale: f64, decimals: usize) -> String {
        let median = self.median * scale;
        match self.runs {
            1 => format!("{median:.decimals$}"),
            _ => format!("{median:.decimals$} ±{:.0}%", 100.0 * self.spread()),
        }
    }
}

/// Seconds of a call of `work`. It is called for at least `min_seconds`, and that is repeated
/// `runs` times after one repetition to warm up.
///
/// # Panics
///
/// If `runs` is 0.
pub fn time(runs: usize, min_seconds: f64, mut work: impl FnMut()) -> Stat {
    let mut once = || {
        let start = Instant::now();
        let mut calls = 0u32;
        loop {
            work();
            calls += 1;
            let seconds = start.elapsed().as_secs_f64();
            if seconds >= min_seconds {
                return seconds / f64::from(calls);
            }
        }
    };
    once();
    let times: Vec<f64> = (0..runs).map(|_| once()).collect();
    Stat::of(&times).expect("at least one run")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(Stat::of(&[]), None);
        let odd = Stat::of(&[3.0, 1.0, 2.0]).expect("values");
        assert_eq!((odd.median, odd.min, odd.max, odd.runs), (2.0, 1.0, 3.0, 3));
        assert_eq!(odd.spread(), 0.5);
        assert_eq!(odd.words(10.0, 1), "20.0 ±50%");
        let even = Stat::of(&[4.0, 1.0, 2.0, 8.0]).expect("values");
        assert_eq!(even.median, 3.0);
        assert_eq!(Stat::of(&[0.5]).expect("a value").words(1.0, 2), "0.50");
    }

    #[test]
    fn a_rate_turns_the_order_round() {
        let seconds = Stat::of(&[2.0, 4.0, 1.0]).expect("values");
        let rate = seconds.rate(8.0);
        assert_eq!((rate.median, rate.min, rate.max), (4.0, 2.0, 8.0));
    }

    #[test]
    fn work_is_repeated() {
        let mut calls = 0;
        let stat = time(3, 0.0, || calls += 1);
        assert_eq!((calls, stat.runs), (4, 3));
        assert!(stat.min >= 0.0 && stat.min <= stat.median && stat.median <= stat.max);
    }
}
