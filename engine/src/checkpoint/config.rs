//! `config.json`: a model's shapes and constants.

use kernels::{Activation, Dtype, Quantization};
use serde_json::Value;

use super::arch::{self, Architecture, Scales, Task, TensorNames};
use super::json::Fields;
use super::quantization;
use super::rope::Rope;
use super::source::Source;
use crate::error::Result;

/// Bounds on a config's numbers. They are far above any model that exists, and low enough that
/// multiplying them neither overflows nor allocates absurd memory before shapes are compared.
mod limit {
    pub const HIDDEN: usize = 1 << 16;
    pub const LAYERS: usize = 1 << 10;
    pub const HEADS: usize = 1 << 10;
    pub const HEAD_DIM: usize = 1 << 10;
    pub const INTERMEDIATE: usize = 1 << 20;
    pub const VOCAB: usize = 1 << 21;
    pub const POSITIONS: usize = 1 << 24;
    pub const LABELS: usize = 1 << 10;
}

/// The output of a model's last layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// Logits of the next token, through `lm_head` or the embedding itself.
    Causal,
    /// One logit per label for every token, through `score`.
    TokenClassification {
        /// The labels' names, in the order of the logits.
        labels: Vec<String>,
    },
    /// One number for every token, through `v_head.summary` (Skywork's PRMs).
    Value,
    /// Two logits for every token, through `score.0`, a rectifier and `score.2`
    /// (Qwen2.5-Math-PRM).
    Process,
}

/// A model's shapes and constants.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// Class name, such as `Qwen2ForCausalLM`.
    pub architecture: String,
    /// Whether the config names the class itself; else it is the one of its `model_type`.
    pub(super) class_is_named: bool,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of one head; even. Not always `hidden / heads`.
    pub head_dim: usize,
    /// Width of the MLP.
    pub intermediate: usize,
    /// Rows of the embedding. A tokenizer may have fewer tokens.
    pub vocab: usize,
    /// Tokens of a sequence that the model was trained for (`max_position_embeddings`).
    pub context_length: usize,
    /// The rotary embedding of each layer.
    pub ropes: Vec<Rope>,
    /// The function applied to the gates of the feed-forward network.
    pub activation: Activation,
    /// Positions that each layer sees, the row's own included; `None`: all before it.
    pub windows: Vec<Option<u32>>,
    /// Whether query and key heads are normalised before rotation.
    pub qk_norm: bool,
    /// Added to the mean square in RMS norms.
    pub rms_eps: f32,
    /// Added to the weights of all RMS norms: 1 where a checkpoint stores `w` of a factor `1 + w`.
    pub norm_offset: f32,
    /// Numbers that scale or bound intermediate values.
    pub scales: Scales,
    /// Whether the embedding is the LM head too.
    pub tied_embeddings: bool,
    /// Whether query, key and value projections have biases.
    pub attention_bias: bool,
    /// Whether the attention's output projection has a bias.
    pub output_bias: bool,
    /// Whether gate, up and down projections have biases.
    pub mlp_bias: bool,
    /// How the weights are stored: as the config says, float32 by default. After
    /// [`super::Checkpoint::open`] it is the embedding's own type.
    pub dtype: Dtype,
    /// How matrices are stored that are not of that type.
    pub quantization: Option<Quantization>,
    /// The output of the last layer.
    pub head: HeadKind,
    /// Token that begins a text, if the config names one.
    pub bos: Option<u32>,
    /// Tokens that end a text, if the config names any.
    pub eos: Vec<u32>,
    family: &'static Architecture,
}

impl ModelConfig {
    /// The name of the file.
    pub const FILE: &str = "config.json";

    /// Reads the config of `source`.
    pub fn open(source: &Source) -> Result<ModelConfig> {
        let bytes = source
            .read(Self::FILE)?
            .ok_or_else(|| crate::error::Error::MissingFile {
                place: source.name(),
                file: Self::FILE.to_string(),
                expected: "a model is a directory in Hugging Face's layout".to_string(),
            })?;
        ModelConfig::parse(source.place(Self::FILE), &bytes)
    }

    /// Reads the content of a `config.json`; `file` names it in messages. Fields are taken as
    /// transformers 4 and as transformers 5 write them; defaults are transformers'.
    pub fn parse(file: String, bytes: &[u8]) -> Result<ModelConfig> {
        let fields = Fields::parse(file, bytes)?;
        let found = arch::find(&fields)?;
        let family = found.architecture;
        let quantization = quantization::of_config(&fields)?;
        let hidden = fields.needed_count("hidden_size", limit::HIDDEN)?;
        let heads = fields.needed_count("num_attention_heads", limit::HEADS)?;
        let kv_heads = fields
            .count("num_key_value_heads", limit::HEADS)?
            .unwrap_or(heads);
        if heads % kv_heads != 0 {
            let expected = format!("a divisor of num_attention_heads = {heads}");
            return Err(fields.wrong("num_key_value_heads", expected));
        }
        let layers = fields.needed_count("num_hidden_layers", limit::LAYERS)?;
        let head_dim = match (fields.count("head_dim", limit::HEAD_DIM)?).or(family.head_dim) {
            Some(dim) if dim % 2 == 0 => dim,
            Some(_) => return Err(fields.wrong("head_dim", "an even number")),
            None if hidden % (2 * heads) == 0 => hidden / heads,
            None => {
                let expected = format!(
                    "an even multiple of num_attention_heads = {heads}, or an explicit head_dim"
                );
                return Err(fields.wrong("hidden_size", expected));
            }
        };
        let biases = (family.biases)(&fields)?;
        let windows = (family.windows)(&fields, layers)?;
        Ok(ModelConfig {
            architecture: found.class.to_string(),
            class_is_named: found.named,
            hidden,
            layers,
            heads,
            kv_heads,
            head_dim,
            intermediate: fields.needed_count("intermediate_size", limit::INTERMEDIATE)?,
            vocab: fields.needed_count("vocab_size", limit::VOCAB)?,
            context_length: fields.needed_count("max_position_embeddings", limit::POSITIONS)?,
            ropes: (family.ropes)(&fields, &windows)?,
            activation: activation(&fields)?.unwrap_or(family.activation),
            windows,
            qk_norm: family.qk_norm,
            rms_eps: fields.number_above("rms_norm_eps", 0.0)?.unwrap_or(1e-6) as f32,
            norm_offset: family.norm_offset,
            scales: without_soft_caps(&fields, (family.scales)(&fields, hidden, head_dim)?)?,
            tied_embeddings: (fields.boolean("tie_word_embeddings")?)
                .unwrap_or(family.tied_embeddings),
            attention_bias: biases.qkv,
            output_bias: biases.output,
            mlp_bias: biases.mlp,
            dtype: dtype(&fields)?,
            quantization,
            head: match found.task {
                Task::Causal => HeadKind::Causal,
                Task::TokenClassification => HeadKind::TokenClassification {
                    labels: labels(&fields)?,
                },
                Task::Value => HeadKind::Value,
                Task::Process => HeadKind::Process,
            },
            bos: fields.token_ids("bos_token_id")?.first().copied(),
            eos: fields.token_ids("eos_token_id")?,
            family,
        })
    }

    /// Where the model's tensors are in its checkpoint.
    pub fn names(&self) -> &'static TensorNames {
        self.family.names
    }

    /// Bytes of K and V that one token takes over all layers, stored as `dtype`.
    pub fn kv_bytes_per_token(&self, dtype: Dtype) -> usize {
        2 * self.layers * self.kv_heads * self.head_dim * dtype.bytes()
    }
}

/// `hidden_act`, or `hidden_activation` as Gemma's configs have it.
fn activation(fields: &Fields) -> Result<Option<Activation>> {
    for field in ["hidden_activation", "hidden_act"] {
        if let Some(name) = fields.string(field)? {
            let names = Activation::ALL.map(|activation| format!("{:?}", activation.name()));
            let wrong = || fields.wrong(field, names.join(" or "));
            return Activation::find(name).ok_or_else(wrong).map(Some);
        }
    }
    Ok(None)
}

/// Refuses soft caps: no backend has them.
fn without_soft_caps(fields: &Fields, scales: Scales) -> Result<Scales> {
    for (cap, field) in [
        (scales.attention_soft_cap, "attn_logit_softcapping"),
        (scales.logit_soft_cap, "final_logit_softcapping"),
    ] {
        if cap.is_some() {
            return Err(fields.wrong(field, "null: soft caps are not supported"));
        }
    }
    Ok(scales)
}

/// `dtype` (transformers 5) or `torch_dtype` (transformers 4).
fn dtype(fields: &Fields) -> Result<Dtype> {
    for field in ["dtype", "torch_dtype"] {
        match fields
            .string(field)?
            .map(|name| name.trim_start_matches("torch."))
        {
            None | Some("auto") => {}
            Some("float32") => return Ok(Dtype::F32),
            Some("bfloat16") => return Ok(Dtype::Bf16),
            Some("float16") => return Ok(Dtype::F16),
            Some(_) => {
                let expected = "\"float32\", \"bfloat16\" or \"float16\"";
                return Err(fields.wrong(field, expected));
            }
        }
    }
    Ok(Dtype::F32)
}

/// Label names in the order of their numbers, from `id2label`; two unnamed ones by default.
fn labels(fields: &Fields) -> Result<Vec<String>> {
    const EXPECTED: &str = "an object of label names by number, {\"0\": ..., \"1\": ...}";
    let count = match fields.object("id2label")? {
        None => fields.count("num_labels", limit::LABELS)?.unwrap_or(2),
        Some(map) => {
            let count = map.entries().count();
            if !(1..=limit::LABELS).contains(&count) {
                return Err(fields.wrong("id2label", EXPECTED));
            }
            let mut labels = vec![None; count];
            for (id, label) in map.entries() {
                let slot = id.parse::<usize>().ok().and_then(|id| labels.get_mut(id));
                let slot = slot.ok_or_else(|| fields.wrong("id2label", EXPECTED))?;
                *slot = Some(match label {
                    Value::String(name) => name.clone(),
                    other => other.to_string(),
                });
            }
            let labels: Option<Vec<String>> = labels.into_iter().collect();
            return labels.ok_or_else(|| fields.wrong("id2label", EXPECTED));
        }
    };
    Ok((0..count).map(|i| format!("LABEL_{i}")).collect())
}

#[cfg(test)]
mod tests {
    use super::super::rope::RopeScaling;
    use super::*;
    use serde_json::json;

    /// A Llama's config with some fields replaced; `null` removes one.
    fn config(changes: Value) -> Result<ModelConfig, String> {
        let mut config = json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 96,
            "vocab_size": 320, "max_position_embeddings": 128, "torch_dtype": "bfloat16",
        });
        for (field, value) in changes.as_object().into_iter().flatten() {
            config[field] = value.clone();
        }
        ModelConfig::parse("c".into(), config.to_string().as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn accepted() {
        type Check = fn(&ModelConfig) -> bool;
        let qwen2 = |more: Value| {
            let mut changes = json!({"architectures": ["Qwen2ForCausalLM"], "sliding_window": 64});
            for (field, value) in more.as_object().into_iter().flatten() {
                changes[field] = value.clone();
            }
            changes
        };
        #[rustfmt::skip]
        let cases: Vec<(Value, Check)> = vec![
            (json!({}), |c| c.head_dim == 8 && c.kv_heads == 2 && c.dtype == Dtype::Bf16 && c.ropes[0].theta == 1e4),
            (json!({}), |c| !c.attention_bias && !c.output_bias && !c.mlp_bias && !c.tied_embeddings && c.rms_eps == 1e-6),
            (json!({"num_key_value_heads": null}), |c| c.kv_heads == 8),
            (json!({"head_dim": 32}), |c| c.head_dim == 32),
            (json!({"head_dim": null}), |c| c.head_dim == 8),
            (json!({"rope_theta": 5e5, "rope_scaling": null}), |c| c.ropes[0].theta == 5e5),
            (json!({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}), |c| c.ropes[0].theta == 1e6),
            (json!({"rope_theta": 7, "rope_parameters": {"rope_type": "default"}}), |c| c.ropes[0].theta == 7.0),
            (json!({"torch_dtype": null, "dtype": "float32"}), |c| c.dtype == Dtype::F32),
            (json!({"torch_dtype": null}), |c| c.dtype == Dtype::F32),
            (json!({"attention_bias": true}), |c| c.attention_bias && c.output_bias && !c.mlp_bias),
            (json!({"mlp_bias": true}), |c| !c.attention_bias && c.mlp_bias),
            (json!({"sliding_window": 64}), |c| c.architecture == "LlamaForCausalLM"),
            (json!({"eos_token_id": [3, 4], "bos_token_id": -1}), |c| c.eos == [3, 4] && c.bos.is_none()),
            (json!({"architectures": null, "model_type": "llama"}), |c| c.architecture == "LlamaForCausalLM"),
            (json!({"architectures": [], "model_type": "qwen2"}), |c| c.architecture == "Qwen2ForCausalLM" && c.attention_bias),
            (json!({"architectures": ["LlamaForCausalLM"], "model_type": "gpt2"}), |c| c.architecture == "LlamaForCausalLM"),
            (json!({"eos_token_id": [3, 4], "bos_token_id": 1}), |c| c.eos == [3, 4] && c.bos == Some(1)),
            (json!({"architectures": ["Other", "LlamaForTokenClassification"]}),
             |c| c.head == HeadKind::TokenClassification { labels: vec!["LABEL_0".into(), "LABEL_1".into()] }),
            (json!({"architectures": ["Qwen2ForTokenClassification"], "id2label": {"1": "good", "0": "bad"}}),
             |c| c.head == HeadKind::TokenClassification { labels: vec!["bad".into(), "good".into()] }),
            (qwen2(json!({})), |c| c.attention_bias && !c.output_bias && !c.mlp_bias),
            (qwen2(json!({"use_sliding_window": false})), |c| c.attention_bias),
            (qwen2(json!({"max_window_layers": 0})), |c| c.windows == [None, None]),
            (qwen2(json!({"use_sliding_window": true})), |c| c.windows == [None, None]),
            (qwen2(json!({"use_sliding_window": true, "max_window_layers": 1})), |c| c.windows == [None, Some(64)]),
            (qwen2(json!({"use_sliding_window": true, "layer_types": ["sliding_attention", "full_attention"], "max_window_layers": 0})),
             |c| c.windows == [Some(64), None]),
            (json!({"architectures": ["MistralForCausalLM"], "sliding_window": 9}), |c| c.windows == [Some(9); 2] && !c.attention_bias),
            (json!({"architectures": ["MistralForCausalLM"]}), |c| c.windows == [Some(4096); 2]),
            (json!({"architectures": ["MistralForCausalLM"], "sliding_window": null}), |c| c.windows == [None; 2]),
            (json!({"architectures": ["Qwen3ForCausalLM"], "head_dim": null}), |c| c.qk_norm && c.head_dim == 128 && !c.attention_bias),
            (json!({"architectures": ["Qwen3ForCausalLM"], "attention_bias": true}), |c| c.attention_bias && c.output_bias),
            (json!({"architectures": ["Qwen2ForPrmModel"]}), |c| c.head == HeadKind::Value && c.attention_bias),
            (json!({"architectures": ["Qwen2ForProcessRewardModel"]}), |c| c.head == HeadKind::Process),
            (json!({"torch_dtype": "float16"}), |c| c.dtype == Dtype::F16),
            (json!({"rope_scaling": {"rope_type": "llama3", "factor": 32, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192}}),
             |c| c.ropes[1].scaling == RopeScaling::Llama3 { factor: 32.0, low: 1.0, high: 4.0, original: 8192.0 }),
            (json!({"rope_scaling": {"type": "linear", "factor": 2}}), |c| c.ropes[0].scaling == RopeScaling::Linear { factor: 2.0 }),
            (json!({"hidden_act": "swish"}), |c| c.activation == Activation::Silu),
            (json!({"architectures": ["Gemma3ForCausalLM"]}),
             |c| c.activation == Activation::GeluTanh && c.tied_embeddings && c.qk_norm && c.norm_offset == 1.0 && c.head_dim == 256),
            (json!({"architectures": ["Gemma3ForCausalLM"], "hidden_activation": "silu", "tie_word_embeddings": false}),
             |c| c.activation == Activation::Silu && !c.tied_embeddings),
            (json!({"architectures": ["Gemma3ForCausalLM"], "sliding_window": 9, "rope_theta": 7}),
             |c| c.windows == [Some(9); 2] && c.ropes[0].theta == 1e4 && c.scales.embedding == 8.0 && c.scales.query_scalar == 256),
        ];
        for (changes, check) in cases {
            match config(changes.clone()) {
                Ok(parsed) => assert!(check(&parsed), "{changes}: {parsed:?}"),
                Err(error) => panic!("{changes}: {error}"),
            }
        }
    }

    #[test]
    fn refused() {
        #[rustfmt::skip]
        let cases = [
            (json!({"architectures": ["GPT2LMHeadModel"]}),
             "c: the architecture GPT2LMHeadModel is not supported; known are LlamaForCausalLM, LlamaForTokenClassification, MistralForCausalLM, MistralForTokenClassification, Qwen2ForCausalLM, Qwen2ForTokenClassification, Qwen2ForPrmModel, Qwen2ForProcessRewardModel, Qwen3ForCausalLM, Qwen3ForTokenClassification, Gemma3ForCausalLM"),
            (json!({"architectures": null}), "c: `architectures` is null; expected a list of class names such as [\"LlamaForCausalLM\"]"),
            (json!({"architectures": null, "model_type": "gpt2"}),
             "c: `model_type` is \"gpt2\"; expected one of llama, mistral, qwen2, qwen3, gemma3_text, or a class in architectures"),
            (json!({"architectures": [], "model_type": 3}), "c: `model_type` is 3; expected a string"),
            (json!({"architectures": []}), "c: `architectures` is []; expected a list of class names such as [\"LlamaForCausalLM\"]"),
            (json!({"architectures": [1]}), "c: `architectures` is [1]; expected a list of class names such as [\"LlamaForCausalLM\"]"),
            (json!({"hidden_size": null}), "c: `hidden_size` is null; expected a whole number from 1 to 65536"),
            (json!({"hidden_size": 0}), "c: `hidden_size` is 0; expected a whole number from 1 to 65536"),
            (json!({"hidden_size": 64.5}), "c: `hidden_size` is 64.5; expected a whole number from 1 to 65536"),
            (json!({"hidden_size": 60}), "c: `hidden_size` is 60; expected an even multiple of num_attention_heads = 8, or an explicit head_dim"),
            (json!({"head_dim": 7}), "c: `head_dim` is 7; expected an even number"),
            (json!({"num_key_value_heads": 3}), "c: `num_key_value_heads` is 3; expected a divisor of num_attention_heads = 8"),
            (json!({"num_hidden_layers": 4000000000u64}), "c: `num_hidden_layers` is 4000000000; expected a whole number from 1 to 1024"),
            (json!({"vocab_size": -1}), "c: `vocab_size` is -1; expected a whole number from 1 to 2097152"),
            (json!({"hidden_act": "gelu"}), "c: `hidden_act` is \"gelu\"; expected \"silu\" or \"gelu_pytorch_tanh\""),
            (json!({"rms_norm_eps": 0}), "c: `rms_norm_eps` is 0; expected a number above 0"),
            (json!({"rms_norm_eps": "1e-5"}), "c: `rms_norm_eps` is \"1e-5\"; expected a number above 0"),
            (json!({"rope_scaling": {"rope_type": "llama3", "factor": 8}}),
             "c: `rope_scaling.low_freq_factor` is missing; expected a number above 0"),
            (json!({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4, "original_max_position_embeddings": 8192}}),
             "c: `rope_scaling.high_freq_factor` is 4; expected a number above low_freq_factor = 4"),
            (json!({"rope_scaling": {"type": "dynamic", "factor": 2}}),
             "c: `rope_scaling.type` is \"dynamic\"; expected \"default\", \"linear\" or \"llama3\""),
            (json!({"rope_scaling": {"type": "linear"}}), "c: `rope_scaling.factor` is missing; expected a number above 0"),
            (json!({"rope_parameters": {"rope_type": "yarn"}}),
             "c: `rope_parameters.rope_type` is \"yarn\"; expected \"default\", \"linear\" or \"llama3\""),
            (json!({"architectures": ["Gemma3ForCausalLM"], "attn_logit_softcapping": 50}),
             "c: `attn_logit_softcapping` is 50; expected null: soft caps are not supported"),
            (json!({"architectures": ["Gemma3ForCausalLM"], "final_logit_softcapping": 30.0}),
             "c: `final_logit_softcapping` is 30.0; expected null: soft caps are not supported"),
            (json!({"architectures": ["Gemma3ForCausalLM"], "use_bidirectional_attention": true}),
             "c: `use_bidirectional_attention` is true; expected false: a token sees no later ones"),
            (json!({"rope_parameters": [1]}), "c: `rope_parameters` is [1]; expected an object"),
            (json!({"torch_dtype": "float8"}), "c: `torch_dtype` is \"float8\"; expected \"float32\", \"bfloat16\" or \"float16\""),
            (json!({"quantization_config": {"bits": 4}}),
             "c: `quantization_config.quant_method` is missing; expected \"compressed-tensors\""),
            (json!({"tie_word_embeddings": "yes"}), "c: `tie_word_embeddings` is \"yes\"; expected true or false"),
            (json!({"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": true, "sliding_window": 0}),
             "c: `sliding_window` is 0; expected a whole number from 1 to 16777216"),
            (json!({"architectures": ["Qwen3ForCausalLM"], "use_sliding_window": true, "sliding_window": 64, "layer_types": ["full_attention"]}),
             "c: `layer_types` is [\"full_attention\"]; expected \"full_attention\" or \"sliding_attention\" for every layer"),
            (json!({"architectures": ["LlamaForTokenClassification"], "id2label": {"0": "a", "2": "b"}}),
             "c: `id2label` is {\"0\":\"a\",\"2\":\"b\"}; expected an object of label names by number, {\"0\": ..., \"1\": ...}"),
        ];
        for (changes, expected) in cases {
            assert_eq!(
                config(changes.clone()).err().as_deref(),
                Some(expected),
                "{changes}"
            );
        }
    }
}
