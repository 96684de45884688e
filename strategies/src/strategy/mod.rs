//! The strategies: one file each, and the list that names them.
//!
//! To add one, write its file (its paper on top, a [`Row`], an `async fn run`) and give it a
//! variant and its three entries here. Nothing else names a strategy. `SEMANTICS.md` states what
//! each does.

mod auto;
mod beam;
mod best_of_n;
mod budget_forcing;
mod certaindex;
mod cot;
mod dora;
mod dvts;
mod ets;
mod first_finished;
mod majority;
mod mur;
mod particle_filtering;
mod rebase;

use serde::{Deserialize, Serialize};

use crate::{Aggregation, Config, Error, Policy, Prm, Search, Selection, Solution};
use engine::Setting;

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
    /// REBASE: a softmax of the values shares a step's budget among the paths.
    Rebase,
    /// DORA: as REBASE, among directions instead of paths.
    Dora,
    /// ETS: as REBASE, among paths selected to share nodes and to cover every direction.
    Ets,
    /// MUR: one path, whose uncertain steps are chosen among N.
    Mur,
    /// Particle filtering: paths are drawn anew by weight after every step.
    ParticleFiltering,
    /// s1: thinking held to a budget, then the answer.
    BudgetForcing,
    /// Dynasor: a solution ends once probes of it agree.
    Certaindex,
    /// N solutions until some have finished.
    FirstFinished,
    /// The search that a plan names for the problem's difficulty.
    Auto,
}

/// The facts about one strategy.
pub(crate) struct Row {
    /// The word for it in options and results.
    pub name: &'static str,
    /// Whether it needs a PRM.
    pub needs_prm: bool,
    /// Whether it keeps N/M branches: `beam_width` applies.
    pub uses_beam_width: bool,
    /// Whether it has several children of a path in every round: [`Config::chain_threshold`] applies.
    pub branches: bool,
    /// Whether [`Config::calibration`] applies.
    pub adapts: bool,
    /// Whether [`Config::stop_rule`] applies.
    pub stops: bool,
    /// N unless given.
    pub default_n: usize,
    /// The sampling temperature unless given.
    pub default_temperature: f32,
    /// [`Config::balance_temperature`] unless given.
    pub default_balance_temperature: f64,
    /// Refuses options that it could not honour.
    pub validate: fn(&Config) -> Result<(), Setting>,
    /// Candidates that make up one solution, if the i-th solution does not depend on N; else
    /// `None`.
    pub candidates_per_solution: fn(&Config) -> Option<usize>,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Strategy; 14] = [
        Strategy::Cot,
        Strategy::Majority,
        Strategy::BestOfN,
        Strategy::Beam,
        Strategy::Dvts,
        Strategy::Rebase,
        Strategy::Dora,
        Strategy::Ets,
        Strategy::Mur,
        Strategy::ParticleFiltering,
        Strategy::BudgetForcing,
        Strategy::Certaindex,
        Strategy::FirstFinished,
        Strategy::Auto,
    ];

    pub(crate) fn row(self) -> &'static Row {
        match self {
            Strategy::Cot => &cot::ROW,
            Strategy::Majority => &majority::ROW,
            Strategy::BestOfN => &best_of_n::ROW,
            Strategy::Beam => &beam::ROW,
            Strategy::Dvts => &dvts::ROW,
            Strategy::Rebase => &rebase::ROW,
            Strategy::Dora => &dora::ROW,
            Strategy::Ets => &ets::ROW,
            Strategy::Mur => &mur::ROW,
            Strategy::ParticleFiltering => &particle_filtering::ROW,
            Strategy::BudgetForcing => &budget_forcing::ROW,
            Strategy::Certaindex => &certaindex::ROW,
            Strategy::FirstFinished => &first_finished::ROW,
            Strategy::Auto => &auto::ROW,
        }
    }

    /// Runs the strategy. The order of the solutions is the strategy's own and always the same.
    ///
    /// # Errors
    /// A failure of either model.
    pub async fn run<P: Policy, R: Prm>(
        self,
        search: &Search<'_, P, R>,
    ) -> Result<Vec<Solution>, Error> {
        match self {
            Strategy::Cot => cot::run(search).await,
            Strategy::Majority => majority::run(search).await,
            Strategy::BestOfN => best_of_n::run(search).await,
            Strategy::Beam => beam::run(search).await,
            Strategy::Dvts => dvts::run(search).await,
            Strategy::Rebase => rebase::run(search).await,
            Strategy::Dora => dora::run(search).await,
            Strategy::Ets => ets::run(search).await,
            Strategy::Mur => mur::run(search).await,
            Strategy::ParticleFiltering => particle_filtering::run(search).await,
            Strategy::BudgetForcing => budget_forcing::run(search).await,
            Strategy::Certaindex => certaindex::run(search).await,
            Strategy::FirstFinished => first_finished::run(search).await,
            Strategy::Auto => auto::run(search).await,
        }
    }

    /// The word for it in options and results.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether it needs a process reward model.
    pub fn needs_prm(self) -> bool {
        self.row().needs_prm
    }

    /// Whether it keeps N/M branches, so that [`Config::beam_width`] applies.
    pub fn uses_beam_width(self) -> bool {
        self.row().uses_beam_width
    }

    /// Whether it writes whole solutions, the i-th of which does not depend on N.
    pub fn writes_whole_solutions(self) -> bool {
        matches!(self, Strategy::Cot | Strategy::Majority | Strategy::BestOfN)
    }

    /// The selection that counts unless another is set: `last-vote` with a PRM (the best row of the
    /// paper's Table 2), else `majority`.
    pub fn default_selection(self) -> Selection {
        if self.needs_prm() {
            Selection::Vote(Aggregation::Last)
        } else {
            Selection::Majority
        }
    }
}

/// The checks shared by strategies that write whole solutions.
fn validate_whole_solutions(config: &Config) -> Result<(), Setting> {
    let name = config.strategy.name();
    for (option, found, expected) in [
        ("lookahead", config.lookahead, 0),
        ("verify_every", config.verify_every, 1),
    ] {
        if found != expected {
            let expected =
                format!("{expected}: the strategy {name} writes whole solutions, not steps");
            return Err(Setting::new(option, found, expected));
        }
    }
    Ok(())
}

/// The check shared by strategies that share a budget by a softmax of the values.
fn validate_balance(config: &Config) -> Result<(), Setting> {
    let temperature = config.balance_temperature;
    if temperature.is_finite() && temperature > 0.0 {
        return Ok(());
    }
    let expected = "a number above 0";
    Err(Setting::new("balance_temperature", temperature, expected))
}

/// The checks shared by strategies that search over steps with N/M branches kept.
fn validate_step_search(config: &Config) -> Result<(), Setting> {
    let (name, n, m) = (config.strategy.name(), config.n, config.beam_width);
    if m == 0 {
        return Err(Setting::new("beam_width", m, "at least 1"));
    }
    if !n.is_multiple_of(m) {
        return Err(Setting::new(
            "n",
            n,
            format!("a multiple of `beam_width` ({m}): the strategy {name} keeps n / {m} branches"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_spell_a_strategy_by_its_name() {
        for strategy in Strategy::ALL {
            let word = serde_json::to_value(strategy).expect("a word");
            assert_eq!(word, strategy.name());
        }
    }
}
