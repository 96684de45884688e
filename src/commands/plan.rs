//! `offshoot plan`: learns which search fits which difficulty, from a sweep.

use std::path::Path;

use serde::Serialize;
use session::PlanFile;
use session::sweep::{
    Cell, Found, Goal, Learnt, Manifest, Pair, Record, Searches, Unit, read_cells, read_manifest,
    read_timings,
};
use strategies::Plan;

use super::sweep::short;
use super::{print, print_json};
use crate::error::{Done, Failure, sentence_with};
use crate::flags::PlanFlags;
use crate::table::{percent, table};

/// Runs the command.
pub fn run(flags: &PlanFlags) -> Done {
    let sweep = Sweep::read(&flags.sweep, "")?;
    let pair = sweep.pair(flags)?;
    let searches = sweep.searches(pair, flags.unit);
    if searches.points() == 0 {
        let sweep = flags.sweep.display();
        return Err(Failure::new(format!(
            "{sweep}: no problem with a known answer that all searches have; finish the sweep first"
        )));
    }
    let held_out = match &flags.held_out {
        Some(path) => {
            let sweep = Sweep::read(path, "--held-out ")?;
            sweep.must_have(pair)?;
            Some(sweep.searches(pair, flags.unit))
        }
        None => None,
    };
    let goal = match (flags.budget, flags.accuracy) {
        (Some(budget), _) => Goal::Budget(budget),
        (None, Some(accuracy)) => Goal::Accuracy(accuracy),
        (None, None) => return frontier(flags, &searches, held_out.as_ref()),
    };
    let found = searches
        .learn(goal)
        .ok_or_else(|| out_of_reach(&searches, goal, flags.unit))?;
    let file = PlanFile {
        schema: session::PLAN_SCHEMA,
        policy: pair.settings.policy.clone(),
        policy_params: pair.settings.policy_params,
        prm: pair.settings.prm.clone().unwrap_or_default(),
        prm_params: pair.settings.prm_params.unwrap_or_default(),
        prm_format: pair.settings.prm_format.clone(),
        problems: searches.problems(),
        unit: flags.unit.name().into(),
        cost: found.result.cost().0,
        accuracy: found.result.accuracy().0,
        plan: found.plan.clone(),
    };
    let rows = beside(&searches, &found, held_out.as_ref())?;
    if let Some(out) = &flags.out {
        let failed = |e| Failure::io(&format!("--out {}", out.display()), &e);
        std::fs::write(out, file.text()?).map_err(failed)?;
    }
    if flags.json {
        return print_json(&Printed { plan: &file, rows });
    }
    let mut text = format!(
        "{} and {}, learned from {} problems:\n\n{}\n",
        file.policy,
        file.prm,
        file.problems,
        steps(&file.plan, 0)
    );
    text += &render(&rows, flags.unit);
    print(&text)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    plan: &'a PlanFile,
    rows: Vec<Row>,
}

/// A sweep's folder as it is read.
struct Sweep {
    manifest: Manifest,
    cells: Vec<(Cell, Vec<Record>)>,
    timings: Vec<session::sweep::Timing>,
    name: String,
}

impl Sweep {
    /// Reads the cells that are whole.
    fn read(path: &Path, flag: &str) -> Done<Sweep> {
        let name = format!("{flag}{}", path.display());
        let file = path.join("sweep.json");
        let bytes = std::fs::read(&file)
            .map_err(|e| Failure::new(format!("{name}: not the folder of a sweep: {e}")))?;
        let said = |e| Failure::new(sentence_with(e, &[("out", flag.trim_end())]));
        let manifest = read_manifest(&file, &bytes).map_err(said)?;
        let cells = read_cells(path, &manifest).map_err(said)?;
        let timings = read_timings(path).map_err(said)?;
        Ok(Sweep {
            manifest,
            cells,
            timings,
            name,
        })
    }

    /// The pair of models that the flags name, or the only one with a PRM.
    fn pair(&self, flags: &PlanFlags) -> Done<&Pair> {
        let named = |name: &Option<String>, found: Option<&String>| {
            name.is_none() || name.as_ref() == found
        };
        let fits = |pair: &&Pair| {
            named(&flags.policy, Some(&pair.settings.policy))
                && named(&flags.prm, pair.settings.prm.as_ref())
                && pair.settings.prm.is_some()
        };
        let found: Vec<&Pair> = self.manifest.pairs.iter().filter(fits).collect();
        match found[..] {
            [pair] => Ok(pair),
            _ => {
                let pairs: Vec<String> = (self.manifest.pairs.iter())
                    .filter_map(|pair| {
                        let prm = pair.settings.prm.as_ref()?;
                        Some(format!("{} with {prm}", pair.settings.policy))
                    })
                    .collect();
                Err(Failure::new(format!(
                    "{}: --policy and --prm must name one of its pairs: {}",
                    self.name,
                    pairs.join(", ")
                )))
            }
        }
    }

    /// Refuses a sweep that does not have the pair of another.
    fn must_have(&self, pair: &Pair) -> Done {
        let of = |pair: &Pair| {
            let s = &pair.settings;
            let params = (s.policy_params, s.prm_params);
            (
                s.policy.clone(),
                s.prm.clone(),
                params,
                s.prm_format.clone(),
            )
        };
        match self.manifest.pairs.iter().any(|here| of(here) == of(pair)) {
            true => Ok(()),
            false => Err(Failure::new(format!(
                "{}: made with other models, expected {} with {}",
                self.name,
                pair.settings.policy,
                pair.settings.prm.as_deref().unwrap_or("none")
            ))),
        }
    }

    fn searches(&self, pair: &Pair, unit: Unit) -> Searches {
        let policy = (pair.settings.policy.as_str(), pair.settings.policy_params);
        let prm = pair.settings.prm.as_deref().unwrap_or_default();
        Searches::new(&self.cells, &self.timings, policy, prm, unit)
    }
}

fn out_of_reach(searches: &Searches, goal: Goal, unit: Unit) -> Failure {
    let (flag, word, least) = match goal {
        Goal::Budget(budget) => {
            let least = searches.fixed(Goal::Accuracy(0.0));
            let least = least.map_or(0.0, |found| found.result.cost().0);
            let expected = format!("at least {} {}", short(least), unit.name());
            ("--budget", short(budget), expected)
        }
        Goal::Accuracy(accuracy) => {
            let most = searches.fixed(Goal::Budget(f64::INFINITY));
            let most = most.map_or(0.0, |found| found.result.accuracy().0);
            (
                "--accuracy",
                accuracy.to_string(),
                format!("at most {most:.4}"),
            )
        }
    };
    Failure::new(format!(
        "{flag} is {word}; expected {least}, what a search of the sweep reaches"
    ))
}

/// One way to spend, on calibration or on held-out problems.
#[derive(Serialize)]
struct Row {
    what: &'static str,
    on: &'static str,
    problems: usize,
    plan: Plan,
    accuracy: f64,
    accuracy_interval: f64,
    cost: f64,
    cost_interval: f64,
    /// How much more often the plan is right, on the same problems.
    gain: Option<f64>,
    gain_interval: Option<f64>,
    /// The plan's cost by this one's.
    cost_ratio: Option<f64>,
    cost_ratio_interval: Option<f64>,
}

impl Row {
    fn new(what: &'static str, on: &'static str, plan: &Plan, found: &Found, own: &Found) -> Row {
        let (accuracy, accuracy_interval) = found.accuracy();
        let (cost, cost_interval) = found.cost();
        let other = what != PLAN;
        let (gain, ratio) = (own.gain(found), own.cost_ratio(found));
        Row {
            what,
            on,
            problems: found.right.len(),
            plan: plan.clone(),
            accuracy,
            accuracy_interval,
            cost,
            cost_interval,
            gain: other.then_some(gain.0),
            gain_interval: other.then_some(gain.1),
            cost_ratio: other.then_some(ratio.0),
            cost_ratio_interval: other.then_some(ratio.1),
        }
    }
}

const PLAN: &str = "the plan";

/// What a plan comes to on held-out problems.
fn on(held_out: &Searches, plan: &Plan) -> Done<Found> {
    held_out.result(plan).map_err(|search| {
        Failure::new(format!(
            "--held-out: no search {search} in it; sweep it too"
        ))
    })
}

/// The plan beside the fixed searches: the best one for its cost, and the cheapest one that is as often
/// right, both chosen where the plan was learned.
fn beside(searches: &Searches, found: &Learnt, held_out: Option<&Searches>) -> Done<Vec<Row>> {
    let (cost, accuracy) = (found.result.cost().0, found.result.accuracy().0);
    let fixed = [
        (
            "best fixed search of its cost",
            searches.fixed(Goal::Budget(cost)),
        ),
        (
            "cheapest fixed search as good",
            searches.fixed(Goal::Accuracy(accuracy)),
        ),
    ];
    let mut rows = Vec::new();
    let ways = [(PLAN, Some(found.clone()))].into_iter().chain(fixed);
    for (what, way) in ways {
        let Some(way) = way else { continue };
        rows.push(Row::new(
            what,
            "calibration",
            &way.plan,
            &way.result,
            &found.result,
        ));
        if let Some(held_out) = held_out {
            let (way_result, own) = (on(held_out, &way.plan)?, on(held_out, &found.plan)?);
            rows.push(Row::new(what, "held-out", &way.plan, &way_result, &own));
        }
    }
    rows.sort_by_key(|row| row.on != "calibration");
    Ok(rows)
}

/// A plan as indented sentences.
fn steps(plan: &Plan, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let mut text = format!("{indent}{}\n", search(plan));
    let mut low = 0.0;
    for rule in &plan.rules {
        let facts = rule.learned.map(|learned| {
            format!(
                " ({} of the problems: {} right before, {} after)",
                percent(learned.share),
                percent(learned.before),
                percent(learned.after)
            )
        });
        let facts = facts.unwrap_or_default();
        let (from, to) = (digits(low), digits(rule.difficulty));
        text += &format!("{indent}  difficulty {from} to {to}{facts}:");
        match &rule.then {
            Some(then) => text += &format!("\n{}", steps(then, depth + 2)),
            None => text += " the answer stands\n",
        }
        low = rule.difficulty;
    }
    text
}

/// Three digits, also of what is missing to 1: many a PRM is sure of what it refuses.
fn digits(difficulty: f64) -> String {
    match 1.0 - difficulty {
        missing if missing > 0.0 && missing < 5e-4 => format!("1 - {missing:.1e}"),
        _ => format!("{difficulty:.3}"),
    }
}

/// `beam N = 4, beam_width = 2, by last-vote`.
fn search(plan: &Plan) -> String {
    let word = |name: &str| match plan.search.get(name) {
        Some(serde_json::Value::String(word)) => word.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let mut text = format!("{} N = {}", word("strategy"), word("n"));
    for (name, value) in &plan.search {
        if !["strategy", "n", "selection"].contains(&name.as_str()) {
            text += &format!(", {name} = {value}");
        }
    }
    text + &format!(", by {}", word("selection"))
}

fn render(rows: &[Row], unit: Unit) -> String {
    let header = [
        "problems",
        "",
        "search",
        "accuracy",
        "±",
        unit.name(),
        "±",
        "plan's gain",
        "±",
        "plan's cost",
        "±",
    ];
    let mut table = table(header, 3);
    let points = |share: f64| format!("{:+.1}", 100.0 * share);
    let plain = |share: f64| format!("{:.1}", 100.0 * share);
    for row in rows {
        let first = match row.plan.rules.is_empty() {
            true => search(&row.plan),
            false => "as above".into(),
        };
        let or_none =
            |value: Option<f64>, text: &dyn Fn(f64) -> String| value.map_or_else(String::new, text);
        table.add_row([
            format!("{} {}", row.problems, row.on),
            row.what.into(),
            first,
            percent(row.accuracy),
            plain(row.accuracy_interval),
            short(row.cost),
            short(row.cost_interval),
            or_none(row.gain, &points),
            or_none(row.gain_interval, &plain),
            or_none(row.cost_ratio, &|x| format!("{x:.2} x")),
            or_none(row.cost_ratio_interval, &|x| format!("{x:.2}")),
        ]);
    }
    format!(
        "{table}\nThe fixed searches were chosen on the calibration problems. ±: 95 % intervals over the \
         problems, of gain and cost on the same problems.\n"
    )
}

/// What plans reach at the costs of the best fixed searches.
fn frontier(flags: &PlanFlags, searches: &Searches, held_out: Option<&Searches>) -> Done {
    let mut rows = Vec::new();
    let mut best = searches.fixed(Goal::Budget(f64::INFINITY));
    let mut fixed: Vec<Learnt> = Vec::new();
    // From the dearest to the cheapest: each the best of those that cost less than the one before.
    while let Some(found) = best {
        let cost = found.result.cost().0;
        fixed.push(found);
        best = searches.fixed(Goal::Budget(cost * (1.0 - 1e-9)));
        let accuracy = |found: &Learnt| found.result.accuracy().0;
        best = best.filter(|next| {
            fixed
                .last()
                .is_none_or(|last| accuracy(next) <= accuracy(last))
        });
    }
    fixed.reverse();
    for fixed in &fixed {
        let (cost, accuracy) = (fixed.result.cost().0, fixed.result.accuracy().0);
        let goals = [Goal::Budget(cost), Goal::Accuracy(accuracy)];
        for (what, goal) in ["plan of its cost", "plan as good"].into_iter().zip(goals) {
            let Some(plan) = searches.learn(goal) else {
                continue;
            };
            let (on, own, other) = match held_out {
                None => ("calibration", plan.result.clone(), fixed.result.clone()),
                Some(held_out) => (
                    "held-out",
                    on(held_out, &plan.plan)?,
                    on(held_out, &fixed.plan)?,
                ),
            };
            rows.push(Row::new(what, on, &fixed.plan, &other, &own));
        }
    }
    if flags.json {
        return print_json(&rows);
    }
    print(&render(&rows, flags.unit))
}
