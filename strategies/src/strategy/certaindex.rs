//! Certaindex: a solution ends early once probes of it agree on the answer.
//!
//! Fu et al., *Efficiently Scaling LLM Reasoning with Certaindex* (arXiv 2412.20993); the probes, their
//! reading and the rule are those of the authors' code (hao-ai-lab/Dynasor, `dynasor/core/cot.py`);
//! SEMANTICS.md, "Certaindex". A probe is a fork, so that it reads its own tokens alone.

use super::{Row, validate_whole_solutions};
use crate::search::draft::{Draft, Written, ending};
use crate::{Config, Ending, Error, Grader, Policy, Prm, Sampling, Search, Solution, StepEnd};
use engine::Setting;
use futures::future::{try_join, try_join_all};

pub(super) const ROW: Row = Row {
    name: "certaindex",
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

/// Tokens of a probe, at most.
const PROBE_TOKENS: usize = 20;
/// How a probe's tokens are drawn.
const PROBE_SAMPLING: Sampling = Sampling {
    temperature: 0.6,
    top_p: 0.95,
    ..Sampling::GREEDY
};
/// A probe with one of these, in any case and also within a word, is not sure.
const HEDGES: [&str; 6] = ["wait", "hold", "but", "okay", "no", "hmm"];

fn validate(config: &Config) -> Result<(), Setting> {
    validate_whole_solutions(config)?;
    if !config.probe_prompt.ends_with('{') {
        let expected = "a text that ends with {, which opens the answer";
        return Err(Setting::new("probe_prompt", &config.probe_prompt, expected));
    }
    for (name, value) in [
        ("probe_interval", config.probe_interval),
        ("probe_agreement", config.probe_agreement),
    ] {
        if value == 0 {
            return Err(Setting::new(name, value, "at least 1"));
        }
    }
    Ok(())
}

/// Writes N solutions.
pub(super) async fn run<P: Policy, R: Prm>(
    search: &Search<'_, P, R>,
) -> Result<Vec<Solution>, Error> {
    let drafts = search.drafts(search.config.n, None).await?;
    let written = drafts.into_iter().map(|draft| async {
        let written = write_until_sure(draft, search.config).await?;
        search.report_solution(&written.solution);
        Ok::<_, Error>(written)
    });
    Ok(search.record_drafts(try_join_all(written).await?))
}

async fn write_until_sure<P: Policy, R: Prm>(
    mut draft: Draft<'_, '_, P, R>,
    config: &Config,
) -> Result<Written, Error> {
    let mut answers: Vec<Option<String>> = Vec::new();
    loop {
        let left = config.max_tokens.saturating_sub(draft.num_tokens);
        let part = config.probe_interval.min(left);
        // The probe looks at what was there before the part that is written beside it, as in the code.
        let probe = probe(draft.fork(), &config.probe_prompt);
        let write = draft.write(None, false, part, config.sampling);
        let (step, (probe, answer)) = try_join(write, probe).await?;
        draft.adopt(probe);
        if step.end != StepEnd::Length || step.num_tokens < part || part == left {
            return draft.finish(ending(step.end), "");
        }
        answers.push(answer);
        if let Some(answer) = agreed(&answers, config.probe_agreement, config.grader) {
            let closing = closing(&draft.text()?, &config.thinking_end, answer);
            return draft.finish(Ending::Finished, &closing);
        }
    }
}

/// A probe with the answer that it gives; `None` if it gives none or is not sure.
async fn probe<'s, 'a, P: Policy, R: Prm>(
    mut draft: Draft<'s, 'a, P, R>,
    prompt: &str,
) -> Result<(Draft<'s, 'a, P, R>, Option<String>), Error> {
    let mut answer = None;
    if draft.append(prompt)? {
        let step = (draft.write(None, false, PROBE_TOKENS, PROBE_SAMPLING)).await?;
        answer = sure_answer(&step.text);
    }
    Ok((draft, answer))
}

/// The answer in a probe's text: up to the brace that closes the box. `None` without one, if it is empty,
/// or with a hedge anywhere in the text.
fn sure_answer(text: &str) -> Option<String> {
    let mut depth = 0usize;
    let end = text.char_indices().find_map(|(at, c)| match c {
        '}' if depth == 0 => Some(at),
        '}' => {
            depth -= 1;
            None
        }
        '{' => {
            depth += 1;
            None
        }
        _ => None,
    })?;
    let lower = text.to_lowercase();
    let sure = !HEDGES.iter().any(|hedge| lower.contains(hedge));
    let answer = text[..end].trim();
    (sure && !answer.is_empty()).then(|| answer.to_string())
}

/// The answer that the last `count` probes agree on, as the last of them gives it.
fn agreed(answers: &[Option<String>], count: usize, grader: Grader) -> Option<&str> {
    let last = &answers[answers.len().checked_sub(count)?..];
    let first = last.first()?.as_deref()?;
    let same = |answer: &Option<String>| {
        (answer.as_deref()).is_some_and(|answer| grader.equivalent(first, answer))
    };
    last.iter().all(same).then(|| last.last()?.as_deref())?
}

/// The end of a solution whose probes agree: it closes the thinking, if `text` has not.
fn closing(text: &str, thinking_end: &str, answer: &str) -> String {
    let close = match text.contains(thinking_end) {
        true => " ".to_string(),
        false => format!("{thinking_end}\n "),
    };
    format!(
        "\n\n...{close}Oh, I have got the answer to the whole problem\n**Final Answer:**\n\
         \\[\n \\boxed{{{answer}}}\n\\]"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_read_as_the_authors_read_them() {
        for (text, expected) in [
            ("", None),
            ("7", None),
            ("7}", Some("7")),
            (" 7 } \\]", Some("7")),
            ("\\frac{1}{2}} so", Some("\\frac{1}{2}")),
            ("\\frac{1}{2} so", None),
            ("} 7}", None),
            ("7} Wait, 8", None),
            ("7} HMM", None),
            // Within a word too: "no" in "not", "but" in "button".
            ("7} which is not 8", None),
            ("\\text{button}}", None),
        ] {
            assert_eq!(sure_answer(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn agreement_table() {
        type Case = (&'static [&'static str], usize, Option<&'static str>);
        let cases: &[Case] = &[
            (&[], 1, None),
            (&["7"], 1, Some("7")),
            (&["7"], 2, None),
            (&["7", "7"], 2, Some("7")),
            (&["8", "7", "7"], 2, Some("7")),
            (&["7", "8", "7"], 2, None),
            (&["7", "-", "7"], 2, None),
            (&["-", "-"], 2, None),
            // Equal as answers, not as texts: the last of them is given.
            (&["0.5", "\\frac{1}{2}"], 2, Some("\\frac{1}{2}")),
        ];
        for &(answers, count, expected) in cases {
            let answers: Vec<Option<String>> = (answers.iter())
                .map(|&answer| (answer != "-").then(|| answer.to_string()))
                .collect();
            let found = agreed(&answers, count, Grader::Strict);
            assert_eq!(found, expected, "{answers:?}, {count}");
        }
    }

    #[test]
    fn the_thinking_is_closed_once() {
        let open = closing("<think>\nhm", "</think>", "7");
        assert!(open.starts_with("\n\n...</think>\n Oh,"), "{open}");
        assert!(open.ends_with("\\boxed{7}\n\\]"), "{open}");
        let closed = closing("<think>\nhm</think> So", "</think>", "7");
        assert!(closed.starts_with("\n\n... Oh,"), "{closed}");
    }
}
