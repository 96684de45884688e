//! The PRM scores a tree of steps by computing every step once (strategies/src/prm/engine.rs).
//!
//! A tree grown by forks must give every step the score that a full reading of its whole solution
//! gives. The backend's rows do not depend on what else is in a step, so the scores are equal to
//! the last bit, not merely to 1e-5. And the tokens the PRM computes are the tree's own: those of
//! the prompt, and for every node its step and its marker.

use crate::common::tree::{Random, grow_counted, path, read};
use crate::common::{Pair, Parts, open, pair, problems, report, scorer};
use engine::text::chat::Message;
use engine::{Engine, Model, ModelSpec, Options};
use kernels::CpuBackend;
use std::rc::Rc;
use strategies::{Config, EnginePrm, Strategy};

struct Scorer {
    engine: Engine,
    model: Model,
    prm: EnginePrm,
}

fn load(parts: &Parts, options: &Options) -> Scorer {
    let tokenizer = Some(Rc::clone(&parts.tokenizer));
    let (engine, mut models) = Engine::new(
        CpuBackend::new(2),
        &[ModelSpec::new(&parts.checkpoint, tokenizer)],
        options,
    )
    .expect("nano-prm loads");
    let model = models.remove(0);
    Scorer {
        engine,
        prm: scorer(parts, &model),
        model,
    }
}

fn prompt_tokens(parts: &Parts, problem: &str) -> u64 {
    let prompt = (parts.chat)
        .render(&[Message::new("user", problem)], true, false)
        .expect("the template renders a user's turn");
    tokens(parts, &prompt)
}

fn tokens(parts: &Parts, text: &str) -> u64 {
    let ids = parts.tokenizer.encode(text, false);
    ids.expect("plain text has tokens").len() as u64
}

#[test]
fn a_tree_scores_like_whole_solutions() {
    let parts = open("nano-prm");
    let problems = problems(6);
    let mut random = Random(7);
    let mut complaints = Vec::new();
    // Nodes, rows of a step, tokens of a block, all nodes of a depth at once.
    for (case, (nodes, rows, block_tokens, at_once)) in [
        (1, 512, 16, true),
        (2, 512, 16, false),
        (9, 512, 16, true),
        (17, 512, 1, true),
        (24, 7, 16, true),
        (24, 512, 4, false),
        (40, 64, 32, true),
        (60, 512, 16, true),
    ]
    .into_iter()
    .enumerate()
    {
        let problem = &problems[case % problems.len()].problem;
        let tree = random.tree(nodes);
        let options = Options {
            max_batch_rows: Some(rows),
            block_tokens,
            ..Options::default()
        };
        let grown = load(&parts, &options);
        let (scores, read_tokens) =
            grow_counted(&grown.engine, &grown.prm, problem, &tree, at_once);
        let name = format!("{nodes} nodes, {rows} rows, blocks of {block_tokens}");

        let unique: u64 = prompt_tokens(&parts, problem)
            + (tree.iter())
                .map(|node| tokens(&parts, &node.text) + 1)
                .sum::<u64>();
        let counted = [grown.model.usage().tokens_processed, read_tokens];
        if counted != [unique; 2] {
            complaints.push(format!("{name}: {counted:?} tokens, {unique} are unique"));
        }

        let whole = load(&parts, &Options::default());
        for leaf in 0..nodes {
            if tree.iter().any(|node| node.parent == Some(leaf)) {
                continue;
            }
            let path = path(&tree, leaf);
            let steps: Vec<&str> = path.iter().map(|&i| tree[i].text.as_str()).collect();
            let expected = read(&whole.engine, &whole.prm, problem, &steps);
            let found: Vec<f64> = path.iter().map(|&i| scores[i]).collect();
            if found != expected || !found.iter().all(|s| (0.0..=1.0).contains(s)) {
                complaints.push(format!(
                    "{name}, leaf {leaf}: {found:?}, whole {expected:?}"
                ));
            }
        }
    }
    report(&complaints);
}

/// In a search every step that is scored is computed once, whatever is dropped.
#[test]
fn a_search_reads_every_scored_step_once() {
    let parts = open("nano-prm");
    let mut complaints = Vec::new();
    for strategy in [Strategy::Beam, Strategy::Dvts, Strategy::BestOfN] {
        for problem in &problems(3) {
            let pair: Pair = pair(2, &Options::default());
            let config = Config {
                n: 8,
                ..Config::new(strategy)
            };
            let outcome = &pair.solve(&[problem], &config)[0];
            let scored = outcome.trace.nodes.iter().filter(|n| n.reward.is_some());
            let steps: u64 = scored.map(|n| tokens(&parts, &n.text) + 1).sum();
            let unique = prompt_tokens(&parts, &problem.problem) + steps;
            let processed = pair.prm_model.usage().tokens_processed;
            let counted = outcome.prm_tokens as u64;
            if processed != unique || counted != unique || steps == 0 {
                let (id, name) = (&problem.id, strategy.name());
                complaints.push(format!("{name}, {id}: {processed} of {unique} tokens"));
            }
        }
    }
    report(&complaints);
}
