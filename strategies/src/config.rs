//! Every option of a search, with the defaults of the paper's code (TTS.md 2.1 and 2.2).

use crate::{Aggregation, Error, Grader, Rule, Sampling};
use serde::{Deserialize, Serialize};

/// How compute is spent on one problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// One solution.
    Cot,
    /// N solutions, the most frequent answer.
    Majority,
    /// N solutions, scored by the PRM.
    BestOfN,
    /// Beam search over steps, guided by the PRM.
    Beam,
    /// Diverse verifier tree search: N/M independent greedy searches.
    Dvts,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Strategy; 5] = [
        Strategy::Cot,
        Strategy::Majority,
        Strategy::BestOfN,
        Strategy::Beam,
        Strategy::Dvts,
    ];

    /// The word for it in flags and results.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Cot => "cot",
            Strategy::Majority => "majority",
            Strategy::BestOfN => "best-of-n",
            Strategy::Beam => "beam",
            Strategy::Dvts => "dvts",
        }
    }

    /// Whether it needs a process reward model.
    pub fn needs_prm(self) -> bool {
        matches!(self, Strategy::BestOfN | Strategy::Beam | Strategy::Dvts)
    }

    /// The verdict that counts unless another is asked for: `last-vote` with a PRM (the best
    /// row of the paper's Table 2), else `majority`.
    pub fn default_verdict(self) -> Rule {
        match self.needs_prm() {
            true => Rule::Vote(Aggregation::Last),
            false => Rule::Majority,
        }
    }
}

/// Which of the two published beam searches runs: `beam.rs` states both in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BeamMode {
    /// compute-optimal-tts: a finished path holds one of the N/M slots.
    #[default]
    Paper,
    /// search-and-learn: always N active beams, finished paths leave.
    SearchAndLearn,
}

impl BeamMode {
    /// Both.
    pub const ALL: [BeamMode; 2] = [BeamMode::Paper, BeamMode::SearchAndLearn];

    /// The word for it in flags and results.
    pub fn name(self) -> &'static str {
        match self {
            BeamMode::Paper => "paper",
            BeamMode::SearchAndLearn => "search-and-learn",
        }
    }
}

/// Every option of a search on one problem.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// What a child is ranked by during the search.
    pub value: Aggregation,
    /// Most steps of a path in a step search.
    pub max_steps: usize,
    /// Most tokens of a step in a step search.
    pub step_tokens: usize,
    /// Most tokens of a solution.
    pub total_tokens: usize,
    /// Expansions of a node before it is given up because no valid step came.
    pub tries: usize,
    /// Text between two steps.
    pub delimiter: String,
    /// How the policy's tokens are drawn.
    pub sampling: Sampling,
    /// Keys all random numbers, together with the problem's text.
    pub seed: u64,
    /// The verdict that counts; `None` is [`Strategy::default_verdict`].
    pub verdict: Option<Rule>,
    /// Who compares answers.
    pub grader: Grader,
}

impl Config {
    /// The paper's settings: N = 16 (1 for CoT), M = 4, temperature 0.7 (0 for CoT), 40 steps
    /// of 2,048 tokens, 8,192 tokens in all, 3 tries, blank lines between steps.
    pub fn new(strategy: Strategy) -> Config {
        let cot = strategy == Strategy::Cot;
        Config {
            strategy,
            n: if cot { 1 } else { 16 },
            beam_width: 4,
            beam_mode: BeamMode::Paper,
            lookahead: 0,
            value: Aggregation::Last,
            max_steps: 40,
            step_tokens: 2048,
            total_tokens: 8192,
            tries: 3,
            delimiter: "\n\n".into(),
            sampling: if cot {
                Sampling::GREEDY
            } else {
                Sampling {
                    temperature: 0.7,
                    ..Sampling::GREEDY
                }
            },
            seed: 0,
            verdict: None,
            grader: Grader::Strict,
        }
    }

    /// The verdict that counts.
    pub fn rule(&self) -> Rule {
        self.verdict.unwrap_or(self.strategy.default_verdict())
    }

    /// Refuses what no run could honour, in one sentence that names the flags.
    pub fn validate(&self) -> Result<(), Error> {
        let name = self.strategy.name();
        let tree = matches!(self.strategy, Strategy::Beam | Strategy::Dvts);
        let (n, m) = (self.n, self.beam_width);
        let checks = [
            (n >= 1, format!("--n must be at least 1, found {n}")),
            (
                self.strategy != Strategy::Cot || n == 1,
                format!("--strategy cot writes one solution: --n must be 1, found {n}"),
            ),
            (
                !tree || m >= 1,
                format!("--beam-width must be at least 1, found {m}"),
            ),
            (
                !tree || n.checked_rem(m) == Some(0),
                format!(
                    "--n {n} is not divisible by --beam-width {m}: --strategy {name} keeps n / beam-width branches"
                ),
            ),
            (
                tree || self.lookahead == 0,
                format!("--lookahead works with --strategy beam and dvts, not {name}"),
            ),
            (
                self.strategy.needs_prm() || !self.rule().needs_scores(),
                format!(
                    "--verdict {} needs scores, but --strategy {name} uses no PRM",
                    self.rule()
                ),
            ),
            (
                self.max_steps >= 1,
                "--max-steps must be at least 1, found 0".into(),
            ),
            (
                self.step_tokens >= 1,
                "--step-tokens must be at least 1, found 0".into(),
            ),
            (
                self.total_tokens >= 1,
                "--total-tokens must be at least 1, found 0".into(),
            ),
            (
                self.tries >= 1,
                "--tries must be at least 1, found 0".into(),
            ),
            (
                !self.delimiter.is_empty(),
                "--delimiter must not be empty".into(),
            ),
        ];
        match checks.into_iter().find(|(holds, _)| !holds) {
            Some((_, sentence)) => Err(Error::Config(sentence)),
            None => check_sampling(&self.sampling),
        }
    }
}

/// Refuses a distribution that cannot be drawn from, in one sentence that names the flag.
pub fn check_sampling(sampling: &Sampling) -> Result<(), Error> {
    let Sampling {
        temperature,
        top_p,
        min_p,
        repetition_penalty,
        ..
    } = *sampling;
    let checks = [
        (
            temperature.is_finite() && temperature >= 0.0,
            format!("--temperature must be a number from 0 up, found {temperature}"),
        ),
        (
            top_p > 0.0 && top_p <= 1.0,
            format!("--top-p must be above 0 and at most 1, found {top_p}"),
        ),
        (
            (0.0..=1.0).contains(&min_p),
            format!("--min-p must be between 0 and 1, found {min_p}"),
        ),
        (
            repetition_penalty.is_finite() && repetition_penalty > 0.0,
            format!("--repetition-penalty must be above 0, found {repetition_penalty}"),
        ),
    ];
    match checks.into_iter().find(|(holds, _)| !holds) {
        Some((_, sentence)) => Err(Error::Config(sentence)),
        None => Ok(()),
    }
}
