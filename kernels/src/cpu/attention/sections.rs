//! Pass 2 of attention by AMX: the sums of `p v`.
//!
//! AMX adds the products of [`GROUP`] tokens at a time. A sum's bits must not depend on where runs
//! begin and end, so groups are aligned by position: a group begins at a multiple of [`GROUP`],
//! whichever runs hold its tokens. A *section* is the part of one group that some rows see, or of
//! several consecutive groups if all lie in one run.
//!
//! Layout: the values of up to [`KV_CHUNK`] tokens are copied from their blocks into panels of
//! dimensions, `[dimension / 16][KV_CHUNK / 2][16][2]`, with zeros where a group has no visible
//! token. They are then multiplied with the `p` of all rows that see them, each split into two bf16
//! parts ([`amx::split_exponentials`]).
//!
//! Budget: [`attention`](super)'s. If a run's end cuts a group, the visible part of the group is
//! read once more for every set of rows that see the same of it.

use super::super::amx::{self, Tiles};
use super::super::kv::{self, KvKind};
use super::super::tile::COLS;
use super::{CHUNK_PANELS, HeadTask, KV_CHUNK, RowChunk, Scratch, floats};
use crate::BatchPlan;
use half::bf16;
use std::ops::Range;

/// Positions whose values one AMX instruction adds.
const GROUP: usize = amx::INPUTS;

/// Positions of which some rows see the same tokens.
#[derive(Clone, Debug)]
struct Section {
    rows: Range<usize>,
    /// From a multiple of [`GROUP`] on. Several groups, if all are whole and lie in one run.
    positions: Range<usize>,
    /// Indices of the pieces that cover the positions, in order.
    pieces: Range<usize>,
}

/// Consecutive tokens of a run.
#[derive(Clone, Debug)]
struct Piece {
    /// An index into the plan's runs.
    run: u32,
    positions: Range<usize>,
}

/// The sections of a group of rows; those of one row are in the order of their positions.
#[derive(Clone, Debug, Default)]
pub(super) struct Sections {
    sections: Vec<Section>,
    pieces: Vec<Piece>,
}

impl Sections {
    /// The sections of some rows of a plan and their runs, parents before children.
    pub(super) fn new(plan: &BatchPlan, rows: &Range<usize>, runs: &[u32]) -> Sections {
        let mut all = Sections::default();
        for (index, &run) in runs.iter().enumerate() {
            let of_run = positions(plan, run);
            let rows = overlap(&plan.runs[run as usize].rows, rows);
            for group in (of_run.start / GROUP * GROUP..of_run.end).step_by(GROUP) {
                let begin = of_run.start.max(group);
                let seen_to =
                    |row: usize| (plan.rows[row].position as usize + 1).min(group + GROUP);
                let mut row = rows.start;
                while row < rows.end {
                    // A group belongs to the run that holds the last token the row sees of it.
                    let end = seen_to(row);
                    if !(begin < end && end <= of_run.end) {
                        row += 1;
                        continue;
                    }
                    let mut same = row + 1..rows.end;
                    let pieces = all.add_pieces(plan, &runs[..=index], group..end, row, &mut same);
                    let others = same.take_while(|&other| seen_to(other) == end).count();
                    all.push(row..row + 1 + others, group..end, pieces);
                    row += 1 + others;
                }
            }
        }
        all
    }

    /// Adds the pieces into which a row's last runs cut `range`. Shortens `same`, the rows after
    /// it, to those that have the same pieces.
    fn add_pieces(
        &mut self,
        plan: &BatchPlan,
        runs: &[u32],
        range: Range<usize>,
        row: usize,
        same: &mut Range<usize>,
    ) -> Range<usize> {
        let first = self.pieces.len();
        for &run in runs.iter().rev() {
            let rows = &plan.runs[run as usize].rows;
            let positions = overlap(&positions(plan, run), &range);
            if rows.contains(&row) && !positions.is_empty() {
                same.end = same.end.min(rows.end);
                let begin = positions.start;
                self.pieces.push(Piece { run, positions });
                if begin == range.start {
                    break;
                }
            }
        }
        self.pieces[first..].reverse();
        first..self.pieces.len()
    }

    /// Adds a section, or extends the last one if both are whole groups of the same run.
    fn push(&mut self, rows: Range<usize>, positions: Range<usize>, pieces: Range<usize>) {
        let whole = |positions: &Range<usize>| positions.len().is_multiple_of(GROUP);
        if let Some(last) = self.sections.last_mut()
            && last.rows == rows
            && last.positions.end == positions.start
            && whole(&last.positions)
            && whole(&positions)
            && let ([before], [piece]) = (
                &self.pieces[last.pieces.clone()],
                &self.pieces[pieces.clone()],
            )
            && before.run == piece.run
        {
            last.positions.end = positions.end;
            self.pieces.truncate(pieces.start);
            self.pieces[pieces.start - 1].positions.end = positions.end;
            return;
        }
        self.sections.push(Section {
            rows,
            positions,
            pieces,
        });
    }
}

/// The positions of a run's tokens.
fn positions(plan: &BatchPlan, run: u32) -> Range<usize> {
    let run = &plan.runs[run as usize];
    run.start as usize..(run.start + run.num_tokens) as usize
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    a.start.max(b.start)..a.end.min(b.end)
}

impl HeadTask<'_> {
    /// Adds up `p v` for all of the chunk's queries, whose `p` are split.
    pub(super) fn values_by_amx(&self, tiles: &mut Tiles, chunk: &RowChunk, scratch: &mut Scratch) {
        let Scratch {
            scores,
            sums,
            staged,
            ..
        } = scratch;
        let (scores, sums) = (floats(scores), floats(sums));
        let staged: &mut [bf16] = bytemuck::cast_slice_mut(staged);
        let head_dim = self.layout.head_dim;
        for section in &self.sections.sections {
            let rows = overlap(&section.rows, &chunk.rows);
            let Range { start, end } = section.positions;
            for position in (start..end).step_by(KV_CHUNK) {
                let positions = position..end.min(position + KV_CHUNK);
                if rows.clone().all(|row| self.first(row) >= positions.end) {
                    continue;
                }
                let k = positions.len().next_multiple_of(GROUP);
                if positions.len() < k {
                    for panel in staged
                        .chunks_exact_mut(KV_CHUNK * COLS)
                        .take(head_dim / COLS)
                    {
                        panel[..k * COLS].fill(bf16::ZERO);
                    }
                }
                for piece in &self.sections.pieces[section.pieces.clone()] {
                    self.copy_values(piece, &positions, staged);
                }
                let query = chunk.query(rows.start, 0);
                let p = &scores[query * chunk.stride + position..];
                let panels = head_dim / COLS;
                for panel in (0..panels).step_by(CHUNK_PANELS) {
                    let width = CHUNK_PANELS.min(panels - panel);
                    let mut w_ptrs = [std::ptr::null(); CHUNK_PANELS];
                    for (j, w) in w_ptrs[..width].iter_mut().enumerate() {
                        let panel = &staged[(panel + j) * KV_CHUNK * COLS..][..k * COLS];
                        *w = panel.as_ptr().cast();
                    }
                    let (count, w) = (rows.len() * chunk.queries, &w_ptrs[..width]);
                    let sums = &mut sums[query * head_dim + panel * COLS..];
                    let strides = [chunk.stride, head_dim];
                    // SAFETY: the panels are of k tokens.
                    unsafe { amx::rows::<true>(tiles, p, count, w, k, sums, strides) };
                }
            }
        }
    }

    /// Copies the values of a piece's tokens at `positions` into panels that begin at the first of
    /// these positions.
    fn copy_values(&self, piece: &Piece, positions: &Range<usize>, staged: &mut [bf16]) {
        let run = &self.plan.runs[piece.run as usize];
        let block_tokens = self.layout.block_tokens;
        let Range { start, end } = overlap(&piece.positions, positions);
        let mut position = start;
        while position < end {
            let token = position - run.start as usize;
            let tokens = (block_tokens - token % block_tokens).min(end - position);
            let head = self.head(run, token / block_tokens, KvKind::Values);
            let to = position - positions.start;
            let from = token % block_tokens;
            kv::copy_values(self.layout, head, from, tokens, to, KV_CHUNK, staged);
            position += tokens;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row_groups;
    use super::*;
    use crate::cpu::tile::Isa;
    use crate::plan::random::{Random, random_plan};

    #[test]
    fn the_sections_of_a_row_are_what_it_sees_in_whole_groups() {
        for seed in 0..500 {
            let mut random = Random { seed, count: 0 };
            let block_tokens = [1, 4, 16, 32][random.below(4)];
            let plan = random_plan(&mut random, block_tokens);
            for group in row_groups(&plan, Isa::Amx) {
                let Sections { sections, pieces } = &group.sections;
                for row in group.rows.clone() {
                    let visible = plan.rows[row].position as usize + 1;
                    let mut next = 0;
                    for section in sections.iter().filter(|s| s.rows.contains(&row)) {
                        assert_eq!(section.positions.start, next, "seed {seed}, row {row}");
                        assert!(next.is_multiple_of(GROUP), "seed {seed}, row {row}");
                        for piece in &pieces[section.pieces.clone()] {
                            assert_eq!(piece.positions.start, next, "seed {seed}, row {row}");
                            assert!(!piece.positions.is_empty());
                            let run = &plan.runs[piece.run as usize];
                            assert!(run.rows.contains(&row), "seed {seed}, row {row}");
                            let of_run = positions(&plan, piece.run);
                            assert_eq!(overlap(&piece.positions, &of_run), piece.positions);
                            next = piece.positions.end;
                        }
                        assert_eq!(section.positions.end, next, "seed {seed}, row {row}");
                    }
                    assert_eq!(next, visible, "seed {seed}, row {row}");
                }
            }
        }
    }
}
