//! Budget forcing: thinking that is held to a budget, ended or continued by force.
//!
//! Muennighoff et al., *s1: Simple test-time scaling* (arXiv 2501.19393), section 3.1; the order of the
//! authors' code (README and the fork of lm-evaluation-harness, `vllm_causallms.py`); SEMANTICS.md,
//! "Budget forcing". Where they have the tokens of s1's own template, the delimiters are options.

use super::{Row, validate_whole_solutions};
use crate::search::draft::{Draft, Written, ending};
use crate::{Config, Ending, Error, Policy, Prm, Search, Solution, StepEnd};
use engine::Setting;
use futures::future::try_join_all;

pub(super) const ROW: Row = Row {
    name: "budget-forcing",
    needs_prm: false,
    uses_beam_width: false,
    stops: false,
    adapts: false,
    branches: false,
    default_n: 1,
    default_temperature: 0.7,
    default_balance_temperature: 0.2,
    validate,
    candidates_per_solution: |_| Some(1),
};

fn validate(config: &Config) -> Result<(), Setting> {
    validate_whole_solutions(config)?;
    if config.thinking_end.trim().is_empty() {
        let expected = "the text that ends a model's thinking";
        return Err(Setting::new("thinking_end", "empty", expected));
    }
    if config.continuations > 0 && config.continuation_text.is_empty() {
        let expected = "a text to go on with, or no `continuations`";
        return Err(Setting::new("continuation_text", "empty", expected));
    }
    if config.thinking_budget >= config.max_tokens {
        let most = config.max_tokens;
        let expected = format!("less than `max_tokens` ({most}), which the answer needs too");
        return Err(Setting::new(
            "thinking_budget",
            config.thinking_budget,
            expected,
        ));
    }
    Ok(())
}

/// Writes N solutions.
pub(super) async fn run<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
) -> Result<Vec<Solution>, Error> {
    let start = &search.config.thinking_start;
    let opening = (!search.prompt_ends_with(start)?).then(|| format!("{start}\n"));
    let drafts = search.drafts(search.config.n, opening.as_deref()).await?;
    let written = drafts.into_iter().map(|draft| async {
        let written = think_and_answer(draft, search.config).await?;
        search.report_solution(&written.solution);
        Ok::<_, Error>(written)
    });
    Ok(search.record_drafts(try_join_all(written).await?))
}

/// How the thinking ended.
enum Thinking {
    /// The model ended it.
    Ended,
    /// The budget is used up.
    UsedUp,
    /// The context has no room.
    Cut,
}

async fn think_and_answer<P: Policy, R: Prm>(
    mut draft: Draft<'_, '_, P, R>,
    config: &Config,
) -> Result<Written, Error> {
    let thinking = think(&mut draft, config).await?;
    let (end, text) = (&config.thinking_end, draft.text()?);
    let closing = match thinking {
        Thinking::Cut => return draft.finish(Ending::LengthCut, ""),
        Thinking::Ended if text.ends_with(end) => "\n\n".to_string(),
        Thinking::Ended => format!("{end}\n\n"),
        Thinking::UsedUp => {
            let on_new_line = text.is_empty() || text.ends_with('\n');
            let line_break = if on_new_line { "" } else { "\n" };
            format!("{line_break}{end}\n\n{}", config.answer_prompt)
        }
    };
    if !draft.append(&closing)? {
        return draft.finish(Ending::LengthCut, "");
    }
    let left = config.max_tokens.saturating_sub(draft.num_tokens);
    let answer = draft.write(None, false, left, config.sampling).await?;
    draft.finish(ending(answer.end), "")
}

/// Writes the thinking; the text that ends it may be there or not.
async fn think<P: Policy, R: Prm>(
    draft: &mut Draft<'_, '_, P, R>,
    config: &Config,
) -> Result<Thinking, Error> {
    let mut left = config.thinking_budget;
    let mut continuations = config.continuations;
    while left > 0 {
        // Text of several tokens is cheaper to keep than to take back.
        let keep = continuations == 0;
        let step = draft.write(Some(&config.thinking_end), keep, left, config.sampling);
        let step = step.await?;
        left = left.saturating_sub(step.num_tokens);
        match step.end {
            StepEnd::Length if left > 0 => return Ok(Thinking::Cut),
            StepEnd::Length => break,
            _ if continuations == 0 || left == 0 => return Ok(Thinking::Ended),
            _ => continuations -= 1,
        }
        if !draft.append(&config.continuation_text)? {
            return Ok(Thinking::Cut);
        }
    }
    Ok(Thinking::UsedUp)
}
