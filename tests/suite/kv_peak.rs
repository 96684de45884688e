//! The KV cache of a beam search holds the tokens of its tree, and no more.
//!
//! Beam search writes in rounds: in round d all children of depth d are being written below the
//! kept nodes of depth d - 1, so what must be in memory is
//!
//! ```text
//! live(d) = the prompt, all nodes of depth d, and all their ancestors, each once
//! ```
//!
//! The trace names them and their tokens. A node starts a block of its own (engine/src/kv/table.rs,
//! "The shared tail"), so a node of t tokens takes ceil(t / B) blocks of B. Two things are exact
//! rather than approximate in t: the token that ends a step of depth d has been drawn, but its K
//! and V are computed only when something follows, so a policy leaf of n tokens holds n - 1 (with
//! an end-of-sequence token too, which is drawn and never appended); the PRM reads a step and its
//! marker, n + 1 tokens, and only steps that are no duplicates.
//!
//! The peak of the run must be within 10% of the largest live(d), in bytes. It may be above, by
//! tails that were copied instead of sealed, and below, because a node whose children are all
//! written drops its duplicates while its neighbours still write. The PRM may be further below:
//! it reads whole steps, and siblings whose steps begin with the same block share that too.

use std::collections::HashMap;

use crate::common::{open, pair, problems, report};
use engine::text::chat::Message;
use engine::{KvUsage, Options};
use strategies::{Config, Node, REASON_STEP_BY_STEP, Strategy};

/// Blocks of the largest round, where a node has `tokens(node, whether it is a leaf)` tokens.
fn largest_round(
    nodes: &[Node],
    prompt: usize,
    block_tokens: usize,
    tokens: impl Fn(&Node, bool) -> usize,
) -> usize {
    let depths = nodes.iter().map(|n| n.depth).max().unwrap_or(0);
    let round = |depth: usize| -> usize {
        let mut live = HashMap::new();
        for leaf in nodes.iter().filter(|n| n.depth == depth) {
            let mut at = Some(leaf);
            while let Some(node) = at {
                live.insert(node.id, (node, node.id == leaf.id));
                at = node.parent.map(|p| &nodes[p]);
            }
        }
        (live.values())
            .map(|&(node, leaf)| match node.parent {
                None => prompt.div_ceil(block_tokens),
                Some(_) => tokens(node, leaf).div_ceil(block_tokens),
            })
            .sum()
    };
    (1..=depths).map(round).max().unwrap_or(0)
}

#[test]
fn peak_is_what_the_tree_needs() {
    let (small, prm) = (open("nano-small"), open("nano-prm"));
    let user = |problem: &str| Message::new("user", problem);
    let count = |parts: &crate::common::Parts, messages: &[Message]| {
        let text = parts.chat.render(messages, true, false);
        let ids = (parts.tokenizer).encode(&text.expect("the template renders"), false);
        ids.expect("a prompt has tokens").len()
    };
    let step = |node: &Node| {
        let ids = prm.tokenizer.encode(&node.text, false);
        ids.expect("a step has tokens").len()
    };

    let mut complaints = Vec::new();
    for block_tokens in [16, 8, 1] {
        for problem in &problems(5) {
            let options = Options {
                block_tokens,
                ..Options::default()
            };
            let pair = pair(2, &options);
            let config = Config {
                n: 64,
                ..Config::new(Strategy::Beam)
            };
            let outcome = &pair.solve(&[problem], &config)[0];
            let nodes = &outcome.trace.nodes;

            let text = problem.problem.as_str();
            let system = Message::new("system", REASON_STEP_BY_STEP);
            let policy_blocks = largest_round(
                nodes,
                count(&small, &[system, user(text)]),
                block_tokens,
                |node, leaf| node.num_tokens - usize::from(leaf),
            );
            let prm_blocks = largest_round(
                nodes,
                count(&prm, &[user(text)]),
                block_tokens,
                |node, _| match node.reward {
                    Some(_) => step(node) + 1,
                    None => 0,
                },
            );
            let models = [
                ("policy", pair.policy_model.kv_usage(), policy_blocks),
                ("PRM", pair.prm_model.kv_usage(), prm_blocks),
            ];
            for (name, kv, blocks) in models {
                let (peak, needed) = (kv.peak_blocks * kv.block_bytes, blocks * kv.block_bytes);
                let off = peak as f64 / needed as f64 - 1.0;
                if off > 0.1 || (off < -0.1 && name == "policy") {
                    let KvUsage { peak_blocks, .. } = kv;
                    complaints.push(format!(
                        "{name}, blocks of {block_tokens}, {}: a peak of {peak_blocks} blocks, \
                         the tree needs {blocks} ({:+.1}%)",
                        problem.id,
                        100.0 * off
                    ));
                }
            }
            // Not vacuous: the tree is wide, and sharing saves most of what it would take.
            let kv = pair.policy_model.kv_usage();
            assert!(kv.peak_blocks >= 64, "{}: N = 64 branches", problem.id);
            assert!(kv.unshared_blocks > 2 * kv.peak_blocks, "{}", problem.id);
        }
    }
    report(&complaints);
}
