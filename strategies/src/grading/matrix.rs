//! Matrices: rows of cells; the kind of bracket is ignored, unless it makes a determinant.

use super::answer::{Answer, Body, single, split, trimmed};
use super::brackets::encloses;
use super::exact::Fuel;
use super::expression::value;
use super::latex::{MAX_DEPTH, Node};

/// A matrix, with a factor before it, or a tuple or matrix transposed.
pub(super) fn matrix(nodes: &[Node], depth: usize, fuel: &Fuel) -> Option<Answer> {
    if depth > MAX_DEPTH {
        return None;
    }
    match nodes {
        [core @ .., Node::Char('^'), raised] if is_transposition(raised) => {
            let rows = match matrix(core, depth + 1, fuel) {
                Some(Answer {
                    body: Body::Matrix(rows),
                    ..
                }) => rows,
                _ => vec![tuple(core, depth, fuel)?],
            };
            let columns = rows.iter().map(Vec::len).max()?;
            if rows.iter().any(|row| row.len() != columns) {
                return None;
            }
            let column = |at: usize| rows.iter().map(|row| row[at].clone()).collect();
            Some(of_rows((0..columns).map(column).collect()))
        }
        [Node::Rows(kind, rows)] => cells(kind, rows, depth, fuel),
        [open, Node::Rows(kind, rows), close]
            if matches!(
                (open, close),
                (Node::Char('('), Node::Char(')')) | (Node::Char('['), Node::Char(']'))
            ) =>
        {
            cells(kind, rows, depth, fuel)
        }
        [factor @ .., last @ Node::Rows(..)] => {
            scaled(factor, std::slice::from_ref(last), depth, fuel)
        }
        [
            factor @ ..,
            open @ Node::Char('(' | '['),
            rows @ Node::Rows(..),
            close @ Node::Char(')' | ']'),
        ] => {
            let matrix = [open.clone(), rows.clone(), close.clone()];
            scaled(factor, &matrix, depth, fuel)
        }
        _ => None,
    }
}

fn is_transposition(node: &Node) -> bool {
    match node {
        Node::Char('T') => true,
        Node::Word(word) => word == "T",
        Node::Command(name) => matches!(name.as_str(), "top" | "intercal"),
        Node::Group(inner) => matches!(inner.as_slice(), [node] if is_transposition(node)),
        _ => false,
    }
}

/// The parts of (1, 2) or [1, 2].
fn tuple(nodes: &[Node], depth: usize, fuel: &Fuel) -> Option<Vec<Answer>> {
    let [Node::Char('(' | '['), inner @ .., Node::Char(')' | ']')] = nodes else {
        return None;
    };
    let parts = split(inner, |n| *n == Node::Char(','));
    let tuple = parts.len() >= 2 && encloses(nodes);
    tuple.then(|| {
        parts
            .iter()
            .map(|part| single(part, depth + 1, fuel))
            .collect()
    })
}

fn cells(kind: &str, rows: &[Vec<Vec<Node>>], depth: usize, fuel: &Fuel) -> Option<Answer> {
    const KINDS: [&str; 6] = [
        "matrix",
        "pmatrix",
        "bmatrix",
        "Bmatrix",
        "smallmatrix",
        "array",
    ];
    let plain = kind.trim_end_matches('*');
    let small = plain.replacen("smallmatrix", "matrix", 1);
    if !KINDS.contains(&plain) && !KINDS.contains(&small.as_str()) {
        return None;
    }
    let rows = rows.iter().map(|row| {
        (row.iter())
            .map(|cell| single(cell, depth + 1, fuel))
            .collect()
    });
    Some(of_rows(rows.collect()))
}

/// A factor times every cell.
fn scaled(factor: &[Node], matrix: &[Node], depth: usize, fuel: &Fuel) -> Option<Answer> {
    let factor = match trimmed(factor) {
        [Node::Char('-')] => super::exact::Frac::integer(-1),
        [factor @ .., Node::Char('*')] | factor => value(factor, true, fuel)?,
    };
    let Body::Matrix(rows) = self::matrix(matrix, depth + 1, fuel)?.body else {
        return None;
    };
    let mut scaled = Vec::with_capacity(rows.len());
    for row in &rows {
        let cells = row.iter().map(|cell| match &cell.body {
            Body::Value(x) => Some(Answer::value(x.mul(&factor, fuel)?)),
            _ => None,
        });
        scaled.push(cells.collect::<Option<Vec<Answer>>>()?);
    }
    Some(of_rows(scaled))
}

fn of_rows(rows: Vec<Vec<Answer>>) -> Answer {
    let keys = rows.iter().map(|row: &Vec<Answer>| {
        let cells: Vec<&str> = row.iter().map(|cell| cell.key.as_str()).collect();
        cells.join(" & ")
    });
    let key = format!("matrix({})", keys.collect::<Vec<_>>().join("; "));
    Answer::new(Body::Matrix(rows), key)
}
