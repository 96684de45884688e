//! Auto: a search that fits the problem's difficulty.
//!
//! *Can 1B LLM Surpass 405B LLM?* (arXiv 2502.06703), section 3.2: the compute-optimal strategy depends
//! on policy, PRM and problem; SEMANTICS.md, "Auto". Every problem begins with the plan's first search, a
//! cheap one. How little supports its answer is the problem's difficulty, by which the answer stands or
//! another search follows, with the same seed: it finds what it would have found alone, and the problem's
//! prompts are read once for all of them.

use super::{Row, Strategy};
use crate::plan::{Choice, Plan, difficulty};
use crate::{Config, Error, Policy, Prm, Search, Solution, StopRule, select};
use engine::Setting;

pub(super) const ROW: Row = Row {
    name: "auto",
    needs_prm: true,
    uses_beam_width: false,
    branches: false,
    adapts: false,
    stops: false,
    default_n: 16,
    default_temperature: 0.7,
    default_balance_temperature: 0.2,
    validate,
    candidates_per_solution: |_| None,
};

fn validate(config: &Config) -> Result<(), Setting> {
    if let Some(selection) = config.selection {
        let expected = "none: the plan says how the strategy auto selects";
        return Err(Setting::new("selection", selection, expected));
    }
    for (option, found, off) in [
        ("lookahead", config.lookahead, 0),
        ("verify_every", config.verify_every, 1),
    ] {
        if found != off {
            let expected = format!("{off}: the plan says how the strategy auto searches");
            return Err(Setting::new(option, found, expected));
        }
    }
    Ok(())
}

/// Searches until an answer stands.
pub(super) async fn run<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
) -> Result<Vec<Solution>, Error> {
    let run = search.config;
    let Some(mut plan) = run.plan.as_deref() else {
        return Err(Setting::new("plan", "missing", "a plan for the strategy auto").into());
    };
    let stem = search.open_stem().await?;
    let mut choice: Option<Choice> = None;
    let mut config = Plan::config(&plan.search, run)?;
    let mut begun = Vec::new();
    loop {
        let part = search.within(&config, &stem);
        let mut solutions = match begun.is_empty() {
            true => Box::pin(config.strategy.run(&part)).await?,
            false => {
                part.write_more(std::mem::take(&mut begun), config.n)
                    .await?
            }
        };
        part.read_answers(&mut solutions);
        let selection = config.selection_or_default();
        let found = select(selection, &solutions, run.grader);
        let difficulty = difficulty(found.and_then(|found| found.support));
        choice = Some(Choice {
            difficulty: choice.map_or(difficulty, |first| first.difficulty),
            searches: choice.map_or(0, |before| before.searches) + 1,
            strategy: config.strategy,
            n: config.n,
            selection,
        });
        let Some(next) = plan.next(difficulty) else {
            search.choice.set(choice);
            return Ok(search.merge_all(part, solutions));
        };
        let follows = Plan::config(&next.search, run)?;
        match goes_on(&config, &follows) {
            true => {
                search.count(part.cost.get());
                begun = solutions;
            }
            false => drop(search.merge_all(part, solutions)),
        }
        (plan, config) = (next, follows);
    }
}

/// Whether a search begins with the solutions of the one before: both are best-of-N with the same options.
fn goes_on(before: &Config, config: &Config) -> bool {
    let same = Config {
        n: before.n,
        selection: before.selection,
        ..config.clone()
    };
    config.strategy == Strategy::BestOfN
        && config.stop_rule == StopRule::None
        && config.n >= before.n
        && same == *before
}
