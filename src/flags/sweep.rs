//! Flags of `offshoot sweep`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};
use session::sweep::{Grid, Seeds};
use session::{Error, Options};
use strategies::{PrmKind, PromptKind, Strategy};

use super::{EngineFlags, words};

/// Flags of `sweep`.
#[derive(Args, Debug)]
pub struct SweepFlags {
    /// The grid as a TOML file: problems, limit, policies, prms, seeds and configurations of
    /// options, each a value or a list. The flags below say the same for a simple grid.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["problems", "limit", "policies", "prms", "seeds", "strategies", "n"]
    )]
    pub config: Option<PathBuf>,
    /// Problems, as `solve` reads them. Default: the bundled problems.
    #[arg(long, value_name = "FILE")]
    pub problems: Option<PathBuf>,
    /// Only the first COUNT problems.
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<usize>,
    /// The models that write.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "nano-small",
        value_name = "MODEL,..."
    )]
    pub policies: Vec<String>,
    /// The models that score.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "nano-prm",
        value_name = "MODEL,..."
    )]
    pub prms: Vec<String>,
    /// How to search.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "best-of-n,beam,dvts",
        value_parser = words(&Strategy::ALL, Strategy::name),
        value_name = "STRATEGY,..."
    )]
    pub strategies: Vec<Strategy>,
    /// The budgets N; cot has 1.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "4,16,64",
        value_name = "N,..."
    )]
    pub n: Vec<usize>,
    /// How many seeds: 0, 1, ...
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    pub seeds: u64,
    /// The folder of the results. What is in it already is not run again.
    #[arg(long, value_name = "FOLDER", required_unless_present = "dry_run")]
    pub out: Option<PathBuf>,
    /// Say what would run, with tokens and hours by a pilot on a few problems, and end.
    #[arg(long)]
    pub dry_run: bool,
    /// Problems on which each configuration is timed, alone, with the first seed, after all results are
    /// there; 0 for none.
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    pub timed: usize,
    /// Print the rows as JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// How the PRM is read. Default: as its head says.
    #[arg(long, value_parser = words(&PrmKind::ALL, PrmKind::name), value_name = "FORMAT")]
    pub prm_format: Option<PrmKind>,
    /// The paper's prompt for the policy: qwen, llama, r1 or plain. Default: as the policy's chat tokens
    /// say.
    #[arg(long, value_parser = words(&PromptKind::ALL, PromptKind::name), value_name = "PROMPT")]
    pub prompt: Option<PromptKind>,
    /// System message in place of the prompt's; empty sends none.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Line after the problem in place of the prompt's; empty sends none.
    #[arg(long, value_name = "TEXT")]
    pub instruction: Option<String>,
    /// The device.
    #[command(flatten)]
    pub engine: EngineFlags,
}

impl SweepFlags {
    /// The grid that the file or the flags say.
    ///
    /// # Errors
    /// A file that is no grid.
    pub fn grid(&self) -> Result<Grid, Error> {
        if let Some(path) = &self.config {
            return Grid::read(path);
        }
        let options = |options: Value| match options {
            Value::Object(options) => options,
            _ => Map::new(),
        };
        let configurations = self.strategies.iter().map(|strategy| match strategy {
            Strategy::Cot => options(json!({"strategy": strategy})),
            _ => options(json!({"strategy": strategy, "n": self.n})),
        });
        Ok(Grid {
            problems: self.problems.clone(),
            limit: self.limit,
            policies: self.policies.clone(),
            prms: self.prms.clone(),
            seeds: Seeds::Count(self.seeds),
            configurations: configurations.collect(),
            plans: Vec::new(),
        })
    }

    /// The session of a pair of models.
    pub fn session(&self, policy: &str, prm: Option<&str>) -> Options {
        Options {
            policy: Some(policy.into()),
            prm: prm.map(String::from),
            prm_format: self.prm_format,
            prompt: self.prompt,
            system: self.system.clone(),
            instruction: self.instruction.clone(),
            engine: self.engine.options(),
            ..Options::default()
        }
    }
}
