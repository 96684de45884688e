//! Runs the cells of one pair of models: all of a problem's searches at once, problem after problem, so
//! that their prompts are computed once.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use strategies::{Outcome, Problem};

use super::folder::{CellFile, Folder, Stored};
use super::record::{Rates, Record};
use crate::{Error, Session};

/// Searches that are asked of a session at once: more than it admits, so that it never waits.
const ASKED: usize = 256;

/// Sees what a sweep does.
pub trait Watch {
    /// A search of the `cell`-th of the cells has ended on a problem; its own record.
    fn ended(&mut self, cell: usize, record: &Record);
    /// A search failed; the others go on.
    fn failed(&mut self, cell: usize, problem: &Problem, error: Error);
}

/// The cells of one pair of models and what is there of each.
pub struct Cells<'a> {
    /// The cells.
    pub cells: &'a [CellFile],
    /// What is there, cell by cell.
    pub stored: &'a mut [Stored],
    /// What the models' rows cost.
    pub rates: Rates,
}

impl Cells<'_> {
    /// Runs what is not there; returns the number of searches that failed.
    ///
    /// # Errors
    /// A device that failed, a file that cannot be written.
    pub async fn run(
        &mut self,
        session: &Session,
        folder: &Folder,
        problems: &[Problem],
        watch: &mut dyn Watch,
    ) -> Result<usize, Error> {
        let mut todo: Vec<(usize, usize)> = (0..problems.len())
            .flat_map(|place| (0..self.cells.len()).map(move |cell| (place, cell)))
            .filter(|&(place, cell)| !self.stored[cell].done[place])
            .collect();
        todo.reverse();
        // A crash may have come just before.
        for (stored, cell) in self.stored.iter_mut().zip(self.cells) {
            finish(stored, folder, cell, problems)?;
        }
        let mut failed = 0;
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < ASKED
                && let Some((place, cell)) = todo.pop()
            {
                let search = self.cells[cell].cell.search.clone();
                let job = session.solve(problems[place].clone(), search);
                running.push(async move { (place, cell, job.outcome().await) });
            }
            let Some((place, cell, outcome)) = running.next().await else {
                return Ok(failed);
            };
            match outcome {
                Ok(outcome) => {
                    let record = self.keep(folder, problems, (place, cell), &outcome)?;
                    watch.ended(cell, &record);
                }
                // The device failed, or its thread ended: so will all that is left.
                Err(error @ (Error::Device(_) | Error::Ended)) => return Err(error),
                Err(error) => {
                    failed += 1;
                    watch.failed(cell, &problems[place], error);
                }
            }
        }
    }

    /// Appends the records of a search, and finishes its cell if it was the last; its own record.
    fn keep(
        &mut self,
        folder: &Folder,
        problems: &[Problem],
        (place, cell): (usize, usize),
        outcome: &Outcome,
    ) -> Result<Record, Error> {
        let (stored, cell) = (&mut self.stored[cell], &self.cells[cell]);
        let (search, budgets) = (&cell.cell.search, cell.cell.budgets());
        let mut records = Record::of(&problems[place], outcome, search, &budgets, &self.rates);
        folder.append(cell, &records)?;
        stored.done[place] = true;
        finish(stored, folder, cell, problems)?;
        Ok(records.swap_remove(records.len() - 1))
    }
}

/// Gives a cell its final file if every problem is there.
fn finish(
    stored: &mut Stored,
    folder: &Folder,
    cell: &CellFile,
    problems: &[Problem],
) -> Result<(), Error> {
    if !stored.finished && stored.done.iter().all(|&done| done) {
        folder.finish(cell, problems)?;
        stored.finished = true;
    }
    Ok(())
}
