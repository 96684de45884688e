//! What a checkpoint is and what it can be used for, for `offshoot inspect`.

use serde::Serialize;

use crate::arch;
use crate::chat::ChatTemplate;
use crate::checkpoint::Checkpoint;
use crate::config::{HeadKind, ModelConfig};
use crate::error::Result;
use crate::source::Source;
use crate::tokenizer::Tokenizer;

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
    /// The weight files; empty if only the config was read.
    pub files: Vec<String>,
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
    /// Positions the model was made for.
    pub context: usize,
    /// Whether the embedding is the LM head too.
    pub tied_embeddings: bool,
    /// Bytes of K and V for one token, stored as the weights are.
    pub kv_bytes_per_token: usize,
    /// Its tokenizer, if one was opened.
    pub tokenizer: Option<TokenizerSummary>,
    /// Whether it can write solutions.
    pub policy: Verdict,
    /// Whether it can score steps.
    pub prm: Verdict,
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

/// Whether a checkpoint can serve in a part, with how or why not as one sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether it can.
    pub can: bool,
    /// How, or why not.
    pub how: String,
}

/// Opens everything in `source` and describes it.
pub fn inspect(source: Source) -> Result<Description> {
    let checkpoint = Checkpoint::open(source)?;
    let tokenizer = Tokenizer::open(checkpoint.source(), Some(&checkpoint.config))?;
    let template = ChatTemplate::open(checkpoint.source(), &tokenizer)?;
    let eos = !checkpoint.eos().is_empty() || tokenizer.eos().is_some();
    let mut description = from_config(&checkpoint.config, &checkpoint.source().name(), eos);
    description.parameters = checkpoint.params();
    description.bytes = checkpoint.bytes();
    description.files = checkpoint.file_names().map(str::to_string).collect();
    description.tokenizer = Some(TokenizerSummary {
        vocab: tokenizer.vocab_size(),
        bos: tokenizer.bos().map(|token| token.text.clone()),
        eos: tokenizer.eos().map(|token| token.text.clone()),
        chat_template: !template.is_plain(),
    });
    Ok(description)
}

/// What a config alone tells: parameters and bytes as they would be without optional tensors. `eos`
/// says whether any token is known to end a text.
pub fn from_config(config: &ModelConfig, name: &str, eos: bool) -> Description {
    let needed = arch::tensors(config)
        .into_iter()
        .filter(|spec| !spec.optional);
    let parameters = needed
        .map(|spec| spec.shape.iter().product::<usize>())
        .sum::<usize>();
    let (policy, prm) = verdicts(config, eos);
    Description {
        name: name.to_string(),
        architecture: config.architecture.clone(),
        parameters,
        bytes: parameters * config.dtype.bytes(),
        dtype: config.dtype.name(),
        files: Vec::new(),
        layers: config.layers,
        hidden: config.hidden,
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        vocab: config.vocab,
        context: config.max_positions,
        tied_embeddings: config.tied_embeddings,
        kv_bytes_per_token: config.kv_bytes_per_token(config.dtype),
        tokenizer: None,
        policy,
        prm,
    }
}

/// Policy and PRM.
fn verdicts(config: &ModelConfig, eos: bool) -> (Verdict, Verdict) {
    let can = |how: &str| Verdict {
        can: true,
        how: how.to_string(),
    };
    let cannot = |why: String| Verdict {
        can: false,
        how: why,
    };
    match &config.head {
        HeadKind::Causal if eos => (
            can("its LM head writes the next token; a text ends at its eos token"),
            cannot("it has an LM head and no score head".to_string()),
        ),
        HeadKind::Causal => (
            can(
                "its LM head writes the next token; it names no eos token, so that a text ends only \
                 at a stop string or its length limit",
            ),
            cannot("it has an LM head and no score head".to_string()),
        ),
        HeadKind::TokenClassification { labels } => {
            let policy = cannot("it classifies tokens and has no LM head".to_string());
            match labels.as_slice() {
                [_, good] => {
                    let how = format!(
                        "the probability of its label 1 ({good}) of 2 at the last token of a step"
                    );
                    (policy, can(&how))
                }
                labels => {
                    let why = format!(
                        "its score head has {} labels; expected 2, wrong and right",
                        labels.len()
                    );
                    (policy, cannot(why))
                }
            }
        }
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
            // parameters by hand: embedding, layers of attention, MLP, norms and biases, final norm, head
            ("llama-g1-tied-f32", 320 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 56 + 64) + 32, "float32", 2 * 2 * 32 * 4, true, false),
            ("qwen2-g1-untied-bf16", 2 * 320 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 56 + 64 + 96) + 32, "bfloat16", 2 * 2 * 32 * 2, true, false),
            ("llama-g2-score2-f32", 320 * 32 + 2 * (2 * 64 * 32 + 2 * 32 * 32 + 3 * 32 * 56 + 64) + 32 + 2 * 33, "float32", 2 * 2 * 32 * 4, false, true),
            ("qwen2-g2-score3-bf16", 320 * 32 + 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 56 + 64 + 64) + 32 + 3 * 33, "bfloat16", 2 * 2 * 16 * 2, false, false),
        ];
        for (case, parameters, dtype, kv, policy, prm) in cases {
            let found = inspect(with_tokenizer(case)).expect(case);
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
            assert_eq!(
                (found.policy.can, found.prm.can),
                (policy, prm),
                "{case}: {found:?}"
            );
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
