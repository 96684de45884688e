//! `offshoot show`: the search tree of one problem, drawn in the terminal.

use std::io::{IsTerminal, stdout};

use session::results::{Line, read_lines};
use strategies::{Node, NodeState, Trace};

use super::print;
use crate::error::{Done, Failure, sentence_with};
use crate::flags::ShowFlags;

/// Columns when the output is no terminal.
const WIDTH: usize = 100;

/// Runs the command.
pub fn run(flags: &ShowFlags) -> Done {
    let path = &flags.results;
    let bytes = std::fs::read(path).map_err(|e| Failure::io(&path.display().to_string(), &e))?;
    let lines = read_lines("results", path, &bytes)
        .map_err(|error| Failure::new(sentence_with(error, &[("results", "")])))?;
    let by_number = flags
        .problem
        .parse::<usize>()
        .ok()
        .and_then(|n| lines.get(n.checked_sub(1)?));
    let line = (lines.iter().find(|line| line.id == flags.problem))
        .or(by_number)
        .ok_or_else(|| {
            let (file, count) = (path.display(), lines.len());
            Failure::new(format!(
                "{file}: no problem {:?} among its {count}",
                flags.problem
            ))
        })?;
    let tree = line.tree.as_ref().ok_or_else(|| {
        Failure::new(format!(
            "{}: no search trees in it; run solve with --trees",
            path.display()
        ))
    })?;
    if let Some(what) = damage(tree) {
        return Err(Failure::new(format!(
            "{}: the search tree of problem {:?} is none: {what}",
            path.display(),
            line.id
        )));
    }
    let width = flags.width.unwrap_or_else(|| {
        let columns = stdout()
            .is_terminal()
            .then(|| console::Term::stdout().size_checked())
            .flatten();
        columns.map_or(WIDTH, |(_, columns)| usize::from(columns))
    });
    print(&(heading(line) + &draw(tree, width.max(40), flags.all)))
}

/// What keeps a trace of a file from being a tree: nodes are numbered in their order, parents
/// first.
fn damage(tree: &Trace) -> Option<String> {
    if tree.nodes.is_empty() {
        return Some("it has no node".into());
    }
    let wrong = (tree.nodes.iter().enumerate()).find(|(number, node)| {
        let parent = node.parent.map_or(*number == 0, |parent| parent < *number);
        node.id != *number || !parent
    })?;
    Some(format!("node {} has no place in it", wrong.0))
}

fn heading(line: &Line) -> String {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let right = match line.correct {
        Some(true) => ", right",
        Some(false) => ", wrong",
        None => "",
    };
    format!(
        "{}\n\n{} ({}, N = {}, seed {}): {} by {}{right}; true answer {}\n\n\
         * chosen   + kept   = finished   - dropped   ~ duplicate   ! cut short\n\n",
        line.problem,
        line.id,
        line.strategy.name(),
        line.n,
        line.seed,
        or_dash(&line.prediction),
        line.selection,
        or_dash(&line.answer)
    )
}

fn mark(node: &Node) -> char {
    match node.state {
        _ if node.chosen => '*',
        NodeState::Kept => '+',
        NodeState::Finished => '=',
        NodeState::Dropped | NodeState::Rejected => '-',
        NodeState::Duplicate => '~',
        NodeState::LengthCut | NodeState::Empty | NodeState::Stopped => '!',
    }
}

/// Whether nothing follows a node and it was not worth keeping.
fn is_aside(node: &Node) -> bool {
    !node.chosen
        && matches!(
            node.state,
            NodeState::Dropped | NodeState::Rejected | NodeState::Duplicate | NodeState::Empty
        )
}

/// The tree, a line per step: mark, reward, text cut to the width.
fn draw(tree: &Trace, width: usize, all: bool) -> String {
    let mut children: Vec<Vec<&Node>> = vec![Vec::new(); tree.nodes.len()];
    for node in &tree.nodes {
        if let Some(parent) = node.parent {
            children[parent].push(node);
        }
    }
    let mut out = String::new();
    let mut stack: Vec<(&Node, String, bool)> = Vec::new();
    let push = |stack: &mut Vec<_>, out: &mut String, id: usize, indent: &str| {
        let shown: Vec<&Node> = children[id]
            .iter()
            .copied()
            .filter(|n| all || !is_aside(n))
            .collect();
        let aside = children[id].len() - shown.len();
        if aside > 0 {
            let noun = if aside == 1 { "branch" } else { "branches" };
            *out += &format!("{indent}- {aside} {noun} dropped or duplicate\n");
        }
        for (i, node) in shown.iter().enumerate().rev() {
            stack.push((*node, indent.to_string(), i + 1 == shown.len()));
        }
    };
    push(&mut stack, &mut out, 0, "");
    while let Some((node, indent, last)) = stack.pop() {
        let reward = node.reward.map_or("     ".into(), |r| format!("{r:.3}"));
        let corner = if last { "\u{2514}" } else { "\u{251c}" };
        let head = format!("{indent}{corner} {} {reward} ", mark(node));
        let room = width.saturating_sub(head.chars().count()).max(10);
        let text: String = node.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let cut = match text.chars().count() > room {
            true => text.chars().take(room - 1).chain(['\u{2026}']).collect(),
            false => text,
        };
        out += &format!("{head}{cut}\n");
        let below = format!("{indent}{} ", if last { " " } else { "\u{2502}" });
        push(&mut stack, &mut out, node.id, &below);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tree_is_drawn() {
        let node = |id: usize,
                    parent: Option<usize>,
                    text: &str,
                    reward: f64,
                    state: &str,
                    chosen: bool| {
            json!({"id": id, "parent": parent, "depth": 0, "text": text, "reward": reward, "value": reward,
                   "tokens": 1, "lookahead_tokens": 0, "state": state, "chosen": chosen})
        };
        let tree: Trace = serde_json::from_value(json!({"nodes": [
            node(0, None, "", 0.0, "kept", true),
            node(1, Some(0), "Step 1:\n2 + 2 = 4.", 0.9, "kept", true),
            node(2, Some(0), "Step 1: 2 + 2 = 5.", 0.1, "dropped", false),
            node(3, Some(1), "The answer is a very long text that does not fit at all.", 0.8, "finished", true),
            node(4, Some(1), "Step 2", 0.7, "length-cut", false),
        ]}))
        .expect("the test's own JSON is a trace");
        let short = "- 1 branch dropped or duplicate\n\
                     └ * 0.900 Step 1: 2 + 2 = 4.\n  \
                     ├ * 0.800 The answer is a very l…\n  \
                     └ ! 0.700 Step 2\n";
        assert_eq!(draw(&tree, 35, false), short);
        let whole = "├ * 0.900 Step 1: 2 + 2 = 4.\n\
                     │ ├ * 0.800 The answer is a very l…\n\
                     │ └ ! 0.700 Step 2\n\
                     └ - 0.100 Step 1: 2 + 2 = 5.\n";
        assert_eq!(draw(&tree, 35, true), whole);
    }
}
