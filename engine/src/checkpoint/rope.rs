//! Rotary position embeddings (Su et al. 2021, arXiv 2104.09864): their parameters in a config, and
//! their tables.

use kernels::RopeTable;

use super::json::Fields;
use crate::error::Result;

/// The rotary embedding of a layer: pair `i` turns by `theta^(-2 i / head_dim)` radians a position,
/// stretched by `scaling`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How the frequencies are stretched.
    pub scaling: RopeScaling,
}

/// How the frequencies are stretched for longer contexts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies are divided by `factor`.
    Linear {
        /// How much longer the context is.
        factor: f64,
    },
    /// Llama 3.1's: wavelengths above `original / low` are stretched by `factor`, those below
    /// `original / high` are left, and between the two the frequencies are interpolated.
    Llama3 {
        /// How much longer the context is.
        factor: f64,
        /// `low_freq_factor`.
        low: f64,
        /// `high_freq_factor`.
        high: f64,
        /// `original_max_position_embeddings`.
        original: f64,
    },
}

impl Rope {
    /// Cosines and sines of the first `positions` positions for heads of `head_dim`, in f32 as
    /// transformers computes them: `position * frequency`.
    pub fn table(&self, head_dim: usize, positions: usize) -> RopeTable {
        let half = head_dim / 2;
        let frequencies: Vec<f32> = (0..half)
            .map(|i| self.frequency(head_dim, i) as f32)
            .collect();
        let angles = || (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        RopeTable {
            half_dim: half,
            cos: angles().map(f32::cos).collect(),
            sin: angles().map(f32::sin).collect(),
        }
    }

    /// Radians by which pair `i` turns per position. Llama 3's scaling is that of transformers'
    /// `_compute_llama3_parameters`.
    fn frequency(&self, head_dim: usize, i: usize) -> f64 {
        let plain = self.theta.powf(-2.0 * i as f64 / head_dim as f64);
        match self.scaling {
            RopeScaling::None => plain,
            RopeScaling::Linear { factor } => plain / factor,
            RopeScaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => {
                // How often the pair turns within the original context.
                let turns = original * plain / std::f64::consts::TAU;
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                plain * (kept + (1.0 - kept) / factor)
            }
        }
    }
}

/// Reads `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (transformers 4);
/// `theta` is the base where the config has none.
///
/// # Errors
/// A kind of scaling that is not served, or a field that is not a number.
pub(super) fn read(fields: &Fields, theta: f64) -> Result<Rope> {
    let mut rope = Rope {
        theta: fields.number_above("rope_theta", 0.0)?.unwrap_or(theta),
        scaling: RopeScaling::None,
    };
    for field in ["rope_parameters", "rope_scaling"] {
        if let Some(parameters) = fields.object(field)? {
            let found = read_parameters(fields, &parameters, rope.theta)?;
            rope.theta = found.theta;
            if found.scaling != RopeScaling::None {
                rope.scaling = found.scaling;
            }
        }
    }
    Ok(rope)
}

/// Reads one object of parameters; `theta` is the base where it has none.
///
/// # Errors
/// As of [`read`].
pub(super) fn read_parameters(config: &Fields, parameters: &Fields, theta: f64) -> Result<Rope> {
    let mut scaling = RopeScaling::None;
    for key in ["rope_type", "type"] {
        match parameters.string(key)? {
            None | Some("default") => {}
            Some("linear") => {
                let factor = needed_number(parameters, "factor")?;
                scaling = RopeScaling::Linear { factor };
            }
            Some("llama3") => scaling = llama3(config, parameters)?,
            Some(_) => {
                let expected = "\"default\", \"linear\" or \"llama3\"";
                return Err(parameters.wrong(key, expected));
            }
        }
    }
    if let Some(part) = parameters.number_above("partial_rotary_factor", 0.0)?
        && part != 1.0
    {
        return Err(parameters.wrong(
            "partial_rotary_factor",
            "1: every element of a head is rotated",
        ));
    }
    Ok(Rope {
        theta: parameters.number_above("rope_theta", 0.0)?.unwrap_or(theta),
        scaling,
    })
}

fn needed_number(fields: &Fields, key: &str) -> Result<f64> {
    fields
        .number_above(key, 0.0)?
        .ok_or_else(|| fields.wrong(key, "a number above 0"))
}

/// Llama 3.1's parameters, every one of which must be there.
fn llama3(config: &Fields, rope: &Fields) -> Result<RopeScaling> {
    let number = |key: &str| needed_number(rope, key);
    const ORIGINAL: &str = "original_max_position_embeddings";
    let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
    if low >= high {
        let expected = format!("a number above low_freq_factor = {low}");
        return Err(rope.wrong("high_freq_factor", expected));
    }
    let original = match config.number_above(ORIGINAL, 0.0)? {
        Some(original) => original,
        None => number(ORIGINAL)?,
    };
    Ok(RopeScaling::Llama3 {
        factor: number("factor")?,
        low,
        high,
        original,
    })
}
