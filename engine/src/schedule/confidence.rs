//! Confidences of a generation's tokens: recorded, and a bar that ends it.

use std::collections::VecDeque;

/// What a generation does with the confidences of its tokens ([`kernels::Confidence`]).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Confidences {
    /// They are not computed.
    #[default]
    None,
    /// They are computed and returned.
    Record,
    /// As [`Confidences::Record`], and the generation ends with
    /// [`Finish::LowConfidence`](crate::Finish::LowConfidence) at the first token at which the mean of
    /// [`kernels::Confidence::top`] over the last `window` tokens is below `bar`. Fewer tokens than
    /// `window` end nothing (DeepConf, arXiv 2508.15260, section 3.2).
    StopBelow {
        /// In nats.
        bar: f64,
        /// In tokens, at least 1.
        window: usize,
    },
}

/// The mean over the last tokens of a text, token by token. The same numbers give the same bits, so a
/// mean that is compared with another later agrees with one that was compared on the way.
#[derive(Clone, Debug)]
pub struct ConfidenceWindow {
    window: usize,
    last: VecDeque<f32>,
    sum: f64,
}

impl ConfidenceWindow {
    /// Over `window` tokens; 0 is as 1.
    pub fn new(window: usize) -> ConfidenceWindow {
        ConfidenceWindow {
            window: window.max(1),
            last: VecDeque::new(),
            sum: 0.0,
        }
    }

    /// Takes the next token's number; the mean once there are `window` of them.
    pub fn push(&mut self, value: f32) -> Option<f64> {
        self.sum += f64::from(value);
        self.last.push_back(value);
        if self.last.len() > self.window {
            self.sum -= self.last.pop_front().map_or(0.0, f64::from);
        }
        (self.last.len() == self.window).then(|| self.sum / self.window as f64)
    }

    /// The mean over what there is, at most the last `window` tokens; `None` of nothing.
    pub fn mean(&self) -> Option<f64> {
        (!self.last.is_empty()).then(|| self.sum / self.last.len() as f64)
    }
}

impl Confidences {
    /// Whether tokens' confidences are computed.
    pub fn are_wanted(self) -> bool {
        self != Confidences::None
    }

    /// The bar and the window behind it, if there is a bar.
    pub(crate) fn bar(self) -> Option<(f64, ConfidenceWindow)> {
        match self {
            Confidences::StopBelow { bar, window } => Some((bar, ConfidenceWindow::new(window))),
            Confidences::None | Confidences::Record => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_table() {
        type Case = (usize, &'static [f32], &'static [Option<f64>], Option<f64>);
        let cases: &[Case] = &[
            (3, &[], &[], None),
            (1, &[2.0, 4.0], &[Some(2.0), Some(4.0)], Some(4.0)),
            (0, &[2.0, 4.0], &[Some(2.0), Some(4.0)], Some(4.0)),
            (3, &[1.0, 2.0], &[None, None], Some(1.5)),
            (
                3,
                &[1.0, 2.0, 6.0, 1.0],
                &[None, None, Some(3.0), Some(3.0)],
                Some(3.0),
            ),
        ];
        for &(window, values, means, mean) in cases {
            let mut found = ConfidenceWindow::new(window);
            let pushed: Vec<_> = values.iter().map(|&value| found.push(value)).collect();
            assert_eq!(pushed, means, "{window}: {values:?}");
            assert_eq!(found.mean(), mean, "{window}: {values:?}");
        }
    }
}
