//! Plan files: a [`Plan`] as TOML, with the models that it was learned for.

use std::path::Path;

use serde::{Deserialize, Serialize};
use strategies::{Config, Plan, Strategy};

use crate::error::toml_problem;
use crate::{Error, Info, ModelInfo};

/// The version of the files written here.
pub const SCHEMA: u32 = 1;

/// A plan and what it is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanFile {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// The policy, as it was named.
    pub policy: String,
    /// Its parameters.
    pub policy_params: u64,
    /// The PRM, as it was named.
    pub prm: String,
    /// Its parameters.
    pub prm_params: u64,
    /// How the PRM is read.
    pub prm_format: Option<String>,
    /// Problems that it was learned from.
    pub problems: usize,
    /// What its searches cost in the mean there, and in which unit.
    pub unit: String,
    /// The cost of a problem.
    pub cost: f64,
    /// The share of right answers there.
    pub accuracy: f64,
    /// The plan.
    #[serde(flatten)]
    pub plan: Plan,
}

impl PlanFile {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, is no plan, is one of a newer version, or one that no run could follow.
    pub fn read(path: &Path) -> Result<PlanFile, Error> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let failed = |line, problem: String| Error::File {
            setting: "plan",
            file: path.display().to_string(),
            line,
            problem,
        };
        let text = std::fs::read_to_string(path).map_err(|e| failed(None, e.to_string()))?;
        let other = |e: toml::de::Error| {
            let (line, why) = toml_problem(&text, &e);
            failed(line, format!("not a plan of offshoot: {why}"))
        };
        let Version { schema } = toml::from_str(&text).map_err(other)?;
        if schema > SCHEMA {
            let why =
                format!("written by a newer offshoot (schema {schema}, this one reads {SCHEMA})");
            return Err(failed(None, why));
        }
        let file: PlanFile = toml::from_str(&text).map_err(other)?;
        let followed = file.plan.validate(&Config::new(Strategy::Auto));
        followed.map_err(|e| failed(None, e.to_string()))?;
        Ok(file)
    }

    /// The file's text.
    ///
    /// # Errors
    /// Numbers that TOML cannot hold.
    pub fn text(&self) -> Result<String, Error> {
        let problem = |e: toml::ser::Error| Error::File {
            setting: "out",
            file: "the plan".into(),
            line: None,
            problem: e.to_string(),
        };
        let toml = toml::to_string(self).map_err(problem)?;
        Ok(format!("{HEADER}{toml}"))
    }

    /// Refuses models that it was not made for.
    ///
    /// # Errors
    /// What differs.
    pub fn must_fit(&self, path: &Path, info: &Info) -> Result<(), Error> {
        let refuse = |role: &str, made_for: String, model: String| Error::File {
            setting: "plan",
            file: path.display().to_string(),
            line: None,
            problem: format!("made for the {role} {made_for}, not for {model}"),
        };
        let of = |name: &str, params: u64| format!("{} ({params} parameters)", last(name));
        let here = |model: &Option<ModelInfo>| match model {
            Some(model) => of(&model.name, model.params as u64),
            None => "none".into(),
        };
        let (policy, prm) = (
            of(&self.policy, self.policy_params),
            of(&self.prm, self.prm_params),
        );
        if here(&info.policy) != policy {
            return Err(refuse("policy", policy, here(&info.policy)));
        }
        if here(&info.prm) != prm {
            return Err(refuse("PRM", prm, here(&info.prm)));
        }
        let format = info.prm.as_ref().and_then(|prm| prm.prm_format);
        if format != self.prm_format.as_deref() {
            let read = |format: Option<&str>| format!("{prm} read as {}", format.unwrap_or("none"));
            return Err(refuse(
                "PRM",
                read(self.prm_format.as_deref()),
                read(format),
            ));
        }
        Ok(())
    }
}

/// What a reader of the file should know.
const HEADER: &str = "\
# A plan: the strategy auto follows it.
#
# Every problem begins with [search]. Its difficulty is 1 less the support of the answer: the score of
# the chosen solution (…-max), the scores for the answer by the number of solutions (…-vote), or the
# share of solutions with it (majority). The first of [[rules]] that reaches the difficulty counts:
# [rules.then] searches again, and without it the answer stands. `share` is the part of the problems
# that the rule was for where the plan was learned, `before` and `after` the accuracy on them.

";

/// A model's name without the folders before it: a folder may move.
fn last(name: &str) -> &str {
    let name = name.trim_end_matches('/');
    name.rsplit_once('/').map_or(name, |(_, last)| last)
}
