//! How sure the policy was of a solution, without a PRM (SEMANTICS.md, "Confidence").

use engine::{Confidence, ConfidenceWindow};
use serde::{Deserialize, Serialize};

/// The confidence of a solution, from those of its tokens, an end-of-sequence token included; in nats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SolutionConfidence {
    /// The mean of its tokens' [`Confidence::self_certainty`] (arXiv 2502.18581, equation 9).
    pub self_certainty: f64,
    /// The mean of [`Confidence::top`] over its last [`Config::confidence_window`](crate::Config)
    /// tokens, or over all where there are fewer (arXiv 2508.15260, section 3.1, "tail confidence").
    pub tail: f64,
    /// The lowest mean of [`Confidence::top`] over so many consecutive tokens, or the mean over all
    /// where there are fewer (section 3.1, "lowest group confidence"; `compute_least_grouped` of the
    /// authors' `helper.py`).
    pub lowest_window: f64,
}

impl SolutionConfidence {
    /// From the confidences of a solution's tokens; `None` of no tokens.
    pub fn of(tokens: &[Confidence], window: usize) -> Option<SolutionConfidence> {
        let mut means = ConfidenceWindow::new(window);
        let mut lowest = f64::INFINITY;
        for token in tokens {
            lowest = means
                .push(token.top)
                .map_or(lowest, |mean| mean.min(lowest));
        }
        let tail = means.mean()?;
        let certainty: f64 = tokens.iter().map(|c| f64::from(c.self_certainty)).sum();
        Some(SolutionConfidence {
            self_certainty: certainty / tokens.len() as f64,
            tail,
            lowest_window: if lowest.is_finite() { lowest } else { tail },
        })
    }
}

/// DeepConf's bar: the percentile 100 − η of the lowest windows of the warm-up's solutions, of which η
/// percent are then at or above it. Between two values it is interpolated, as by numpy's `percentile`.
/// Of no values it is below everything.
pub(crate) fn bar(lowest_windows: &[f64], eta: f64) -> f64 {
    let mut sorted = lowest_windows.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = sorted.len().saturating_sub(1) as f64 * (100.0 - eta) / 100.0;
    let (below, part) = (place.floor() as usize, place.fract());
    match (sorted.get(below), sorted.get(below + 1)) {
        (Some(&low), Some(&high)) => low + (high - low) * part,
        (Some(&low), None) => low,
        _ => f64::NEG_INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solution_table() {
        // (top of each token, window, tail, lowest window)
        type Case = (&'static [f32], usize, Option<(f64, f64)>);
        let cases: &[Case] = &[
            (&[], 2, None),
            (&[3.0], 2, Some((3.0, 3.0))),
            (&[3.0, 1.0], 2, Some((2.0, 2.0))),
            (&[3.0, 1.0, 2.0, 6.0], 2, Some((4.0, 1.5))),
            (&[3.0, 1.0, 2.0, 6.0], 1, Some((6.0, 1.0))),
            // Shorter than a window: one mean over all.
            (&[3.0, 1.0, 2.0, 6.0], 2048, Some((3.0, 3.0))),
        ];
        for &(tops, window, expected) in cases {
            let tokens: Vec<Confidence> = (tops.iter())
                .map(|&top| Confidence {
                    self_certainty: 2.0 * top,
                    top,
                })
                .collect();
            let found = SolutionConfidence::of(&tokens, window);
            let pair = found.map(|c| (c.tail, c.lowest_window));
            assert_eq!(pair, expected, "{tops:?}, {window}");
            let mean = tops.iter().map(|&t| f64::from(2.0 * t)).sum::<f64>() / tops.len() as f64;
            assert!(found.is_none_or(|c| c.self_certainty == mean), "{tops:?}");
        }
    }

    /// The expected values are numpy's `percentile(values, 100 - eta)`.
    #[test]
    fn bar_table() {
        let four = &[4.0, 1.0, 3.0, 2.0][..];
        for (values, eta, expected) in [
            (&[][..], 90.0, f64::NEG_INFINITY),
            (&[7.0], 90.0, 7.0),
            (&[7.0], 10.0, 7.0),
            (four, 100.0, 1.0),
            (four, 90.0, 1.3),
            (four, 50.0, 2.5),
            (four, 10.0, 3.7),
            (&[2.0, 2.0, 2.0], 10.0, 2.0),
        ] {
            let found = bar(values, eta);
            let same = found == expected || (found - expected).abs() < 1e-12;
            assert!(same, "{values:?}, {eta}: {found}, not {expected}");
        }
    }
}
