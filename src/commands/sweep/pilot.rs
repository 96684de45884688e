//! `offshoot sweep --dry-run`: what a grid would take, by a pilot on a few problems.

use std::time::Instant;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use session::sweep::Cell;
use session::{Config, Session};
use strategies::Problem;

use super::report::short;
use super::{Group, open};
use crate::commands::{print, print_json};
use crate::error::Done;
use crate::flags::SweepFlags;
use crate::progress::duration;
use crate::table::table;

/// Problems of the pilot, evenly spread over the set.
const PROBLEMS: usize = 4;

/// The most solutions of a pilot's search, where a strategy can have fewer.
const SOLUTIONS: usize = 4;

/// What one configuration would take.
#[derive(Serialize)]
struct Estimate {
    policy: String,
    prm: Option<String>,
    configuration: String,
    n: usize,
    cells: usize,
    searches: usize,
    policy_tokens: f64,
    prm_tokens: f64,
    hours: f64,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Plan {
    cells: usize,
    problems: usize,
    searches: usize,
    policy_tokens: f64,
    prm_tokens: f64,
    hours: f64,
    pilot_problems: usize,
    configurations: Vec<Estimate>,
}

/// Runs the pilot and says what the grid would take.
pub fn run(flags: &SweepFlags, groups: &[Group], problems: &[Problem]) -> Done {
    let sample: Vec<&Problem> = (0..PROBLEMS.min(problems.len()))
        .map(|i| &problems[i * problems.len() / PROBLEMS.min(problems.len())])
        .collect();
    let mut configurations: Vec<Estimate> = Vec::new();
    for group in groups {
        let session = open(flags, group)?;
        for cell in group.cells.iter().map(|file| &file.cell) {
            let (name, n) = (&cell.configuration, cell.search.n);
            let known = configurations.iter_mut().find(|e| {
                let named = (&e.policy, &e.prm, &e.configuration, e.n);
                named == (&cell.policy, &cell.prm, name, n)
            });
            match known {
                // Another seed.
                Some(estimate) => estimate.add_seed(problems.len()),
                None => configurations.push(estimate(&session, cell, &sample, problems.len())?),
            }
        }
    }
    let sum = |of: fn(&Estimate) -> f64| configurations.iter().map(of).sum::<f64>();
    let plan = Plan {
        cells: configurations.iter().map(|e| e.cells).sum(),
        problems: problems.len(),
        searches: configurations.iter().map(|e| e.searches).sum(),
        policy_tokens: sum(|e| e.policy_tokens),
        prm_tokens: sum(|e| e.prm_tokens),
        hours: sum(|e| e.hours),
        pilot_problems: sample.len(),
        configurations,
    };
    match flags.json {
        true => print_json(&plan),
        false => print(&render(&plan)),
    }
}

impl Estimate {
    fn add_seed(&mut self, problems: usize) {
        let more = (self.cells + 1) as f64 / self.cells as f64;
        self.cells += 1;
        self.searches += problems;
        self.policy_tokens *= more;
        self.prm_tokens *= more;
        self.hours *= more;
    }
}

/// Runs a cell's search with a small N on the sample; tokens and time grow as N.
fn estimate(
    session: &Session,
    cell: &Cell,
    sample: &[&Problem],
    problems: usize,
) -> Done<Estimate> {
    let n = match cell.search.strategy.writes_whole_solutions() {
        true => cell.search.n.min(SOLUTIONS),
        false => cell.search.n.min(SOLUTIONS.max(cell.search.beam_width)),
    };
    let small = Config {
        n,
        ..cell.search.clone()
    };
    // A strategy may need the N it was given.
    let config = match small.validate() {
        Ok(()) => small,
        Err(_) => cell.search.clone(),
    };
    let more = cell.search.n as f64 / config.n as f64;
    let began = Instant::now();
    let (policy, prm) = futures::executor::block_on(async {
        let mut jobs: FuturesUnordered<_> = (sample.iter())
            .map(|&problem| session.solve(problem.clone(), config.clone()).outcome())
            .collect();
        let (mut policy, mut prm) = (0, 0);
        while let Some(outcome) = jobs.next().await {
            let outcome = outcome?;
            policy += outcome.cost.drawn;
            prm += outcome.cost.prm.tokens;
        }
        Done::Ok((policy, prm))
    })?;
    let all = more * problems as f64 / sample.len() as f64;
    Ok(Estimate {
        policy: cell.policy.clone(),
        prm: cell.prm.clone(),
        configuration: cell.configuration.clone(),
        n: cell.search.n,
        cells: 1,
        searches: problems,
        policy_tokens: policy as f64 * all,
        prm_tokens: prm as f64 * all,
        hours: began.elapsed().as_secs_f64() / 3600.0 * all,
    })
}

fn render(plan: &Plan) -> String {
    let header = [
        "policy",
        "PRM",
        "configuration",
        "N",
        "cells",
        "searches",
        "tokens",
        "PRM tokens",
        "time",
    ];
    let mut table = table(header, 3);
    for e in &plan.configurations {
        table.add_row([
            e.policy.clone(),
            e.prm.clone().unwrap_or_else(|| "-".into()),
            e.configuration.clone(),
            e.n.to_string(),
            e.cells.to_string(),
            e.searches.to_string(),
            short(e.policy_tokens),
            short(e.prm_tokens),
            duration(3600.0 * e.hours),
        ]);
    }
    format!(
        "{table}\n{} cells, {} problems, {} searches: about {} tokens, {} of the PRM, at most {} by a pilot \
         of {} problems with a small N each, whose batches are smaller than the sweep's. Nothing was \
         written.\n",
        plan.cells,
        plan.problems,
        plan.searches,
        short(plan.policy_tokens),
        short(plan.prm_tokens),
        duration(3600.0 * plan.hours),
        plan.pilot_problems
    )
}
