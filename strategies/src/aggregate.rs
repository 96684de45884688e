//! From the scores of the steps to the score of a path (SEMANTICS.md, "Aggregations").

use serde::{Deserialize, Serialize};

/// How the scores r₁ … r_T of a path become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// min r_t
    Min,
    /// r_T
    Last,
    /// (r₁ + … + r_T) / T
    Mean,
    /// r₁ · … · r_T
    Product,
}

impl Aggregation {
    /// Every aggregation, in the order in which results are reported.
    pub const ALL: [Aggregation; 4] = [
        Aggregation::Min,
        Aggregation::Last,
        Aggregation::Mean,
        Aggregation::Product,
    ];

    /// The score of a path; −1 for a path without steps, below every probability.
    pub fn of(self, scores: &[f64]) -> f64 {
        let Some(&last) = scores.last() else {
            return -1.0;
        };
        match self {
            Aggregation::Min => scores.iter().copied().fold(f64::INFINITY, f64::min),
            Aggregation::Last => last,
            Aggregation::Mean => scores.iter().sum::<f64>() / scores.len() as f64,
            Aggregation::Product => scores.iter().product(),
        }
    }

    /// The word for it in options and results.
    pub fn name(self) -> &'static str {
        match self {
            Aggregation::Min => "min",
            Aggregation::Last => "last",
            Aggregation::Mean => "mean",
            Aggregation::Product => "product",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Aggregation::{self, *};

    #[test]
    fn aggregation_table() {
        type Case = (&'static [f64], [(Aggregation, f64); 4]);
        let cases: &[Case] = &[
            (
                &[],
                [(Min, -1.0), (Last, -1.0), (Mean, -1.0), (Product, -1.0)],
            ),
            (
                &[0.5],
                [(Min, 0.5), (Last, 0.5), (Mean, 0.5), (Product, 0.5)],
            ),
            (
                &[0.5, 0.25, 1.0, 0.25],
                [(Min, 0.25), (Last, 0.25), (Mean, 0.5), (Product, 0.03125)],
            ),
            (
                &[0.25, 0.5, 0.75],
                [(Min, 0.25), (Last, 0.75), (Mean, 0.5), (Product, 0.09375)],
            ),
            (
                &[-1.0, 3.0],
                [(Min, -1.0), (Last, 3.0), (Mean, 1.0), (Product, -3.0)],
            ),
            (
                &[0.0, 1.0],
                [(Min, 0.0), (Last, 1.0), (Mean, 0.5), (Product, 0.0)],
            ),
        ];
        let mut failures = Vec::new();
        for (scores, expected) in cases {
            for &(aggregation, want) in expected {
                let got = aggregation.of(scores);
                if got != want {
                    failures.push(format!(
                        "{} of {scores:?}: {got}, not {want}",
                        aggregation.name()
                    ));
                }
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}
