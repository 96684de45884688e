//! First finished: of N solutions written side by side the first m that finish vote, and the others stop.
//!
//! Agarwal et al., *First Finish Search* (arXiv 2505.18149, the synchronous variant), which is m = 1; Hassid
//! et al., *Don't Overthink it* (arXiv 2505.17813), short-m@k; SEMANTICS.md, "First finished". First is by
//! tokens and not by the clock, so the answer does not depend on the batches.

use super::{Row, validate_whole_solutions};
use crate::search::draft::{Draft, ending};
use crate::trace::NodeState;
use crate::{Config, Ending, Error, Policy, Prm, Sampling, Search, Solution, StepEnd};
use engine::Setting;
use futures::future::try_join_all;

pub(super) const ROW: Row = Row {
    name: "first-finished",
    needs_prm: false,
    uses_beam_width: false,
    stops: false,
    adapts: false,
    branches: false,
    default_n: 4,
    default_temperature: 0.7,
    default_balance_temperature: 0.2,
    validate,
    candidates_per_solution: |_| None,
};

/// Tokens that all solutions write before it is looked which have finished.
const ROUND: usize = 64;

fn validate(config: &Config) -> Result<(), Setting> {
    validate_whole_solutions(config)?;
    if config.wait_for == 0 || config.wait_for > config.n {
        let expected = format!("a number from 1 to `n` ({})", config.n);
        return Err(Setting::new("wait_for", config.wait_for, expected));
    }
    Ok(())
}

/// Writes until `wait_for` of N solutions have finished; they are the solutions, the shortest first.
pub(super) async fn run<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
) -> Result<Vec<Solution>, Error> {
    let config = search.config;
    let mut drafts = search.drafts(config.n, None).await?;
    let mut ends: Vec<Option<Ending>> = vec![None; config.n];
    let mut written = 0;
    while written < config.max_tokens && ends.contains(&None) {
        let round = ROUND.min(config.max_tokens - written);
        let open = (drafts.iter_mut().zip(&mut ends)).filter(|(_, end)| end.is_none());
        try_join_all(open.map(|(draft, end)| write(draft, end, round, config.sampling))).await?;
        written += round;
        let finished = ends.iter().filter(|&&end| end == Some(Ending::Finished));
        if finished.count() >= config.wait_for {
            break;
        }
    }
    let tokens = drafts.iter().map(|draft| draft.num_tokens);
    let finished = ends.iter().map(|&end| end == Some(Ending::Finished));
    let first = first(&tokens.zip(finished).collect::<Vec<_>>(), config.wait_for);
    let mut all = Vec::new();
    for (index, (draft, end)) in drafts.into_iter().zip(ends).enumerate() {
        let mut written = draft.finish(end.unwrap_or(Ending::LengthCut), "")?;
        if !first.contains(&index) {
            written.state = NodeState::Dropped;
        }
        all.push(written);
    }
    let all = search.record_drafts(all);
    Ok(first.into_iter().map(|index| all[index].clone()).collect())
}

/// Writes a round; `end` is the ending of a draft that cannot go on.
async fn write<P: Policy, R: Prm>(
    draft: &mut Draft<'_, '_, P, R>,
    end: &mut Option<Ending>,
    round: usize,
    sampling: Sampling,
) -> Result<(), Error> {
    let step = draft.write(None, false, round, sampling).await?;
    // Fewer tokens without an end: the context is full.
    if step.end != StepEnd::Length || step.num_tokens < round {
        *end = Some(ending(step.end));
    }
    Ok(())
}

/// The indices of up to `count` solutions with the fewest tokens among those that finished, the shortest
/// first, of equal ones the earlier; if none finished that of the first of all.
fn first(solutions: &[(usize, bool)], count: usize) -> Vec<usize> {
    let mut finished: Vec<usize> = (0..solutions.len()).filter(|&i| solutions[i].1).collect();
    finished.sort_by_key(|&index| solutions[index].0); // stable
    finished.truncate(count);
    if finished.is_empty() {
        finished.push(0);
    }
    finished
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_table() {
        type Case = (&'static [(usize, bool)], usize, &'static [usize]);
        let cases: &[Case] = &[
            (&[(5, true)], 1, &[0]),
            (&[(5, false)], 1, &[0]),
            (&[(5, false), (7, true)], 1, &[1]),
            (&[(9, true), (7, true), (7, true), (3, false)], 1, &[1]),
            (&[(9, true), (7, true), (7, true), (3, false)], 2, &[1, 2]),
            (
                &[(9, true), (7, true), (7, true), (3, false)],
                3,
                &[1, 2, 0],
            ),
            // Fewer finished than it waits for.
            (&[(9, false), (7, true), (8, false)], 3, &[1]),
            (&[(9, false), (7, false)], 2, &[0]),
        ];
        for &(solutions, count, expected) in cases {
            assert_eq!(first(solutions, count), expected, "{solutions:?}, {count}");
        }
    }
}
