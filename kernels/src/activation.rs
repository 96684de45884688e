//! The activations of gated feed-forward layers.

/// The function that a gated layer applies to its gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x / (1 + e^-x)`, the sigmoid linear unit (Elfwing et al. 2017, arXiv 1702.03118): SwiGLU.
    Silu,
    /// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`, the Gaussian error linear unit in its
    /// tanh form (Hendrycks and Gimpel 2016, arXiv 1606.08415): GeGLU.
    ///
    /// Backends compute it as `x / (1 + e^-y)` with `y = GELU_LINEAR x + GELU_CUBIC x^3`: the same,
    /// since `(1 + tanh(y / 2)) / 2 = 1 / (1 + e^-y)`, without the cancellation of `1 + tanh` for
    /// negative `x`.
    GeluTanh,
}

/// `2 sqrt(2 / pi)`.
pub(crate) const GELU_LINEAR: f32 = 1.595_769_2;
/// `2 sqrt(2 / pi) * 0.044715`.
pub(crate) const GELU_CUBIC: f32 = 0.071_354_814;

impl Activation {
    /// All of them.
    pub const ALL: [Activation; 2] = [Activation::Silu, Activation::GeluTanh];

    /// The name used in Hugging Face's configs and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Activation::Silu => "silu",
            Activation::GeluTanh => "gelu_pytorch_tanh",
        }
    }

    /// The activation of a config's `hidden_act`, which spells some of them in several ways.
    pub fn find(name: &str) -> Option<Activation> {
        match name {
            "silu" | "swish" => Some(Activation::Silu),
            "gelu_pytorch_tanh" => Some(Activation::GeluTanh),
            _ => None,
        }
    }
}
