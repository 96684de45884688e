//! What a sweep is to run: read from a TOML file or put together from flags, then expanded into cells.
//!
//! ```toml
//! problems = "heldout.jsonl"            # as `offshoot solve --problems`; default: the bundled ones
//! policies = ["nano-small", "nano-big"]
//! prms = ["nano-prm"]
//! seeds = 5                             # 0 to 4; or a list
//!
//! [[configurations]]                    # options as in a results file; a list is one run for each
//! strategy = ["best-of-n", "beam", "dvts"]
//! n = [4, 16, 64]
//! ```

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strategies::{Config, Setting, StopRule, smaller_budgets};

use super::folder::CellFile;
use crate::error::toml_problem;
use crate::{Error, Info, PlanFile};

/// Seeds of a count: more than any study has.
const MOST_SEEDS: u64 = 65_536;

/// Options that stand apart from a configuration's name.
const APART: [&str; 3] = ["n", "seed", "plan"];

/// Options that are the same for a whole run, whatever a plan searches with ([`strategies::Plan::config`]).
const OF_THE_RUN: [&str; 8] = [
    "seed",
    "max_steps",
    "max_step_tokens",
    "max_tokens",
    "max_retries",
    "delimiter",
    "answer_marker",
    "grader",
];

/// Every combination of policies, PRMs, configurations and seeds.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// The problem file; `None`: the bundled problems. In a TOML file relative to it.
    pub problems: Option<PathBuf>,
    /// Only the first problems.
    pub limit: Option<usize>,
    /// The models that write.
    #[serde(default)]
    pub policies: Vec<String>,
    /// The models that score; not needed where no configuration needs one.
    #[serde(default)]
    pub prms: Vec<String>,
    /// The seeds.
    #[serde(default)]
    pub seeds: Seeds,
    /// Options by name ([`Config::from_options`]), each a value or a list of values.
    #[serde(default)]
    pub configurations: Vec<Map<String, Value>>,
    /// The plan files that configurations name by `plan`. In a TOML file relative to it.
    #[serde(skip)]
    pub plans: Vec<NamedPlan>,
}

/// A plan file of a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedPlan {
    /// As the configuration names it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// What it holds.
    pub file: PlanFile,
}

/// The seeds of a sweep.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub enum Seeds {
    /// 0, 1, ... so many.
    Count(u64),
    /// These.
    List(Vec<u64>),
}

impl Default for Seeds {
    fn default() -> Seeds {
        Seeds::Count(1)
    }
}

impl Seeds {
    fn all(&self) -> Result<Vec<u64>, Setting> {
        match self {
            Seeds::Count(count) if *count > MOST_SEEDS => {
                let expected = format!("a number from 1 to {MOST_SEEDS}");
                Err(Setting::new("seeds", count, expected))
            }
            Seeds::Count(count) => Ok((0..*count).collect()),
            Seeds::List(seeds) => Ok(seeds.clone()),
        }
    }
}

/// One search over all problems: two models, options and a seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The policy, as named.
    pub policy: String,
    /// The PRM; `None` for a strategy without one.
    pub prm: Option<String>,
    /// The strategy and its options that aren't the defaults, without N and seed.
    pub configuration: String,
    /// The options.
    pub search: Config,
}

impl Cell {
    /// The name of its file, without an ending: both models, strategy, N, options, seed.
    pub fn file_stem(&self) -> String {
        let prm = self.prm.as_deref().unwrap_or("-");
        let text = format!(
            "{}+{prm}.{}.n{}.s{}",
            self.policy, self.configuration, self.search.n, self.search.seed
        );
        let safe = |c: char| c.is_ascii_alphanumeric() || "-_.=+".contains(c);
        let name: String = text
            .chars()
            .map(|c| if safe(c) { c } else { '_' })
            .collect();
        if name == text && name.len() <= 120 {
            return name;
        }
        // Two names that differ in other characters, or far behind, must not meet.
        let end = name.char_indices().nth(100).map_or(name.len(), |(i, _)| i);
        format!("{}-{:016x}", &name[..end], strategies::stream(0, &text))
    }

    /// The budgets that its run answers, its own last.
    pub fn budgets(&self) -> Vec<usize> {
        let smaller = match self.search.stop_rule {
            StopRule::None => smaller_budgets(&self.search),
            // A smaller run would stop elsewhere.
            _ => Vec::new(),
        };
        let smaller = smaller.into_iter().map(|(n, _)| n);
        smaller.chain([self.search.n]).collect()
    }
}

impl Grid {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// A file that cannot be read, is not TOML or has other fields.
    pub fn read(path: &Path) -> Result<Grid, Error> {
        let failed = |line, problem: String| Error::File {
            setting: "config",
            file: path.display().to_string(),
            line,
            problem,
        };
        let text = std::fs::read_to_string(path).map_err(|e| failed(None, e.to_string()))?;
        let mut grid: Grid = toml::from_str(&text).map_err(|e| {
            let (line, problem) = toml_problem(&text, &e);
            failed(line, problem)
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        grid.problems = grid.problems.map(|problems| folder.join(problems));
        for name in grid.configurations.iter().flat_map(plan_names) {
            let path = folder.join(name);
            let file = PlanFile::read(&path)?;
            let name = name.to_string();
            grid.plans.push(NamedPlan { name, path, file });
        }
        Ok(grid)
    }

    /// Refuses models that a plan of these cells was not made for.
    ///
    /// # Errors
    /// What differs.
    pub fn plans_must_fit(&self, cells: &[CellFile], info: &Info) -> Result<(), Error> {
        for NamedPlan { path, file, .. } in &self.plans {
            let follows = |cell: &CellFile| cell.cell.search.plan.as_deref() == Some(&file.plan);
            if cells.iter().any(follows) {
                file.must_fit(path, info)?;
            }
        }
        Ok(())
    }

    /// Every cell: policies, then PRMs, then configurations, then seeds. A search whose results another
    /// one gives (a smaller budget of best-of-N, say) has no cell of its own.
    ///
    /// # Errors
    /// A list that is empty; options that do not exist or that no run could honour.
    pub fn cells(&self) -> Result<Vec<Cell>, Error> {
        let seeds = self.seeds.all()?;
        let configs = self.configs()?;
        let needs_prm = (configs.iter()).any(|(config, _)| config.strategy.needs_prm());
        for (name, empty) in [
            ("policies", self.policies.is_empty()),
            ("prms", self.prms.is_empty() && needs_prm),
            ("seeds", seeds.is_empty()),
            ("configurations", configs.is_empty()),
        ] {
            if empty {
                return Err(Setting::new(name, "empty", "at least one").into());
            }
        }
        let mut cells: Vec<Cell> = Vec::new();
        for policy in &self.policies {
            for (i, prm) in self.prm_choices().into_iter().enumerate() {
                for (config, plan) in &configs {
                    let scored = config.strategy.needs_prm();
                    if scored != prm.is_some() && (scored || i > 0) {
                        continue;
                    }
                    let prm = prm.filter(|_| scored).cloned();
                    for &seed in &seeds {
                        let cell = Cell {
                            policy: policy.clone(),
                            prm: prm.clone(),
                            configuration: configuration(config, plan.as_deref())?,
                            search: Config {
                                seed,
                                ..config.clone()
                            },
                        };
                        if !cells.contains(&cell) {
                            cells.push(cell);
                        }
                    }
                }
            }
        }
        Ok(without_covered(cells))
    }

    /// The PRMs; none at all is a choice if there is none.
    fn prm_choices(&self) -> Vec<Option<&String>> {
        match self.prms.is_empty() {
            true => vec![None],
            false => self.prms.iter().map(Some).collect(),
        }
    }

    /// The configurations, each with the name of its plan.
    fn configs(&self) -> Result<Vec<(Config, Option<String>)>, Error> {
        let mut configs = Vec::new();
        for options in &self.configurations {
            if options.contains_key("seed") {
                let expected = "no seed in a configuration: `seeds` are those of all of them";
                return Err(Setting::new("configurations", "seed", expected).into());
            }
            for mut options in combinations(options) {
                let plan = options.remove("plan");
                let mut config = Config::from_options(&options)?;
                let name = plan.as_ref().and_then(Value::as_str);
                let plan = self
                    .plans
                    .iter()
                    .find(|plan| Some(plan.name.as_str()) == name);
                config.plan = plan.map(|plan| Box::new(plan.file.plan.clone()));
                config.validate()?;
                let stem = plan.and_then(|plan| plan.path.file_stem());
                configs.push((config, stem.map(|stem| stem.to_string_lossy().into())));
            }
        }
        Ok(configs)
    }
}

/// The plan files that a configuration names.
fn plan_names(options: &Map<String, Value>) -> Vec<&str> {
    match options.get("plan") {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(name) => name.as_str().into_iter().collect(),
        None => Vec::new(),
    }
}

/// One set of options for each combination of the values in lists, the last list fastest.
fn combinations(options: &Map<String, Value>) -> Vec<Map<String, Value>> {
    let mut all = vec![Map::new()];
    for (name, value) in options {
        let values: Vec<Value> = match value {
            Value::Array(values) => values.clone(),
            Value::Object(inner) => combinations(inner).into_iter().map(Value::Object).collect(),
            one => vec![one.clone()],
        };
        all = (all.iter())
            .flat_map(|options| {
                values.iter().map(move |value| {
                    let mut options = options.clone();
                    options.insert(name.clone(), value.clone());
                    options
                })
            })
            .collect();
    }
    all
}

/// The strategy and the options that are not its defaults, without N and seed; a plan by its name.
fn configuration(config: &Config, plan: Option<&str>) -> Result<String, Error> {
    let json = |config: &Config| serde_json::to_value(config).map_err(strategies::Error::model);
    let (given, defaults) = (json(config)?, json(&Config::new(config.strategy))?);
    let mut name = config.strategy.name().to_string();
    if let (Value::Object(given), Value::Object(defaults)) = (&given, &defaults) {
        for (option, value) in given.iter().filter(|(o, _)| !APART.contains(&o.as_str())) {
            name += &differences(option, value, &defaults[option]);
        }
    }
    if let Some(plan) = plan {
        name += &format!("-plan={plan}");
    }
    Ok(name)
}

/// A search as a plan names it: the options that are not the strategy's defaults, without those of the run.
pub(super) fn options_of(config: &Config) -> Map<String, Value> {
    let json = |config: &Config| serde_json::to_value(config).unwrap_or_default();
    let (given, defaults) = (json(config), json(&Config::new(config.strategy)));
    let mut options = Map::new();
    options.insert("strategy".into(), config.strategy.name().into());
    options.insert("n".into(), config.n.into());
    if let (Value::Object(given), Value::Object(defaults)) = (given, defaults) {
        for (option, value) in given {
            let is_known = options.contains_key(&option) || OF_THE_RUN.contains(&option.as_str());
            let default = defaults.get(&option).cloned().unwrap_or_default();
            match (value, default) {
                (value, default) if is_known || value == default => {}
                // Those of sampling may stand beside the others.
                (Value::Object(inner), Value::Object(defaults)) => {
                    let others = inner.into_iter();
                    options.extend(
                        others
                            .filter(|(name, value)| defaults.get(name) != Some(value))
                            .map(|(name, value)| (name, short(value))),
                    );
                }
                (value, _) => {
                    options.insert(option, value);
                }
            }
        }
    }
    options
}

/// A number that is an f32 by its shortest digits: 0.7, not 0.699999988079071.
fn short(value: Value) -> Value {
    let number = value
        .as_f64()
        .filter(|_| !value.is_i64() && !value.is_u64());
    let digits = number.map(|x| (x as f32).to_string());
    let short = digits.and_then(|digits| digits.parse::<f64>().ok());
    short.map_or(value, Value::from)
}

/// `-option=value` for what differs.
fn differences(option: &str, value: &Value, default: &Value) -> String {
    match (value, default) {
        _ if value == default => String::new(),
        (Value::Object(value), Value::Object(default)) => (value.iter())
            .map(|(option, value)| {
                differences(option, value, default.get(option).unwrap_or(&Value::Null))
            })
            .collect(),
        (Value::String(word), _) => format!("-{option}={word}"),
        _ => format!("-{option}={}", short(value.clone())),
    }
}

/// The cells but those that are a smaller budget of another.
fn without_covered(cells: Vec<Cell>) -> Vec<Cell> {
    let covered = |cell: &Cell| {
        cells.iter().any(|other| {
            let n = cell.search.n;
            let same = other.search.n > n && {
                let mut same = other.clone();
                same.search.n = n;
                same == *cell
            };
            same && other.budgets().contains(&n)
        })
    };
    let keep: Vec<bool> = cells.iter().map(|cell| !covered(cell)).collect();
    let kept = cells.into_iter().zip(keep).filter(|(_, keep)| *keep);
    kept.map(|(cell, _)| cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(text: &str) -> Grid {
        toml::from_str(text).expect("a grid")
    }

    fn stems(text: &str) -> Vec<String> {
        let cells = grid(text).cells().expect("cells");
        cells.iter().map(Cell::file_stem).collect()
    }

    #[test]
    fn lists_are_combined_and_smaller_budgets_are_not_run_again() {
        let models = "policies = ['a']\nprms = ['p', 'q']\n";
        let all = "[[configurations]]\nstrategy = ['best-of-n', 'beam']\nn = [4, 16]\n";
        assert_eq!(
            stems(&format!("{models}{all}")),
            [
                "a+p.best-of-n.n16.s0",
                "a+p.beam.n4.s0",
                "a+p.beam.n16.s0",
                "a+q.best-of-n.n16.s0",
                "a+q.beam.n4.s0",
                "a+q.beam.n16.s0",
            ]
        );
        // 12 is no power of two; without a PRM there is one cell for all PRMs.
        let all = "[[configurations]]\nstrategy = 'majority'\nn = [12, 16]\ntemperature = 0.9\n";
        assert_eq!(
            stems(&format!("seeds = [7]\n{models}{all}")),
            [
                "a+-.majority-temperature=0.9.n12.s7",
                "a+-.majority-temperature=0.9.n16.s7"
            ]
        );
        let all = "[[configurations]]\nstrategy = 'dvts'\nn = [8, 16]\nbeam_width = [4, 8]\n";
        assert_eq!(
            stems(&format!("{models}{all}"))[..2],
            ["a+p.dvts.n16.s0", "a+p.dvts-beam_width=8.n16.s0"]
        );
        // A stopped run says nothing of a smaller one.
        let all = "[[configurations]]\nstrategy = 'majority'\nn = [4, 16]\nstop_rule = 'beta'\n";
        assert_eq!(stems(&format!("{models}{all}")).len(), 2);
    }

    #[test]
    fn what_cannot_be_a_file_name_is_replaced() {
        let text =
            "policies = ['org/a', 'org_a']\nprms = []\n[[configurations]]\nstrategy = 'cot'\n";
        let stems = stems(text);
        assert!(stems[0].starts_with("org_a+-.cot.n1.s0-"), "{}", stems[0]);
        assert_eq!(stems[1], "org_a+-.cot.n1.s0");
    }

    #[test]
    fn a_bad_grid_is_one_sentence() {
        let models = "policies = ['a']\nprms = ['p']\n";
        for (text, sentence) in [
            ("", "`policies` is empty; expected at least one"),
            (
                "policies = ['a']",
                "`configurations` is empty; expected at least one",
            ),
            (
                "policies = ['a']\n[[configurations]]\nstrategy = 'beam'",
                "`prms` is empty; expected at least one",
            ),
            (
                &format!("{models}seeds = 0\n[[configurations]]\nstrategy = 'beam'"),
                "`seeds` is empty; expected at least one",
            ),
            (
                &format!("{models}[[configurations]]\nstrategy = 'beam'\nn = []"),
                "`configurations` is empty; expected at least one",
            ),
            (
                &format!("{models}[[configurations]]\nstrategy = 'beam'\nbeem = 3"),
                "`beem` is not an option of a search",
            ),
            (
                &format!("{models}[[configurations]]\nn = 4"),
                "`n` is 4: missing field `strategy`",
            ),
            (
                &format!("{models}[[configurations]]\nstrategy = 'beam'\nseed = 4"),
                "`configurations` is seed; expected no seed in a configuration: `seeds` are those of all of them",
            ),
        ] {
            let error = grid(text).cells().expect_err(sentence);
            assert_eq!(error.to_string(), sentence, "{text}");
        }
        let error = toml::from_str::<Grid>("policy = 'a'").expect_err("an unknown field");
        assert!(
            error.message().contains("unknown field `policy`"),
            "{error}"
        );
    }
}
