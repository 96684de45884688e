//! Times of a sweep's configurations, each alone on the machine: the searches of a sweep run together, so
//! their own times would say nothing.

use std::io;
use std::time::Instant;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use session::sweep::{Cell, Folder};
use session::{Config, Session};
use strategies::Problem;

use super::{Group, label, open, shown};
use crate::error::{Done, Failure};
use crate::flags::SweepFlags;

/// The file beside the results. It holds times, so no two runs give the same.
pub const FILE: &str = "timings.jsonl";

/// How long a configuration took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The policy.
    pub policy: String,
    /// The PRM, if any.
    pub prm: Option<String>,
    /// The strategy with its options.
    pub configuration: String,
    /// N.
    pub n: usize,
    /// The seed.
    pub seed: u64,
    /// The first problems of the set, so many.
    pub problems: usize,
    /// Seconds for all of them, with models loaded.
    pub seconds: f64,
    /// The most bytes of KV cache that branches held at once, policy and PRM together.
    pub kv_peak_bytes: u64,
    /// The device.
    pub machine: String,
}

impl Timing {
    fn is_of(&self, cell: &Cell, n: usize, problems: usize) -> bool {
        let named = (&self.policy, &self.prm, &self.configuration);
        named == (&cell.policy, &cell.prm, &cell.configuration)
            && (self.n, self.seed, self.problems) == (n, cell.search.seed, problems)
    }
}

/// Times every configuration and N that is not in the file yet, with its first seed.
pub fn run(flags: &SweepFlags, folder: &Folder, groups: &[Group], problems: &[Problem]) -> Done {
    let problems = &problems[..flags.timed.min(problems.len())];
    if problems.is_empty() {
        return Ok(());
    }
    let mut there = read(folder)?;
    let mut todo: Vec<(&Group, &Cell, usize)> = Vec::new();
    for (group, file) in groups
        .iter()
        .flat_map(|g| g.cells.iter().map(move |c| (g, c)))
    {
        let cell = &file.cell;
        for n in cell.budgets() {
            let known = there.iter().any(|t| t.is_of(cell, n, problems.len()));
            let other_seed = todo.iter().any(|(_, other, m)| {
                let same = (&other.policy, &other.prm, &other.configuration);
                *m == n && same == (&cell.policy, &cell.prm, &cell.configuration)
            });
            if !known && !other_seed {
                todo.push((group, cell, n));
            }
        }
    }
    for (at, (group, cell, n)) in todo.iter().enumerate() {
        let timing = time(flags, group, cell, *n, problems)?;
        let each = timing.seconds / problems.len() as f64;
        let (of, label) = (todo.len(), label(cell, *n));
        eprintln!("timing {}/{of}: {label}: {each:.3} s a problem", at + 1);
        there.push(timing);
        write(folder, &there)?;
    }
    Ok(())
}

fn time(
    flags: &SweepFlags,
    group: &Group,
    cell: &Cell,
    n: usize,
    problems: &[Problem],
) -> Done<Timing> {
    // Of its own: what another search left in the cache would be free.
    let session = match cell.prm {
        Some(_) => open(flags, group)?,
        None => {
            let options = flags.session(&cell.policy, None);
            Session::open(&options)?
        }
    };
    let config = Config {
        n,
        ..cell.search.clone()
    };
    let began = Instant::now();
    futures::executor::block_on(async {
        let mut jobs: FuturesUnordered<_> = (problems.iter())
            .map(|problem| session.solve(problem.clone(), config.clone()).outcome())
            .collect();
        while let Some(outcome) = jobs.next().await {
            outcome?;
        }
        Done::Ok(())
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let usages = futures::executor::block_on(session.usage())?;
    let models = usages.policy.iter().chain(&usages.prm);
    Ok(Timing {
        policy: cell.policy.clone(),
        prm: cell.prm.clone(),
        configuration: cell.configuration.clone(),
        n,
        seed: cell.search.seed,
        problems: problems.len(),
        seconds,
        kv_peak_bytes: models
            .map(|m| (m.kv.peak_blocks * m.kv.block_bytes) as u64)
            .sum(),
        machine: session.info().machine.name.clone(),
    })
}

/// The times that are there.
pub fn read(folder: &Folder) -> Done<Vec<Timing>> {
    let failed = |e: &io::Error| Failure::io(&shown(folder, FILE), e);
    let text = match std::fs::read_to_string(folder.file(FILE)) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(&e)),
    };
    let line = |line: &str| serde_json::from_str(line);
    let lines: Result<Vec<Timing>, _> = text.lines().map(line).collect();
    lines.map_err(|e| {
        Failure::new(format!(
            "{}: not times of a sweep: {e}",
            shown(folder, FILE)
        ))
    })
}

fn write(folder: &Folder, timings: &[Timing]) -> Done {
    let mut bytes = Vec::new();
    for timing in timings {
        serde_json::to_writer(&mut bytes, timing).map_err(|e| Failure::new(e.to_string()))?;
        bytes.push(b'\n');
    }
    Ok(folder.write(FILE, &bytes)?)
}
