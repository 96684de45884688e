//! How the examples time a piece of work.

use std::time::Instant;

/// Seconds a call of `work` takes: the median of seven repetitions of at least 20 ms.
pub fn median_seconds(mut work: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..7)
        .map(|_| {
            let start = Instant::now();
            let mut runs = 0;
            while start.elapsed().as_secs_f64() < 0.02 {
                work();
                runs += 1;
            }
            start.elapsed().as_secs_f64() / f64::from(runs)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[3]
}
