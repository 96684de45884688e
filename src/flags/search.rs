//! Flags of `offshoot solve` and of every search.

use std::path::PathBuf;

use clap::Args;
use session::{Device, Error, Options, PlanFile};
use strategies::{
    Aggregation, BeamMode, Config, Grader, PrmKind, PromptKind, Selection, StopRule, Strategy,
};

use super::engine::device;
use super::{EngineFlags, SamplingFlags, line_breaks, words};

/// Flags of `solve`.
#[derive(Args, Debug)]
pub struct SolveFlags {
    /// One problem as text; `-` reads it from standard input.
    #[arg(conflicts_with = "problems")]
    pub problem: Option<String>,
    /// The search.
    #[command(flatten)]
    pub search: SearchFlags,
    /// Append one JSON object per solved problem to FILE; what is in it already is not solved
    /// again.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Put every problem's whole search tree into the results.
    #[arg(long)]
    pub trees: bool,
    /// Print one JSON object on standard output instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Flags of a search over problems.
#[derive(Args, Debug)]
pub struct SearchFlags {
    /// Problems, one JSON object a line or a JSON list of them, as MATH-500, AIME, AMC, GSM8K or
    /// OlympiadBench have them: problem, question or prompt, after context, passage or body; if known
    /// answer, solution, level, subject, id.
    /// Default: the bundled problems.
    #[arg(long, value_name = "FILE")]
    pub problems: Option<PathBuf>,
    /// The model that writes: a directory, a hub name (org/name or org/name@revision), nano-small
    /// or nano-big.
    #[arg(long, default_value = "nano-small", value_name = "MODEL")]
    pub policy: String,
    /// The model that scores steps: a directory, a hub name (org/name or org/name@revision) or
    /// nano-prm.
    #[arg(long, default_value = "nano-prm", value_name = "MODEL")]
    pub prm: String,
    /// A device of the PRM's own, with a KV cache of its own: auto, cpu, cuda, cuda:INDEX or emulated.
    /// Default: that of the policy.
    #[arg(long, value_parser = device, value_name = "DEVICE")]
    pub prm_device: Option<Device>,
    /// How the PRM is read. Default: as its head says; an LM head needs a name it is known by, or this
    /// flag.
    #[arg(long, value_parser = words(&PrmKind::ALL, PrmKind::name), value_name = "FORMAT")]
    pub prm_format: Option<PrmKind>,
    /// How to search.
    #[arg(long, default_value = "beam", value_parser = words(&Strategy::ALL, Strategy::name), value_name = "STRATEGY")]
    pub strategy: Strategy,
    /// The plan that auto follows, of `offshoot plan`. Default: by the policy's size as the paper says,
    /// with N each.
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// N: the candidates a search may hold at once. Default: 16; 1 for cot, budget-forcing and certaindex; 4
    /// for first-finished and mur.
    #[arg(long, value_name = "N")]
    pub n: Option<usize>,
    /// M: children of a kept branch, so that N/M branches survive a step (beam, dvts).
    #[arg(long, default_value_t = 4, value_name = "M")]
    pub beam_width: usize,
    /// Whether finished paths hold their slot (paper) or leave (search-and-learn).
    #[arg(long, default_value = "paper", value_parser = words(&BeamMode::ALL, BeamMode::name), value_name = "MODE")]
    pub beam_mode: BeamMode,
    /// Greedy steps to look ahead before a child is scored (step searches).
    #[arg(long, default_value_t = 0, value_name = "STEPS")]
    pub lookahead: usize,
    /// Steps that a path writes before they are scored and compared (step searches).
    #[arg(long, default_value_t = 1, value_name = "STEPS")]
    pub verify_every: usize,
    /// Tokens of a step after which the PRM rejects all but the best 1/M of a round, before they are whole;
    /// 0 is off (beam, dvts).
    #[arg(long, default_value_t = 0, value_name = "TOKENS")]
    pub early_rejection: usize,
    /// Share of a path's children that must say the same for one of them to go on alone, without branching;
    /// 0 is off (beam, dvts, rebase, dora, ets).
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub chain_threshold: f64,
    /// When a vote stops before N solutions (majority, best-of-n): none, unbeatable (what is left cannot change the
    /// answer), beta (the first answer leads with a probability above 0.95) or bayes-factor (the odds that it
    /// is the mode have grown tenfold).
    #[arg(long, default_value = "none", value_parser = words(&StopRule::ALL, StopRule::name), value_name = "RULE")]
    pub stop_rule: StopRule,
    /// Stop solutions that the policy is less sure of than PERCENT of the warm-up's, at their lowest window
    /// of tokens; they do not vote (majority). DeepConf: 90 or 10.
    #[arg(long, value_name = "PERCENT")]
    pub confidence_bar: Option<f64>,
    /// Solutions written to their end before the bar is known.
    #[arg(long, default_value_t = 16, value_name = "COUNT")]
    pub confidence_warmup: usize,
    /// Tokens of a window that is compared with the bar, and of the tail of a solution whose confidence
    /// weighs its vote.
    #[arg(long, default_value_t = 2048, value_name = "TOKENS")]
    pub confidence_window: usize,
    /// The text that opens a model's thinking, if its chat template does not; empty for none. \n stands
    /// for a line break, here and in the next ones (budget-forcing).
    #[arg(long, default_value = "<think>", value_name = "TEXT")]
    pub thinking_start: String,
    /// The text that ends it (budget-forcing, certaindex).
    #[arg(long, default_value = "</think>", value_name = "TEXT")]
    pub thinking_end: String,
    /// Tokens that a model may think; then its thinking is ended (budget-forcing).
    #[arg(long, default_value_t = 4096, value_name = "TOKENS")]
    pub thinking_budget: usize,
    /// What follows the end of a thinking whose budget is used up (budget-forcing).
    #[arg(long, default_value = "Final Answer:", value_name = "TEXT")]
    pub answer_prompt: String,
    /// How often a model that ends its thinking within the budget has to go on (budget-forcing).
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    pub continuations: usize,
    /// What is put in place of the end of thinking, to go on (budget-forcing).
    #[arg(long, default_value = "Wait", value_name = "TEXT")]
    pub continuation_text: String,
    /// Tokens between two probes of a solution (certaindex).
    #[arg(long, default_value_t = 64, value_name = "TOKENS")]
    pub probe_interval: usize,
    /// Probes in a row that must agree, so that a solution ends (certaindex).
    #[arg(long, default_value_t = 3, value_name = "COUNT")]
    pub probe_agreement: usize,
    /// The text that asks a probe for its answer; ends with { (certaindex). Default: that of Dynasor.
    #[arg(long, value_name = "TEXT")]
    pub probe_prompt: Option<String>,
    /// Finished solutions that the search waits for; they vote (first-finished).
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    pub wait_for: usize,
    /// Temperature of the softmax that shares a step's budget among the paths (rebase, dora, ets). Default:
    /// 0.2, for dora 0.1.
    #[arg(long, value_name = "T")]
    pub balance_temperature: Option<f64>,
    /// Temperature of the softmax over the similarities of paths (dora).
    #[arg(long, default_value_t = 0.01, value_name = "T")]
    pub similarity_temperature: f64,
    /// What keeping every node of the tree costs, where keeping every path's share gives 1 (ets).
    #[arg(long, default_value_t = 1.0, value_name = "WEIGHT")]
    pub kv_weight: f64,
    /// What a kept path in every cluster of paths gives, where keeping every path's share gives 1 (ets).
    #[arg(long, default_value_t = 1.5, value_name = "WEIGHT")]
    pub coverage_weight: f64,
    /// Cosine distance up to which clusters merge: of paths (ets), of steps (with --chain-threshold).
    #[arg(long, default_value_t = 0.05, value_name = "DISTANCE")]
    pub cluster_distance: f64,
    /// How much of the uncertainty of earlier steps stays in the average with each step (mur).
    #[arg(long, default_value_t = 0.9, value_name = "RATE")]
    pub momentum_rate: f64,
    /// A step is written N times if the mean probability of its tokens is below this part of the average's
    /// (mur).
    #[arg(long, default_value_t = 0.9, value_name = "RATE")]
    pub scaling_rate: f64,
    /// File of `offshoot calibrate`: N, or the paths and children of a round, are as many as --confidence
    /// asks for, at most those of --n and --beam-width (best-of-n, beam).
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// Probability with which one candidate at least is to be right, by the calibration.
    #[arg(long, default_value_t = 0.99, value_name = "PROBABILITY")]
    pub confidence: f64,
    /// Rank children by this aggregation of their path's scores.
    #[arg(long, alias = "value", default_value = "last", value_parser = words(&Aggregation::ALL, Aggregation::name), value_name = "AGGREGATION")]
    pub aggregation: Aggregation,
    /// How the answer is selected from the solutions: majority, or min, last, mean, product with -max or
    /// -vote; without a PRM self-certainty or tail-confidence with -max or -vote, by the policy's own
    /// probabilities (cot, majority, best-of-n). Default: last-vote with a PRM, else majority.
    #[arg(long, alias = "verdict", value_name = "SELECTION")]
    pub selection: Option<Selection>,
    /// Who compares answers; qwen has the leniencies of Qwen2.5-Math's grader.
    #[arg(long, default_value = "strict", value_parser = words(&Grader::ALL, Grader::name), value_name = "GRADER")]
    pub grader: Grader,
    /// Maximum steps of a path (step searches).
    #[arg(long, default_value_t = 40, value_name = "STEPS")]
    pub max_steps: usize,
    /// Maximum tokens of one step (step searches).
    #[arg(
        long,
        alias = "step-tokens",
        default_value_t = 2048,
        value_name = "TOKENS"
    )]
    pub max_step_tokens: usize,
    /// Maximum tokens of a solution.
    #[arg(
        long,
        alias = "total-tokens",
        default_value_t = 8192,
        value_name = "TOKENS"
    )]
    pub max_tokens: usize,
    /// Expansions of a path without a valid next step before it is given up (step searches).
    #[arg(long, alias = "tries", default_value_t = 3, value_name = "COUNT")]
    pub max_retries: usize,
    /// Text that ends a step. \n stands for a line break, but where it begins a LaTeX command such
    /// as \neq; nothing else is an escape.
    #[arg(long, default_value = "\\n\\n", value_name = "TEXT")]
    pub delimiter: String,
    /// Text in a step that ends its path, as it holds the answer; empty for none (step searches).
    #[arg(long, default_value = "\\boxed{", value_name = "TEXT")]
    pub answer_marker: String,
    /// The paper's prompt for the policy: qwen (one sentence as system message), llama (Meta's
    /// prompt for mathematics), r1 (the sentence after the problem) or plain (the problem alone).
    /// Default: as the policy's chat tokens say.
    #[arg(long, value_parser = words(&PromptKind::ALL, PromptKind::name), value_name = "PROMPT")]
    pub prompt: Option<PromptKind>,
    /// System message in place of the prompt's; empty sends none.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Line after the problem in place of the prompt's; empty sends none.
    #[arg(long, value_name = "TEXT")]
    pub instruction: Option<String>,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Solve only the first COUNT problems.
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<usize>,
    /// Problems in work at once. Default: as many as fill a batch.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: Option<u32>,
    /// End at the first malformed line of the problem file, before anything is solved.
    #[arg(long, alias = "strict")]
    pub fail_on_malformed: bool,
    /// How tokens are drawn.
    #[command(flatten)]
    pub sampling: SamplingFlags,
    /// The device.
    #[command(flatten)]
    pub engine: EngineFlags,
}

impl SearchFlags {
    /// The plan file, if one is named, and where it is.
    ///
    /// # Errors
    /// A file that is no plan.
    pub fn plan_file(&self) -> Result<Option<(PathBuf, PlanFile)>, Error> {
        let read = |path: &PathBuf| Ok((path.clone(), PlanFile::read(path)?));
        self.plan.as_ref().map(read).transpose()
    }

    /// The search these flags ask for, by a plan if one is named.
    pub fn config(&self, plan: Option<&PlanFile>) -> Config {
        let defaults = Config::new(self.strategy);
        Config {
            plan: plan.map(|file| Box::new(file.plan.clone())),
            n: self.n.unwrap_or(defaults.n),
            beam_width: self.beam_width,
            beam_mode: self.beam_mode,
            lookahead: self.lookahead,
            verify_every: self.verify_every,
            early_rejection: self.early_rejection,
            chain_threshold: self.chain_threshold,
            stop_rule: self.stop_rule,
            confidence_bar: self.confidence_bar,
            confidence_warmup: self.confidence_warmup,
            confidence_window: self.confidence_window,
            thinking_start: line_breaks(&self.thinking_start),
            thinking_end: line_breaks(&self.thinking_end),
            thinking_budget: self.thinking_budget,
            answer_prompt: line_breaks(&self.answer_prompt),
            continuations: self.continuations,
            continuation_text: line_breaks(&self.continuation_text),
            probe_interval: self.probe_interval,
            probe_agreement: self.probe_agreement,
            probe_prompt: (self.probe_prompt.as_deref()).map_or(defaults.probe_prompt, line_breaks),
            wait_for: self.wait_for,
            balance_temperature: (self.balance_temperature).unwrap_or(defaults.balance_temperature),
            similarity_temperature: self.similarity_temperature,
            kv_weight: self.kv_weight,
            coverage_weight: self.coverage_weight,
            cluster_distance: self.cluster_distance,
            momentum_rate: self.momentum_rate,
            scaling_rate: self.scaling_rate,
            confidence: self.confidence,
            aggregation: self.aggregation,
            max_steps: self.max_steps,
            max_step_tokens: self.max_step_tokens,
            max_tokens: self.max_tokens,
            max_retries: self.max_retries,
            delimiter: line_breaks(&self.delimiter),
            answer_marker: self.answer_marker.clone(),
            sampling: self.sampling.sampling(defaults.sampling.temperature),
            seed: self.seed,
            selection: self.selection,
            grader: self.grader,
            ..defaults
        }
    }

    /// The session that a search with this strategy needs.
    pub fn session(&self) -> Options {
        Options {
            policy: Some(self.policy.clone()),
            prm: self.strategy.needs_prm().then(|| self.prm.clone()),
            prm_format: self.prm_format,
            prompt: self.prompt,
            system: self.system.clone(),
            instruction: self.instruction.clone(),
            concurrency: self.concurrency.map(|count| count as usize),
            engine: self.engine.options(),
            prm_device: self.prm_device,
        }
    }
}
