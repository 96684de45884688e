//! Times of a sweep's configurations, each alone on the machine: the searches of a sweep run together, so
//! their own times would say nothing.

use std::time::Instant;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use session::sweep::{Cell, Folder, Timing};
use session::{Config, Session};
use strategies::Problem;

use super::{Group, label, open};
use crate::error::Done;
use crate::flags::SweepFlags;

/// Times every configuration and N that is not in the file yet, with its first seed.
pub fn run(flags: &SweepFlags, folder: &Folder, groups: &[Group], problems: &[Problem]) -> Done {
    let problems = &problems[..flags.timed.min(problems.len())];
    if problems.is_empty() {
        return Ok(());
    }
    let mut there = folder.timings()?;
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
        folder.write_timings(&there)?;
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
