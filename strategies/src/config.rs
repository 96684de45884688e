//! Every option of a search, with the defaults of the paper's code (SEMANTICS.md, "Options").

use crate::{Aggregation, Error, Grader, Isotonic, Plan, Sampling, Selection, StopRule, Strategy};
use engine::Setting;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// Which of the two published beam searches runs: `strategy/beam.rs` states both in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BeamMode {
    /// compute-optimal-tts: a finished path holds one of the N/M slots.
    #[default]
    Paper,
    /// search-and-learn: always N active beams, finished paths leave.
    SearchAndLearn,
}

/// Every option of a search on one problem.
///
/// A configuration is read leniently (`Deserialize`), as results files of other releases hold it:
/// an option that is not there has its default, an option that is not known is ignored, and the
/// names of earlier releases are understood. [`Config::from_options`] reads a configuration written
/// by a person, where an unknown name is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")] // the derived functions are called by the impls below
pub struct Config {
    /// The strategy.
    pub strategy: Strategy,
    /// N: the candidates it may hold at once.
    pub n: usize,
    /// M: children of a kept branch, so N/M branches survive a step. Beam search and DVTS.
    pub beam_width: usize,
    /// Which beam search.
    pub beam_mode: BeamMode,
    /// Greedy steps looked ahead before a child is valued; 0 is off. Beam search and DVTS.
    pub lookahead: usize,
    /// Steps that a path writes before they are scored and compared. Step searches.
    pub verify_every: usize,
    /// Tokens of a step after which all but the best 1/M of a round are rejected; 0 is off. Beam search and
    /// DVTS.
    pub early_rejection: usize,
    /// The share of a path's children that must say the same for one of them to go on alone; 0 is off. Beam
    /// search, DVTS, REBASE, DORA and ETS.
    pub chain_threshold: f64,
    /// When a vote stops before N solutions. Majority and best-of-N.
    pub stop_rule: StopRule,
    /// DeepConf's η: with it a majority vote writes [`Config::confidence_warmup`] solutions first, and of
    /// all solutions only those vote whose lowest window is not below the percentile 100 − η of the
    /// warm-up's; later ones that fall below end there. 10 or 90 in the paper; `None` is off.
    pub confidence_bar: Option<f64>,
    /// The solutions that the bar is computed from.
    pub confidence_warmup: usize,
    /// Tokens of a window, and of a solution's tail.
    pub confidence_window: usize,
    /// The text that opens a model's thinking; empty for none. Budget forcing.
    pub thinking_start: String,
    /// The text that ends it. Budget forcing and Certaindex.
    pub thinking_end: String,
    /// Tokens of the thinking; then it is ended. Budget forcing.
    pub thinking_budget: usize,
    /// What follows the end of thinking that was forced, so that the answer follows it. Budget forcing.
    pub answer_prompt: String,
    /// How often a model that ends its thinking within the budget has to go on. Budget forcing.
    pub continuations: usize,
    /// What is put in place of an end of thinking, to go on. Budget forcing.
    pub continuation_text: String,
    /// Tokens between two probes of a solution. Certaindex.
    pub probe_interval: usize,
    /// Probes in a row that must agree. Certaindex.
    pub probe_agreement: usize,
    /// The text that asks a probe for its answer; ends with `{`. Certaindex.
    pub probe_prompt: String,
    /// Finished solutions that the search waits for: the m of short-m@k. First finished.
    pub wait_for: usize,
    /// The temperature of the softmax that shares a step's budget. REBASE, DORA and ETS.
    pub balance_temperature: f64,
    /// The temperature of the softmax over similarities of paths. DORA.
    pub similarity_temperature: f64,
    /// λ_b: what keeping every node of the tree costs, where keeping every path's share gives 1. ETS.
    pub kv_weight: f64,
    /// λ_d: what a kept path in every cluster gives. ETS.
    pub coverage_weight: f64,
    /// The cosine distance up to which clusters merge: of paths in ETS, of steps for `chain_threshold`.
    pub cluster_distance: f64,
    /// α: how much of the uncertainty of earlier steps stays in the average with each step. MUR.
    pub momentum_rate: f64,
    /// γ: a step whose tokens' probability is below γ times the average's is written N times. MUR.
    pub scaling_rate: f64,
    /// From scores to probabilities of success: with it N, or K and M of a round, are as large as
    /// [`Config::confidence`] asks for, up to those that are given. Best-of-N and beam search.
    pub calibration: Option<Isotonic>,
    /// The probability with which one candidate at least is to be right, by `calibration`.
    pub confidence: f64,
    /// How the scores of a path become the value by which a step search ranks it.
    pub aggregation: Aggregation,
    /// The maximum number of steps of a path in a step search.
    pub max_steps: usize,
    /// The maximum number of tokens of a step in a step search.
    pub max_step_tokens: usize,
    /// The maximum number of tokens of a solution.
    pub max_tokens: usize,
    /// Expansions of a path, the first included, until one gives a valid step; then it is given up.
    pub max_retries: usize,
    /// Text between two steps.
    pub delimiter: String,
    /// Text in a step that ends its path, because the step holds the answer; empty for none. Step
    /// searches.
    pub answer_marker: String,
    /// Which searches are run, by difficulty; `None`: [`Plan::by_size`], by the session. Auto.
    pub plan: Option<Box<Plan>>,
    /// How the policy's tokens are drawn.
    pub sampling: Sampling,
    /// Keys all random numbers, together with the problem's text.
    pub seed: u64,
    /// The selection that counts; `None` is [`Strategy::default_selection`].
    pub selection: Option<Selection>,
    /// Which grader compares answers.
    pub grader: Grader,
}

impl BeamMode {
    /// Both.
    pub const ALL: [BeamMode; 2] = [BeamMode::Paper, BeamMode::SearchAndLearn];

    /// The word for it in options and results.
    pub fn name(self) -> &'static str {
        match self {
            BeamMode::Paper => "paper",
            BeamMode::SearchAndLearn => "search-and-learn",
        }
    }
}

/// The largest N: far beyond any study, and few enough branches to list.
const MAX_N: usize = 65_536;

/// Options by the names that earlier releases wrote into results files.
const OLD_NAMES: [(&str, &str); 5] = [
    ("value", "aggregation"),
    ("verdict", "selection"),
    ("total_tokens", "max_tokens"),
    ("step_tokens", "max_step_tokens"),
    ("tries", "max_retries"),
];

/// That of Dynasor's code (`dynasor/core/cot.py`).
const PROBE_PROMPT: &str = "... Oh, I suddenly got the answer to the whole problem, \
                            **Final Answer**\n\n\\[ \\boxed{";

impl Config {
    /// The paper's settings: N = 16 (1 for CoT), M = 4, temperature 0.7 (0 for CoT), 40 steps
    /// of 2,048 tokens, 8,192 tokens in all, 3 tries, blank lines between steps.
    pub fn new(strategy: Strategy) -> Config {
        let row = strategy.row();
        Config {
            strategy,
            n: row.default_n,
            beam_width: 4,
            beam_mode: BeamMode::Paper,
            lookahead: 0,
            verify_every: 1,
            early_rejection: 0,
            chain_threshold: 0.0,
            stop_rule: StopRule::None,
            confidence_bar: None,
            confidence_warmup: 16,
            confidence_window: 2048,
            thinking_start: "<think>".into(),
            thinking_end: "</think>".into(),
            thinking_budget: 4096,
            answer_prompt: "Final Answer:".into(),
            continuations: 0,
            continuation_text: "Wait".into(),
            probe_interval: 64,
            probe_agreement: 3,
            probe_prompt: PROBE_PROMPT.into(),
            wait_for: 1,
            balance_temperature: row.default_balance_temperature,
            similarity_temperature: 0.01,
            kv_weight: 1.0,
            coverage_weight: 1.5,
            cluster_distance: 0.05,
            momentum_rate: 0.9,
            scaling_rate: 0.9,
            calibration: None,
            confidence: 0.99,
            aggregation: Aggregation::Last,
            max_steps: 40,
            max_step_tokens: 2048,
            max_tokens: 8192,
            max_retries: 3,
            delimiter: "\n\n".into(),
            answer_marker: "\\boxed{".into(),
            plan: None,
            sampling: Sampling {
                temperature: row.default_temperature,
                ..Sampling::GREEDY
            },
            seed: 0,
            selection: None,
            grader: Grader::Strict,
        }
    }

    /// The selection that counts.
    pub fn selection_or_default(&self) -> Selection {
        self.selection.unwrap_or(self.strategy.default_selection())
    }

    /// Whether the policy's confidences are computed: where the selection that counts or the bar needs
    /// them.
    pub(crate) fn records_confidences(&self) -> bool {
        self.confidence_bar.is_some() || self.selection_or_default().needs_confidences()
    }

    /// Reads options that a person wrote, by the names of this struct's fields: `strategy` is
    /// required, the others have the defaults of [`Config::new`]. The fields of `sampling` may stand
    /// beside them. The values are not validated.
    ///
    /// # Errors
    /// A name that is not an option; a value that is not of the option's kind.
    pub fn from_options(options: &Map<String, Value>) -> Result<Config, Error> {
        let options = &gathered(options);
        // The strategy first: the other options' defaults depend on it.
        let strategy = options.get_key_value("strategy");
        let others = options.iter().filter(|(name, _)| *name != "strategy");
        let mut read = Map::new();
        for (name, value) in strategy.into_iter().chain(others) {
            read.insert(name.clone(), value.clone());
            let (_, unknown) = with_defaults(&read).map_err(|e| Error::Option {
                name: name.clone(),
                problem: format!("is {value}: {e}"),
            })?;
            if let Some(unknown) = unknown.into_iter().next() {
                return Err(Error::Option {
                    name: unknown,
                    problem: "is not an option of a search".into(),
                });
            }
        }
        let (config, _) = with_defaults(&read).map_err(|e| Error::Option {
            name: "strategy".into(),
            problem: format!("is needed: {e}"),
        })?;
        Ok(config)
    }

    /// Refuses options that no run could honour.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first such option.
    pub fn validate(&self) -> Result<(), Error> {
        at_least_one("n", self.n)?;
        if self.n > MAX_N {
            let expected = format!("a number from 1 to {MAX_N}");
            return Err(Setting::new("n", self.n, expected).into());
        }
        (self.strategy.row().validate)(self)?;
        if self.stop_rule != StopRule::None && !self.strategy.row().stops {
            let name = self.strategy.name();
            let expected = format!("none: the strategy {name} does not vote as it goes");
            return Err(Setting::new("stop_rule", self.stop_rule.name(), expected).into());
        }
        let selection = self.selection_or_default();
        if self.stop_rule.counts_answers() && !selection.is_vote() {
            let expected = format!(
                "none or unbeatable: it counts answers, and the selection {selection} does not"
            );
            return Err(Setting::new("stop_rule", self.stop_rule.name(), expected).into());
        }
        if selection.needs_scores() && !self.strategy.needs_prm() {
            let name = self.strategy.name();
            let expected =
                format!("majority: the strategy {name} uses no PRM and so has no scores");
            return Err(Setting::new("selection", selection, expected).into());
        }
        self.validate_confidences()?;
        at_least_one("verify_every", self.verify_every)?;
        self.validate_early_rejection()?;
        self.validate_chain()?;
        self.validate_calibration()?;
        at_least_one("max_steps", self.max_steps)?;
        at_least_one("max_step_tokens", self.max_step_tokens)?;
        at_least_one("max_tokens", self.max_tokens)?;
        at_least_one("max_retries", self.max_retries)?;
        if self.delimiter.is_empty() {
            return Err(Setting::new("delimiter", "empty", "the text that ends a step").into());
        }
        match &self.plan {
            Some(_) if self.strategy != Strategy::Auto => {
                let name = self.strategy.name();
                let expected = format!("none: the strategy {name} follows no plan");
                return Err(Setting::new("plan", "given", expected).into());
            }
            Some(plan) => plan.validate(self)?,
            None => {}
        }
        check_sampling(&self.sampling)
    }

    fn validate_calibration(&self) -> Result<(), Setting> {
        if !(self.confidence > 0.0 && self.confidence < 1.0) {
            let expected = "a number above 0 and below 1";
            return Err(Setting::new("confidence", self.confidence, expected));
        }
        let Some(map) = &self.calibration else {
            return Ok(());
        };
        let expected = if !self.strategy.row().adapts {
            let name = self.strategy.name();
            format!("none: the strategy {name} does not adapt N or M")
        } else if !map.is_map() {
            "as many probabilities as scores, one at least, both ascending".into()
        } else {
            return Ok(());
        };
        Err(Setting::new("calibration", "a map", expected))
    }

    fn validate_chain(&self) -> Result<(), Setting> {
        let threshold = self.chain_threshold;
        let expected = if threshold == 0.0 {
            return Ok(());
        } else if !(0.0..=1.0).contains(&threshold) {
            "a share, from 0 to 1".into()
        } else if !self.strategy.row().branches {
            let name = self.strategy.name();
            format!("0: the strategy {name} does not have several children of every path")
        } else if self.verify_every > 1 {
            format!("0 with `verify_every` {}", self.verify_every)
        } else if self.early_rejection > 0 {
            format!("0 with `early_rejection` {}", self.early_rejection)
        } else {
            return self.validate_cluster_distance();
        };
        Err(Setting::new("chain_threshold", threshold, expected))
    }

    /// Refuses a distance of clusters that is none.
    pub(crate) fn validate_cluster_distance(&self) -> Result<(), Setting> {
        let distance = self.cluster_distance;
        if (0.0..=2.0).contains(&distance) {
            return Ok(());
        }
        let expected = "a cosine distance, from 0 to 2";
        Err(Setting::new("cluster_distance", distance, expected))
    }

    fn validate_early_rejection(&self) -> Result<(), Setting> {
        let expected = if self.early_rejection == 0 {
            return Ok(());
        } else if !self.strategy.uses_beam_width() {
            let name = self.strategy.name();
            format!("0: the strategy {name} does not keep one of M children")
        } else if self.verify_every > 1 {
            format!("0 with `verify_every` {}", self.verify_every)
        } else {
            return Ok(());
        };
        Err(Setting::new(
            "early_rejection",
            self.early_rejection,
            expected,
        ))
    }
}

impl Config {
    /// Refuses confidences that nobody computes, and a bar that stops nothing.
    fn validate_confidences(&self) -> Result<(), Setting> {
        let name = self.strategy.name();
        let selection = self.selection_or_default();
        if selection.needs_confidences() && !self.strategy.writes_whole_solutions() {
            let expected = format!(
                "majority or a selection by scores: the strategy {name} does not write whole solutions"
            );
            return Err(Setting::new("selection", selection, expected));
        }
        if selection.needs_confidences() && self.stop_rule == StopRule::Unbeatable {
            let expected = format!("none: a solution has no bound on its weight in {selection}");
            return Err(Setting::new("stop_rule", "unbeatable", expected));
        }
        at_least_one("confidence_window", self.confidence_window)?;
        at_least_one("confidence_warmup", self.confidence_warmup)?;
        let Some(eta) = self.confidence_bar else {
            return Ok(());
        };
        if !(eta > 0.0 && eta <= 100.0) {
            let expected = "a percentage above 0 and at most 100";
            return Err(Setting::new("confidence_bar", eta, expected));
        }
        if self.strategy != Strategy::Majority {
            let expected = format!("none: the strategy {name} has no bar, majority has");
            return Err(Setting::new("confidence_bar", eta, expected));
        }
        if self.stop_rule != StopRule::None {
            let expected = "none: with `confidence_bar` a vote is not looked at as it goes";
            return Err(Setting::new("stop_rule", self.stop_rule.name(), expected));
        }
        if self.n <= self.confidence_warmup {
            let warmup = self.confidence_warmup;
            let expected =
                format!("more than `confidence_warmup` ({warmup}), or no `confidence_bar`");
            return Err(Setting::new("n", self.n, expected));
        }
        Ok(())
    }
}

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Config::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Config, D::Error> {
        let mut given = Map::deserialize(deserializer)?;
        for (old, new) in OLD_NAMES {
            if let Some(value) = given.remove(old) {
                given.insert(new.into(), value);
            }
        }
        let (config, _) = with_defaults(&given).map_err(serde::de::Error::custom)?;
        Ok(config)
    }
}

/// Options that stand in `sampling`, and may be written beside it.
const SAMPLING: [&str; 5] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
];

/// The options with those of sampling in their place.
fn gathered(options: &Map<String, Value>) -> Map<String, Value> {
    let (beside, mut gathered): (Map<_, _>, Map<_, _>) =
        (options.clone().into_iter()).partition(|(name, _)| SAMPLING.contains(&name.as_str()));
    if !beside.is_empty() {
        let sampling = gathered
            .entry("sampling")
            .or_insert(Value::Object(Map::new()));
        if let Value::Object(sampling) = sampling {
            sampling.extend(beside);
        }
    }
    gathered
}

/// The paper's settings for the strategy in `given`, overlaid with `given`, and the names in
/// `given` that are not options.
fn with_defaults(given: &Map<String, Value>) -> serde_json::Result<(Config, Vec<String>)> {
    #[derive(Deserialize)]
    struct Named {
        strategy: Strategy,
    }
    let Named { strategy } = Named::deserialize(&Value::Object(given.clone()))?;
    let mut options = serde_json::to_value(Config::new(strategy))?;
    let mut unknown = Vec::new();
    overlay(&mut options, &Value::Object(given.clone()), &mut unknown);
    Ok((Config::deserialize(options)?, unknown))
}

/// Puts `given` in place of `option`, field by field.
fn overlay(option: &mut Value, given: &Value, unknown: &mut Vec<String>) {
    match (option, given) {
        (Value::Object(fields), Value::Object(given)) => {
            for (name, value) in given {
                match fields.get_mut(name) {
                    Some(field) => overlay(field, value, unknown),
                    None => unknown.push(name.clone()),
                }
            }
        }
        (option, given) => *option = given.clone(),
    }
}

/// Refuses a distribution that cannot be drawn from.
///
/// # Errors
/// [`Error::Setting`] with the first such option.
pub fn check_sampling(sampling: &Sampling) -> Result<(), Error> {
    let Sampling {
        temperature,
        top_p,
        min_p,
        repetition_penalty,
        ..
    } = *sampling;
    let refuse = |name, found, expected: &str| Err(Setting::new(name, found, expected).into());
    if !(temperature.is_finite() && temperature >= 0.0) {
        return refuse("temperature", temperature, "a number from 0 up");
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return refuse("top_p", top_p, "a number above 0 and at most 1");
    }
    if !(0.0..=1.0).contains(&min_p) {
        return refuse("min_p", min_p, "a number from 0 to 1");
    }
    if !(repetition_penalty.is_finite() && repetition_penalty > 0.0) {
        return refuse("repetition_penalty", repetition_penalty, "a number above 0");
    }
    Ok(())
}

fn at_least_one(name: &'static str, found: usize) -> Result<(), Setting> {
    if found == 0 {
        return Err(Setting::new(name, found, "at least 1"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn options(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(options) => options,
            other => panic!("{other} is not an object"),
        }
    }

    #[test]
    fn options_that_are_not_there_have_the_papers_defaults() {
        for strategy in Strategy::ALL {
            let read: Config =
                serde_json::from_value(json!({ "strategy": strategy })).expect("one");
            assert_eq!(read, Config::new(strategy), "{}", strategy.name());
            let back: Config = serde_json::from_value(json!(read)).expect("its own JSON");
            assert_eq!(back, read, "{}", strategy.name());
        }
    }

    #[test]
    fn a_plan_comes_back_from_results() {
        let config = Config {
            plan: Some(Box::new(Plan::by_size(1_000, 8))),
            ..Config::new(Strategy::Auto)
        };
        let back: Config = serde_json::from_value(json!(config)).expect("its own JSON");
        assert_eq!(back, config);
    }

    #[test]
    fn a_person_hears_of_an_option_that_does_not_exist() {
        let given = options(json!({"strategy": "dvts", "n": 8, "sampling": {"top_k": 3}}));
        let config = Config::from_options(&given).expect("valid options");
        let dvts = Config::new(Strategy::Dvts);
        let mut expected = Config { n: 8, ..dvts };
        expected.sampling.top_k = 3;
        assert_eq!(config, expected);
        for (given, sentence) in [
            (
                json!({"strategy": "dvts", "beem_width": 8}),
                "`beem_width` is not an option of a search",
            ),
            (
                json!({"strategy": "dvts", "sampling": {"topk": 8}}),
                "`topk` is not an option of a search",
            ),
            (
                json!({"strategy": "dvts", "value": "min"}),
                "`value` is not an option of a search",
            ),
            (
                json!({"strategy": "dvts", "n": "four"}),
                "`n` is \"four\": invalid type: string \"four\", expected usize",
            ),
            (json!({}), "`strategy` is needed: missing field `strategy`"),
            (json!({"n": 4}), "`n` is 4: missing field `strategy`"),
        ] {
            let error = Config::from_options(&options(given)).expect_err(sentence);
            assert_eq!(error.to_string(), sentence);
        }
    }
}
