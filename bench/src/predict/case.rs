//! The cases that are predicted, by the names that a card's run gives them.
//!
//! A run on a card appends lines `{"section": S, "case": C, "figure": F, "unit": U, "value": V}` to one file.
//! A case is its text: any text of a known form can be predicted, whether or not this program would have
//! listed it.

use std::fmt;

use kernels::cuda::items::Sharing;

use super::attention::Heads;
use super::linear::Shape;
use super::rows::Filters;

/// Branches that a decode batch or a tree may have.
pub const MAX_BRANCHES: usize = 4096;
/// Tokens of a prompt.
pub const MAX_PROMPT: usize = 100_000;
/// Rows, features or tokens of a vocabulary: three of them multiplied fit 64 bits.
const MAX_SIZE: usize = 1 << 20;

/// A case that can be predicted.
#[derive(Clone, Debug, PartialEq)]
pub enum Case {
    /// What bounds a card: `read`, `copy`, `l2-read`, `graph-launch`.
    Ceiling(Ceiling),
    /// A linear layer, bf16 out: `ROWS/N/K`.
    Linear(Shape),
    /// A sampling call: `draws=64 vocab=128256 temperature`, or `top-k=20 top-p=0.8` in its place.
    Sampling {
        /// Rows of logits.
        draws: usize,
        /// Logits of a row.
        vocab: usize,
        /// Filters beside the temperature.
        filters: Filters,
    },
    /// An attention call over a beam's tree: `heads=32/8/64 n=64 prompt=512 plan=tree`.
    Attention {
        /// Query heads, KV heads, elements of a head.
        heads: Heads,
        /// Branches.
        n: usize,
        /// Tokens of the prompt.
        prompt: usize,
        /// How much of the tree is read once.
        sharing: Sharing,
    },
    /// A decode batch: `llama-3.2-1b branches=64 prompt=512`, the last of a beam search; with `below=16`
    /// one of branches that share the prompt alone.
    Decode {
        /// The model's name.
        model: String,
        /// Branches.
        branches: usize,
        /// Tokens of the prompt.
        prompt: usize,
        /// Each branch's own tokens below the prompt; `None`: a beam search's tree.
        below: Option<usize>,
    },
    /// A prompt in one batch: `llama-3.2-1b rows=2048`.
    Prefill {
        /// The model's name.
        model: String,
        /// Tokens.
        rows: usize,
    },
}

/// A limit of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// Reading DRAM.
    Read,
    /// Copying in DRAM, bytes read and written together.
    Copy,
    /// Reading what L2 holds.
    L2Read,
    /// From one empty kernel of a graph to the next.
    GraphLaunch,
}

impl Ceiling {
    /// All of them.
    pub const ALL: [Ceiling; 4] = [
        Ceiling::Read,
        Ceiling::Copy,
        Ceiling::L2Read,
        Ceiling::GraphLaunch,
    ];

    fn word(self) -> &'static str {
        match self {
            Ceiling::Read => "read",
            Ceiling::Copy => "copy",
            Ceiling::L2Read => "l2-read",
            Ceiling::GraphLaunch => "graph-launch",
        }
    }
}

/// Words of the plans.
pub(super) const PLANS: [(&str, Sharing); 3] = [
    ("tree", Sharing::Tree),
    ("cascade", Sharing::Cascade),
    ("flat", Sharing::Flat),
];

impl Case {
    /// The section it stands in.
    pub fn section(&self) -> &'static str {
        match self {
            Case::Ceiling(_) => "ceilings",
            Case::Linear(_) => "linear",
            Case::Sampling { .. } => "sampling",
            Case::Attention { .. } => "attention",
            Case::Decode { .. } => "decode",
            Case::Prefill { .. } => "prefill",
        }
    }

    /// The case that a text stands for in a section; `None` if it is none of the forms above.
    pub fn parse(section: &str, text: &str) -> Option<Case> {
        match section {
            "ceilings" => (Ceiling::ALL.into_iter())
                .find(|ceiling| ceiling.word() == text)
                .map(Case::Ceiling),
            "linear" => {
                let [rows, n, k] = triple(text)?;
                Some(Case::Linear(Shape { rows, n, k }))
            }
            "sampling" => sampling(text),
            "attention" => attention_case(text),
            "decode" => {
                let (text, below) = match text.rsplit_once(" below=") {
                    Some((text, tokens)) => {
                        let tokens = tokens.parse().ok().filter(|t| (1..=MAX_PROMPT).contains(t));
                        (text, Some(tokens?))
                    }
                    None => (text, None),
                };
                let [model, branches, prompt] = words(text)?;
                Some(Case::Decode {
                    model: model.into(),
                    branches: field(branches, "branches", MAX_BRANCHES)?,
                    prompt: field(prompt, "prompt", MAX_PROMPT)?,
                    below,
                })
            }
            "prefill" => {
                let [model, rows] = words(text)?;
                Some(Case::Prefill {
                    model: model.into(),
                    rows: field(rows, "rows", MAX_SIZE)?,
                })
            }
            _ => None,
        }
    }
}

fn words<const COUNT: usize>(text: &str) -> Option<[&str; COUNT]> {
    let all: Vec<&str> = text.split_whitespace().collect();
    all.try_into().ok()
}

/// The number of `name=NUMBER`, from 1 to `most`.
fn field(word: &str, name: &str, most: usize) -> Option<usize> {
    let number = word.strip_prefix(name)?.strip_prefix('=')?;
    number.parse().ok().filter(|n| (1..=most).contains(n))
}

fn triple(text: &str) -> Option<[usize; 3]> {
    let numbers = text.split('/').map(|n| n.parse().ok());
    let numbers: Option<Vec<usize>> = numbers.collect();
    let numbers: [usize; 3] = numbers?.try_into().ok()?;
    let sizes = 1..=MAX_SIZE;
    numbers.iter().all(|n| sizes.contains(n)).then_some(numbers)
}

fn sampling(text: &str) -> Option<Case> {
    let mut words = text.split_whitespace();
    let draws = field(words.next()?, "draws", MAX_BRANCHES)?;
    let vocab = field(words.next()?, "vocab", MAX_SIZE)?;
    let mut filters = Filters::NONE;
    let rest: Vec<&str> = words.collect();
    if rest.is_empty() {
        return None;
    }
    for word in rest {
        if let Some(k) = field(word, "top-k", MAX_SIZE) {
            filters.top_k = k;
        } else if let Some(p) = word.strip_prefix("top-p=") {
            filters.top_p = p.parse().ok().filter(|p| (0.0..=1.0).contains(p))?;
        } else if word != "temperature" {
            return None;
        }
    }
    Some(Case::Sampling {
        draws,
        vocab,
        filters,
    })
}

fn attention_case(text: &str) -> Option<Case> {
    let [heads, n, prompt, plan] = words(text)?;
    let [query, kv, dim] = triple(heads.strip_prefix("heads=")?)?;
    // What the kernel can compute, and the planner takes.
    if query % kv != 0 || dim % 16 != 0 || dim > 256 || query > 1024 {
        return None;
    }
    let plan = plan.strip_prefix("plan=")?;
    Some(Case::Attention {
        heads: (query, kv, dim),
        n: field(n, "n", MAX_BRANCHES)?,
        prompt: field(prompt, "prompt", MAX_PROMPT)?,
        sharing: PLANS.iter().find(|(word, _)| *word == plan)?.1,
    })
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Case::Ceiling(ceiling) => f.write_str(ceiling.word()),
            Case::Linear(Shape { rows, n, k }) => write!(f, "{rows}/{n}/{k}"),
            Case::Sampling {
                draws,
                vocab,
                filters: Filters { top_k, top_p },
            } => {
                write!(f, "draws={draws} vocab={vocab}")?;
                match (*top_k > 0, *top_p < 1.0) {
                    (false, false) => write!(f, " temperature"),
                    (true, false) => write!(f, " top-k={top_k}"),
                    (false, true) => write!(f, " top-p={top_p}"),
                    (true, true) => write!(f, " top-k={top_k} top-p={top_p}"),
                }
            }
            Case::Attention {
                heads: (query, kv, dim),
                n,
                prompt,
                sharing,
            } => {
                let plan = PLANS.iter().find(|(_, of)| of == sharing);
                let plan = plan.map_or("", |(word, _)| word);
                write!(
                    f,
                    "heads={query}/{kv}/{dim} n={n} prompt={prompt} plan={plan}"
                )
            }
            Case::Decode {
                model,
                branches,
                prompt,
                below,
            } => {
                write!(f, "{model} branches={branches} prompt={prompt}")?;
                below.map_or(Ok(()), |tokens| write!(f, " below={tokens}"))
            }
            Case::Prefill { model, rows } => write!(f, "{model} rows={rows}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_its_text() {
        for (section, text) in [
            ("ceilings", "read"),
            ("ceilings", "l2-read"),
            ("ceilings", "graph-launch"),
            ("linear", "64/8192/2048"),
            ("sampling", "draws=64 vocab=128256 temperature"),
            ("sampling", "draws=1 vocab=151936 top-k=20 top-p=0.8"),
            ("attention", "heads=32/8/64 n=64 prompt=512 plan=tree"),
            ("attention", "heads=12/2/128 n=16 prompt=2048 plan=cascade"),
            ("decode", "llama-3.2-1b branches=64 prompt=512"),
            ("decode", "llama-3.2-1b branches=64 prompt=512 below=16"),
            ("prefill", "llama-3.2-1b rows=2048"),
        ] {
            let case = Case::parse(section, text).unwrap_or_else(|| panic!("{section} {text}"));
            assert_eq!((case.section(), case.to_string().as_str()), (section, text));
        }
    }

    #[test]
    fn other_texts_are_no_case() {
        for (section, text) in [
            ("ceilings", "write"),
            ("linear", "64/8192"),
            ("linear", "0/8192/2048"),
            ("linear", "1/2/3/4"),
            ("linear", "99999999999999999999/2/3"),
            ("sampling", "draws=64 vocab=128256"),
            ("sampling", "draws=64 vocab=128256 top-p=2"),
            ("sampling", "vocab=128256 draws=64 temperature"),
            ("attention", "heads=32/7/64 n=64 prompt=512 plan=tree"),
            ("attention", "heads=32/8/64 n=64 prompt=512 plan=forest"),
            ("attention", "heads=32/8/64 n=0 prompt=512 plan=tree"),
            ("decode", "llama-3.2-1b branches=-1 prompt=512"),
            ("decode", "llama-3.2-1b branches=1 prompt=512 below=x"),
            (
                "decode",
                "llama-3.2-1b branches=1 prompt=512 without=graphs",
            ),
            ("prefill", "llama-3.2-1b"),
            ("devices", "cuda:0"),
        ] {
            assert_eq!(Case::parse(section, text), None, "{section} {text}");
        }
    }
}
