//! Instance-adaptive scaling: as many candidates as the probability of success asks for.
//!
//! Park et al., *Know What You Don't Know: Uncertainty Calibration of Process Reward Models* (arXiv
//! 2506.09338); the bounds of a probability are those of the authors' code (`utils/ias.py`). The
//! probabilities are a PRM's calibrated scores ([`Isotonic`](crate::Isotonic)).

/// How far a probability is held from 0 and 1.
const CLIP: f64 = 1e-4;

/// The independent solutions of which one at least is right with probability `confidence`, if each is
/// with probability `p`: ⌈ln(1 − confidence) / ln(1 − p)⌉.
pub(crate) fn solutions_needed(p: f64, confidence: f64) -> usize {
    let p = p.clamp(CLIP, 1.0 - CLIP);
    ((1.0 - confidence).ln() / (1.0 - p).ln()).ceil() as usize
}

/// K and M of a round of beam search over candidates with these probabilities of success: the fewest
/// best ones, at most `slots`, of which the last, as often as K · `max_width` times, suffices; and their
/// children, at most `max_width`, so that it suffices with K · M. K is 0 without candidates or slots.
pub(crate) fn beam_shape(
    probabilities: &[f64],
    slots: usize,
    max_width: usize,
    confidence: f64,
) -> (usize, usize) {
    let mut best = probabilities.to_vec();
    best.sort_by(|a, b| b.total_cmp(a));
    let (mut kept, mut width) = (0, max_width);
    for p in best.into_iter().take(slots) {
        let needed = solutions_needed(p, confidence);
        kept += 1;
        width = needed.div_ceil(kept).min(max_width);
        if kept.saturating_mul(max_width) >= needed {
            break;
        }
    }
    (kept, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solutions_needed_table() {
        // ln 0.01 = -4.605; ln 0.5 = -0.693: 6.64. ln 0.25 is twice that.
        for (p, confidence, expected) in [
            (0.5, 0.99, 7),
            (0.5, 0.75, 2),
            (0.91, 0.99, 2),
            (0.2, 0.9, 11),
            // Held to 1 - 1e-4 and to 1e-4: 4.605 / 1.00005e-4.
            (1.0, 0.99, 1),
            (2.0, 0.99, 1),
            (0.0, 0.99, 46_050),
            (-1.0, 0.5, 6_932),
        ] {
            assert_eq!(
                solutions_needed(p, confidence),
                expected,
                "{p} {confidence}"
            );
        }
    }

    #[test]
    fn beam_shape_table() {
        // With a confidence of 0.99: 0.99 needs 1, 0.8 needs 3, 0.5 needs 7, 0.3 needs 13, 0.1 needs 44.
        type Case = (&'static [f64], usize, usize, (usize, usize));
        let cases: &[Case] = &[
            (&[], 4, 4, (0, 4)),
            (&[0.9], 0, 4, (0, 4)),
            // One path with few children; with as many as it may have.
            (&[0.1, 0.995], 4, 4, (1, 1)),
            (&[0.8, 0.1], 4, 4, (1, 3)),
            // 4 are fewer than 7; the second path needs 13, and 8 are fewer; the third 13, with 12.
            (&[0.5, 0.3, 0.3, 0.1], 4, 4, (4, 4)),
            // The second path's 7 are within 8: 4 children each.
            (&[0.5, 0.5, 0.5], 4, 4, (2, 4)),
            (&[0.5, 0.5, 0.5], 1, 4, (1, 4)),
            // Two of 8 children would do for 13, and 7 each are enough.
            (&[0.3, 0.3], 4, 8, (2, 7)),
        ];
        for &(probabilities, slots, max_width, expected) in cases {
            let found = beam_shape(probabilities, slots, max_width, 0.99);
            assert_eq!(found, expected, "{probabilities:?} {slots} {max_width}");
        }
    }
}
