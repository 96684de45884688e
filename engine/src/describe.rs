//! A checkpoint in figures and words, and whether it writes text: for `offshoot inspect`.

use std::rc::Rc;

use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::{HeadKind, ModelConfig};
use crate::checkpoint::layout::{ModelLayout, TensorSpec};
use crate::checkpoint::rope::RopeScaling;
use crate::checkpoint::source::{Source, TOKENIZER};
use crate::error::Result;
use crate::text::chat::ChatTemplate;
use crate::text::tokenizer::Tokenizer;

/// A checkpoint in figures and words.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// Directory or embedded model's word.
    pub name: String,
    /// Class name, such as `Qwen2ForCausalLM`.
    pub architecture: String,
    /// Parameters; a tied head counts once.
    pub parameters: usize,
    /// Bytes they take as they are stored.
    pub bytes: usize,
    /// How they are stored.
    pub dtype: &'static str,
    /// How the matrices of linear layers are stored, if in another way.
    pub quantization: Option<&'static str>,
    /// The weight files; empty if there are none.
    pub files: Vec<String>,
    /// Why the weights cannot be read, if they are missing: figures are then the config's.
    pub without_weights: Option<String>,
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// The context length.
    pub context: usize,
    /// Sliding window of some or all layers, in positions.
    pub sliding_window: Option<SlidingWindow>,
    /// How the rotary frequencies are stretched for long contexts.
    pub rope_scaling: Option<&'static str>,
    /// Whether the embedding is the LM head too.
    pub tied_embeddings: bool,
    /// Bytes of K and V for one token, stored as the weights are.
    pub kv_bytes_per_token: usize,
    /// Its tokenizer, if one was opened.
    pub tokenizer: Option<TokenizerSummary>,
    /// What its user should know: sentences about files that contradict each other.
    pub warnings: Vec<String>,
    /// Whether its head writes text.
    #[serde(skip)]
    pub writes: Capability,
}

/// Layers that see only the last positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SlidingWindow {
    /// Positions such a layer sees, the row's own included.
    pub positions: u32,
    /// How many layers have it.
    pub layers: usize,
}

/// A checkpoint's description, and the parts it was made from.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// In figures and words.
    pub description: Description,
    /// Shapes and constants.
    pub config: ModelConfig,
    /// The tokenizer and chat template; `None` where there is only a config.
    pub text: Option<(Rc<Tokenizer>, Rc<ChatTemplate>)>,
}

/// A tokenizer in a few figures.
#[derive(Clone, Debug, Serialize)]
pub struct TokenizerSummary {
    /// One more than the largest id.
    pub vocab: usize,
    /// Text of the token a text begins with.
    pub bos: Option<String>,
    /// Text of the token a text ends with.
    pub eos: Option<String>,
    /// Whether there is a chat template.
    pub chat_template: bool,
}

/// Whether a checkpoint can be used for something, with how or why not as one sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capability {
    /// Whether it can.
    pub can: bool,
    /// How, or why not.
    pub how: String,
}

/// Opens everything in `source` and describes it. A directory without weights, or with only a
/// config, is described from what it has.
///
/// # Errors
/// A config, tokenizer, template or weight file that exists and cannot be used.
pub fn inspect(source: Source) -> Result<Inspected> {
    let checkpoint = match Checkpoint::open(source.clone()) {
        Err(error) if !error.is_missing_weights() => return Err(error),
        opened => opened,
    };
    let config = match &checkpoint {
        Ok(checkpoint) => checkpoint.config.clone(),
        Err(_) => ModelConfig::open(&source)?,
    };
    let text = match &checkpoint {
        Err(_) if source.read(TOKENIZER)?.is_none() => None,
        _ => {
            let tokenizer = Tokenizer::open(&source, Some(&config))?;
            let template = ChatTemplate::open(&source, &tokenizer)?;
            Some((Rc::new(tokenizer), Rc::new(template)))
        }
    };
    let known = match &checkpoint {
        Ok(checkpoint) => checkpoint.eos(),
        Err(_) => &config.eos,
    };
    let eos = match &text {
        Some((tokenizer, _)) => !tokenizer.end_tokens(known).is_empty(),
        None => !known.is_empty(),
    };
    let mut description = from_config(&config, &source.name(), eos);
    match &checkpoint {
        Ok(checkpoint) => {
            description.parameters = checkpoint.params();
            description.bytes = checkpoint.bytes();
            description.files = checkpoint.file_names().map(str::to_string).collect();
            description.warnings = checkpoint.warnings.clone();
        }
        Err(error) => description.without_weights = Some(error.to_string()),
    }
    let warning = text.as_ref().and_then(|(tokenizer, _)| tokenizer.warning());
    description.warnings.extend(warning.map(str::to_string));
    description.tokenizer = text.as_ref().map(|(tokenizer, template)| TokenizerSummary {
        vocab: tokenizer.vocab_size(),
        bos: tokenizer.bos().map(|token| token.text.clone()),
        eos: tokenizer.eos().map(|token| token.text.clone()),
        chat_template: !template.is_plain(),
    });
    Ok(Inspected {
        description,
        config,
        text,
    })
}

/// Describes a config alone: parameters and bytes as they would be without optional tensors. `eos`
/// says whether any token is known to end a text.
pub fn from_config(config: &ModelConfig, name: &str, eos: bool) -> Description {
    let layout = ModelLayout::new(config);
    let needed = layout.tensors().filter(|spec| !spec.optional);
    let parameters: usize = needed.map(TensorSpec::elements).sum();
    let windows: Vec<u32> = config.windows.iter().flatten().copied().collect();
    Description {
        name: name.to_string(),
        architecture: config.architecture.clone(),
        parameters,
        bytes: parameters * config.dtype.bytes(),
        dtype: config.dtype.name(),
        quantization: config.quantization.map(kernels::Quantization::name),
        files: Vec::new(),
        without_weights: None,
        layers: config.layers,
        hidden: config.hidden,
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        vocab: config.vocab,
        context: config.context_length,
        sliding_window: windows.first().map(|&positions| SlidingWindow {
            positions,
            layers: windows.len(),
        }),
        rope_scaling: (config.ropes.iter()).find_map(|rope| match rope.scaling {
            RopeScaling::None => None,
            RopeScaling::Linear { .. } => Some("linear"),
            RopeScaling::Llama3 { .. } => Some("llama3"),
        }),
        tied_embeddings: config.tied_embeddings,
        kv_bytes_per_token: config.kv_bytes_per_token(config.dtype),
        tokenizer: None,
        warnings: Vec::new(),
        writes: writes(config, eos),
    }
}

/// Whether a model with this head writes text; `eos`: whether a token that ends it is known.
fn writes(config: &ModelConfig, eos: bool) -> Capability {
    let (can, how) = match (&config.head, eos) {
        (HeadKind::Causal, true) => (
            true,
            "its LM head writes the next token; a text ends at its eos token",
        ),
        (HeadKind::Causal, false) => (
            true,
            "its LM head writes the next token; it names no eos token, so that a text ends only at a \
             stop string or its length limit",
        ),
        (HeadKind::TokenClassification { .. }, _) => {
            (false, "it classifies tokens and has no LM head")
        }
        (HeadKind::Value, _) => (false, "its head values tokens and writes none"),
        (HeadKind::Process, _) => (false, "its head judges steps and writes nothing"),
    };
    Capability {
        can,
        how: how.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{embedded, golden};

    /// A golden model with the byte-level tokenizer beside it.
    fn with_tokenizer(case: &str) -> Source {
        let (model, tokenizer) = (golden(case), golden("tokenizers/bpe"));
        let mut files = Vec::new();
        for name in ["config.json", "generation_config.json", "model.safetensors"] {
            if let Some(bytes) = model.read(name).expect("readable") {
                files.push((name, bytes.to_vec()));
            }
        }
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            files.push((
                name,
                tokenizer
                    .read(name)
                    .expect("readable")
                    .expect("there")
                    .to_vec(),
            ));
        }
        embedded(files)
    }

    #[test]
    fn golden_models() {
        #[rustfmt::skip]
        let cases = [
            // parameters by hand: embedding, layers of attention, MLP, norms and biases, final
            // norm, head
            ("llama-g1-tied-f32", 320 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 56 + 64) + 32, "float32", 2 * 2 * 32 * 4, true),
            ("qwen2-g1-untied-bf16", 2 * 320 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 56 + 64 + 96) + 32, "bfloat16", 2 * 2 * 32 * 2, true),
            ("llama-g2-score2-f32", 320 * 32 + 2 * (2 * 64 * 32 + 2 * 32 * 32 + 3 * 32 * 56 + 64) + 32 + 2 * 33, "float32", 2 * 2 * 32 * 4, false),
            ("qwen2-g2-score3-bf16", 320 * 32 + 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 56 + 64 + 64) + 32 + 3 * 33, "bfloat16", 2 * 2 * 16 * 2, false),
        ];
        for (case, parameters, dtype, kv, writes) in cases {
            let found = inspect(with_tokenizer(case)).expect(case).description;
            assert_eq!(found.parameters, parameters, "{case}");
            assert_eq!(
                found.bytes,
                parameters * if dtype == "float32" { 4 } else { 2 },
                "{case}"
            );
            assert_eq!(
                (found.dtype, found.kv_bytes_per_token),
                (dtype, kv),
                "{case}"
            );
            assert_eq!(found.writes.can, writes, "{case}: {found:?}");
            let tokenizer = found.tokenizer.as_ref().expect(case);
            assert_eq!(
                (tokenizer.vocab, tokenizer.eos.as_deref()),
                (320, Some("<|eos|>")),
                "{case}"
            );
            assert_eq!(found.files, ["model.safetensors"], "{case}");
        }
    }
}
