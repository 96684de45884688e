//! Which search a problem gets, by how hard it looks after a first one: what the strategy `auto` follows
//! (SEMANTICS.md, "Auto"). Not the engine's batch plan.

use engine::Setting;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Config, Error, Selection, Strategy};

/// A search and what follows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The search: options by name, as [`Config::from_options`] reads them. What is the same for a whole
    /// run, such as the seed, the grader and the limits of tokens, is the run's.
    pub search: Map<String, Value>,
    /// What follows, by difficulty, the easiest first; nothing where there is no rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// What follows a search at some difficulty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The highest difficulty it is for: 1 less the support of the search's answer
    /// ([`Selected::support`](crate::Selected::support)), 1 without an answer. The last rule has 1.
    pub difficulty: f64,
    /// What it came to where it was learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<Learned>,
    /// Another search, and what follows that; `None`: the answer stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Box<Plan>>,
}

/// What a rule came to on the problems that it was learned from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learned {
    /// The share of all problems that it was for.
    pub share: f64,
    /// The share of right answers among them before, by the search that it follows.
    pub before: f64,
    /// The share of right answers among them in the end.
    pub after: f64,
}

/// What `auto` did with a problem.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The difficulty after the first search.
    pub difficulty: f64,
    /// Searches, the first included.
    pub searches: usize,
    /// The strategy that answered.
    pub strategy: Strategy,
    /// Its N.
    pub n: usize,
    /// Its selection.
    pub selection: Selection,
}

/// Samples by which [`Plan::by_size`] judges a problem.
const SAMPLES: usize = 4;

impl Plan {
    /// The guidance of the paper for a policy of a size (arXiv 2502.06703, section 4.2 and its summary):
    /// below 7 billion parameters best-of-N on easy and beam search on harder problems; below 32 billion
    /// DVTS on easy and medium problems, beam search on hard ones; else best-of-N. Easy are problems of which
    /// at least half of the samples are right, hard those with less than a tenth (section 4.1): by four
    /// samples and their scores, since nobody knows which are right.
    ///
    /// `n` is the N of all three.
    pub fn by_size(params: u64, n: usize) -> Plan {
        let billions = params as f64 / 1e9;
        let strategies = match () {
            () if billions < 7.0 => [Strategy::BestOfN, Strategy::Beam, Strategy::Beam],
            () if billions < 32.0 => [Strategy::Dvts, Strategy::Dvts, Strategy::Beam],
            () => [Strategy::BestOfN; 3],
        };
        let samples = n.min(SAMPLES);
        let search = |strategy: Strategy| {
            let mut options = object(json!({"strategy": strategy.name(), "n": n}));
            if strategy.uses_beam_width() {
                // A divisor of N, the paper's if it is one.
                let paper = Config::new(strategy).beam_width;
                let width = (1..=paper.min(n))
                    .rev()
                    .find(|width| n.is_multiple_of(*width));
                options.insert("beam_width".into(), json!(width));
            }
            options
        };
        let alone = |search| {
            Box::new(Plan {
                search,
                rules: Vec::new(),
            })
        };
        let rules = [0.5, 0.9, 1.0].into_iter().zip(strategies);
        Plan {
            search: object(json!({"strategy": "best-of-n", "n": samples})),
            rules: rules
                .map(|(difficulty, strategy)| Rule {
                    difficulty,
                    learned: None,
                    then: Some(alone(search(strategy))),
                })
                .collect(),
        }
    }

    /// Refuses a plan that no run could follow.
    ///
    /// # Errors
    /// Rules that are not in order or do not reach 1; options that are none; a search with a plan of its
    /// own, or with rules and without support.
    pub fn validate(&self, run: &Config) -> Result<(), Error> {
        let refuse =
            |found: String, expected: &str| Err(Setting::new("plan", found, expected).into());
        let config = Plan::config(&self.search, run)?;
        if config.strategy == Strategy::Auto {
            return refuse("with auto in it".into(), "strategies that search");
        }
        config.validate()?;
        let Some(last) = self.rules.last() else {
            return Ok(());
        };
        let difficulties: Vec<f64> = self.rules.iter().map(|rule| rule.difficulty).collect();
        if !difficulties.is_sorted_by(|a, b| a < b) || last.difficulty != 1.0 {
            let expected = "rules whose difficulties grow to 1";
            return refuse(format!("with rules for {difficulties:?}"), expected);
        }
        let selection = config.selection_or_default();
        if selection.needs_confidences() {
            let expected = "answers with support: by a PRM's scores or by majority";
            return refuse(format!("with rules after {selection}"), expected);
        }
        let mut follow = self.rules.iter().filter_map(|rule| rule.then.as_ref());
        follow.try_for_each(|plan| plan.validate(run))
    }

    /// The configuration of one of its searches within a run.
    ///
    /// # Errors
    /// Options that are none.
    pub fn config(options: &Map<String, Value>, run: &Config) -> Result<Config, Error> {
        let config = Config::from_options(options)?;
        Ok(Config {
            max_steps: run.max_steps,
            max_step_tokens: run.max_step_tokens,
            max_tokens: run.max_tokens,
            max_retries: run.max_retries,
            delimiter: run.delimiter.clone(),
            answer_marker: run.answer_marker.clone(),
            seed: run.seed,
            grader: run.grader,
            ..config
        })
    }

    /// What follows at a difficulty, if anything.
    pub fn next(&self, difficulty: f64) -> Option<&Plan> {
        let fits = |rule: &&Rule| difficulty <= rule.difficulty;
        let rule = self.rules.iter().find(fits).or(self.rules.last())?;
        rule.then.as_deref()
    }
}

/// How hard a problem looks from the support of an answer.
pub fn difficulty(support: Option<f64>) -> f64 {
    (1.0 - support.unwrap_or(0.0)).clamp(0.0, 1.0)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rules: &[(f64, Option<Value>)]) -> Plan {
        let rule = |(difficulty, search): &(f64, Option<Value>)| Rule {
            difficulty: *difficulty,
            learned: None,
            then: search.clone().map(|search| {
                Box::new(Plan {
                    search: object(search),
                    rules: Vec::new(),
                })
            }),
        };
        Plan {
            search: object(json!({"strategy": "beam", "n": 4})),
            rules: rules.iter().map(rule).collect(),
        }
    }

    #[test]
    fn the_papers_guidance_by_size() {
        for (billions, n, expected) in [
            (0.001, 16, ["best-of-n 16", "beam 16/4", "beam 16/4"]),
            (6.9, 6, ["best-of-n 6", "beam 6/3", "beam 6/3"]),
            (7.0, 16, ["dvts 16/4", "dvts 16/4", "beam 16/4"]),
            (31.0, 7, ["dvts 7/1", "dvts 7/1", "beam 7/1"]),
            (32.0, 1, ["best-of-n 1", "best-of-n 1", "best-of-n 1"]),
        ] {
            let run = Config::new(Strategy::Auto);
            let plan = Plan::by_size((billions * 1e9) as u64, n);
            plan.validate(&run).expect("a plan");
            let words = plan.rules.iter().map(|rule| {
                let then = rule.then.as_ref().expect("a search");
                let config = Plan::config(&then.search, &run).expect("options");
                match config.strategy.uses_beam_width() {
                    true => format!(
                        "{} {}/{}",
                        config.strategy.name(),
                        config.n,
                        config.beam_width
                    ),
                    false => format!("{} {}", config.strategy.name(), config.n),
                }
            });
            assert_eq!(words.collect::<Vec<_>>(), expected);
        }
        let plan = Plan::by_size(1_000_000_000, 16);
        let strategy = |d| plan.next(d).map(|then| then.search["strategy"].clone());
        let found = [0.0, 0.5, 0.51, 1.0].map(|d| strategy(d).expect("a search"));
        assert_eq!(found, ["best-of-n", "best-of-n", "beam", "beam"]);
    }

    #[test]
    fn difficulty_table() {
        let found = [
            None,
            Some(0.0),
            Some(0.25),
            Some(1.0),
            Some(-1.0),
            Some(1.5),
        ]
        .map(difficulty);
        assert_eq!(found, [1.0, 1.0, 0.75, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn a_plan_that_nobody_can_follow_is_one_sentence() {
        let beam = json!({"strategy": "beam", "n": 16});
        let run = Config::new(Strategy::Auto);
        for (rules, sentence) in [
            (
                vec![(0.5, None)],
                "`plan` is with rules for [0.5]; expected rules whose difficulties grow to 1",
            ),
            (
                vec![(0.5, None), (0.5, None), (1.0, None)],
                "`plan` is with rules for [0.5, 0.5, 1.0]; expected rules whose difficulties grow to 1",
            ),
            (
                vec![(0.5, None), (1.0, Some(json!({"strategy": "auto"})))],
                "`plan` is with auto in it; expected strategies that search",
            ),
            (
                vec![
                    (0.5, None),
                    (1.0, Some(json!({"strategy": "beam", "beem": 3}))),
                ],
                "`beem` is not an option of a search",
            ),
            (
                vec![
                    (0.5, Some(beam.clone())),
                    (1.0, Some(json!({"strategy": "beam", "n": 6}))),
                ],
                "`n` is 6; expected a multiple of `beam_width` (4): the strategy beam keeps n / 4 branches",
            ),
        ] {
            let error = plan(&rules).validate(&run).expect_err(sentence);
            assert_eq!(error.to_string(), sentence);
        }
        plan(&[(0.5, None), (1.0, Some(beam))])
            .validate(&run)
            .expect("a plan");
        plan(&[]).validate(&run).expect("a search alone is a plan");
        let mut unsupported = plan(&[(1.0, None)]);
        unsupported.search =
            object(json!({"strategy": "majority", "selection": "tail-confidence-vote"}));
        let error = unsupported
            .validate(&run)
            .expect_err("no support")
            .to_string();
        assert!(
            error.contains("rules after tail-confidence-vote"),
            "{error}"
        );
    }

    #[test]
    fn what_is_the_same_for_a_run_is_the_runs() {
        let run = Config {
            seed: 7,
            max_tokens: 99,
            grader: crate::Grader::Qwen,
            ..Config::new(Strategy::Auto)
        };
        let options = object(json!({"strategy": "dvts", "n": 8, "temperature": 0.5}));
        let config = Plan::config(&options, &run).expect("options");
        let mut expected = Config {
            n: 8,
            seed: 7,
            max_tokens: 99,
            grader: crate::Grader::Qwen,
            ..Config::new(Strategy::Dvts)
        };
        expected.sampling.temperature = 0.5;
        assert_eq!(config, expected);
    }
}
