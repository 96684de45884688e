//! `offshoot calibrate`: the map from a PRM's scores to probabilities of success.

use std::path::Path;

use comfy_table::CellAlignment;
use serde::{Deserialize, Serialize};
use session::results::{Line, Settings, read_lines};
use strategies::{Aggregation, Config, Isotonic, Reliability, Sample, Setting, stream};

use super::{print, print_json};
use crate::error::{Done, Failure, sentence_with};
use crate::flags::{CalibrateFlags, SearchFlags};
use crate::table::{percent, table};

/// The version of the files written here.
const SCHEMA: u32 = 1;

/// What is written: the map, and what it is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Calibration {
    schema: u32,
    /// The policy, as it was named.
    policy: String,
    /// The PRM, as it was named.
    prm: String,
    /// How the PRM is read.
    prm_format: Option<String>,
    /// How the scores of a prefix become the one that is mapped.
    aggregation: Aggregation,
    /// Problems it was fitted on.
    problems: usize,
    /// Prefixes of their solutions.
    samples: usize,
    #[serde(flatten)]
    map: Isotonic,
}

impl Calibration {
    /// Reads the file of `--calibration`.
    fn read(path: &Path) -> Done<Calibration> {
        let name = format!("--calibration {}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| Failure::io(&name, &e))?;
        let calibration: Calibration = serde_json::from_str(&text)
            .map_err(|e| Failure::new(format!("{name}: expected a file of calibrate: {e}")))?;
        match calibration.schema {
            SCHEMA => Ok(calibration),
            other => Err(Failure::new(format!(
                "{name}: expected schema {SCHEMA}, found {other}"
            ))),
        }
    }

    /// Refuses the scores of other models.
    pub fn must_fit(&self, settings: &Settings) -> Result<(), Setting> {
        let words = |policy: &str, prm: &str, format: &Option<String>| {
            let format = format.as_deref().unwrap_or("-");
            format!("{policy} scored by {prm} (format {format})")
        };
        let prm = settings.prm.as_deref().unwrap_or("-");
        let found = words(&self.policy, &self.prm, &self.prm_format);
        let expected = words(&settings.policy, prm, &settings.prm_format);
        if found == expected {
            return Ok(());
        }
        let expected = format!("a calibration of {expected}");
        Err(Setting::new("calibration", format!("of {found}"), expected))
    }
}

/// Puts the calibration that flags name into their search; returns it, for the models are not known yet.
pub fn calibrate(flags: &SearchFlags, config: &mut Config) -> Done<Option<Calibration>> {
    let Some(path) = &flags.calibration else {
        return Ok(None);
    };
    let calibration = Calibration::read(path)?;
    let (found, expected) = (calibration.aggregation, config.aggregation);
    if found != expected && config.strategy.uses_beam_width() {
        let found = format!("of the {} of scores", found.name());
        let expected = format!("that of `aggregation`, {}", expected.name());
        return Err(Setting::new("calibration", found, expected).into());
    }
    config.calibration = Some(calibration.map.clone());
    Ok(Some(calibration))
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    calibration: &'a Calibration,
    /// Of the problems that the map was not fitted on.
    held_out: HeldOut,
}

/// How reliable scores and mapped scores are.
#[derive(Serialize)]
struct HeldOut {
    problems: usize,
    raw: Reliability,
    calibrated: Reliability,
}

/// Runs the command.
pub fn run(flags: &CalibrateFlags) -> Done {
    let path = &flags.results;
    let bytes = std::fs::read(path).map_err(|e| Failure::io(&path.display().to_string(), &e))?;
    let lines = read_lines("results", path, &bytes)
        .map_err(|error| Failure::new(sentence_with(error, &[("results", "")])))?;
    let settings = settings(path, &lines)?;
    let graded: Vec<&Line> = lines.iter().filter(|line| line.answer.is_some()).collect();
    let (fitted, held_out): (Vec<_>, Vec<_>) = graded
        .into_iter()
        .partition(|line| is_fitted(&line.problem));
    if fitted.is_empty() || held_out.is_empty() {
        return Err(Failure::new(format!(
            "{}: expected problems with known answers on both sides of the split, found {} and {}",
            path.display(),
            fitted.len(),
            held_out.len()
        )));
    }
    let samples = samples(path, &fitted, flags.aggregation)?;
    let calibration = Calibration {
        schema: SCHEMA,
        policy: settings.policy.clone(),
        prm: settings.prm.clone().unwrap_or_default(),
        prm_format: settings.prm_format.clone(),
        aggregation: flags.aggregation,
        problems: fitted.len(),
        samples: samples.len(),
        map: Isotonic::fit(&samples),
    };
    let raw = self::samples(path, &held_out, flags.aggregation)?;
    let mapped: Vec<Sample> = (raw.iter())
        .map(|sample| Sample {
            score: calibration.map.probability(sample.score),
            ..*sample
        })
        .collect();
    let held_out = HeldOut {
        problems: held_out.len(),
        raw: Reliability::of(&raw),
        calibrated: Reliability::of(&mapped),
    };
    if let Some(out) = &flags.out {
        let text =
            serde_json::to_string_pretty(&calibration).map_err(|e| Failure::new(e.to_string()))?;
        std::fs::write(out, text + "\n")
            .map_err(|e| Failure::io(&format!("--out {}", out.display()), &e))?;
    }
    if flags.json {
        let calibration = &calibration;
        return print_json(&Printed {
            calibration,
            held_out,
        });
    }
    print(&render(&calibration, &held_out))
}

/// The settings of a file whose solutions the PRM has scored, but not chosen.
fn settings<'a>(path: &Path, lines: &'a [Line]) -> Done<&'a Settings> {
    let file = path.display();
    let Some(first) = lines.first() else {
        return Err(Failure::new(format!("{file}: no result in it")));
    };
    let settings = &first.settings;
    if settings.search.strategy != strategies::Strategy::BestOfN {
        return Err(Failure::new(format!(
            "{file}: solutions of {}; expected those of best-of-n, which the PRM scores but does \
             not choose among while they are written",
            settings.search.strategy.name()
        )));
    }
    if lines.iter().any(|line| line.solutions.is_none()) {
        return Err(Failure::new(format!(
            "{file}: no solutions in it; run solve with --trees"
        )));
    }
    Ok(settings)
}

/// Whether a problem is in the half that the map is fitted on: by its text, so that the halves do not
/// depend on the file.
fn is_fitted(problem: &str) -> bool {
    // The low bits of FNV-1a mix little.
    (stream(0, problem) >> 40).is_multiple_of(2)
}

/// Every prefix of every solution, with the outcome of the whole.
fn samples(path: &Path, lines: &[&Line], aggregation: Aggregation) -> Done<Vec<Sample>> {
    let mut samples = Vec::new();
    for solution in lines
        .iter()
        .flat_map(|line| line.solutions.iter().flatten())
    {
        let Some(right) = solution.correct else {
            continue;
        };
        for steps in 1..=solution.scores.len() {
            let score = aggregation.of(&solution.scores[..steps]);
            if !(0.0..=1.0).contains(&score) {
                return Err(Failure::new(format!(
                    "{}: a score of {score}; expected scores from 0 to 1",
                    path.display()
                )));
            }
            samples.push(Sample { score, right });
        }
    }
    Ok(samples)
}

/// The reliability diagram of the held-out problems, before and after, as text.
fn render(calibration: &Calibration, held_out: &HeldOut) -> String {
    let header = [
        "prediction",
        "as scored: prefixes",
        "mean",
        "right",
        "95 %",
        "calibrated: mean",
        "right",
        "",
    ];
    let mut table = table(header, 1);
    for (i, (raw, mapped)) in (held_out.raw.bins.iter().zip(&held_out.calibrated.bins)).enumerate()
    {
        let or_dash = |count: usize, text: String| if count == 0 { "-".into() } else { text };
        let [low, high] = raw.interval.map(percent);
        let bar = "#".repeat((40.0 * raw.observed).round() as usize);
        table.add_row([
            format!("{:.1} to {:.1}", i as f64 / 10.0, (i + 1) as f64 / 10.0),
            raw.count.to_string(),
            or_dash(raw.count, format!("{:.3}", raw.predicted)),
            or_dash(raw.count, percent(raw.observed)),
            or_dash(raw.count, format!("{low} to {high}")),
            or_dash(mapped.count, format!("{:.3}", mapped.predicted)),
            or_dash(mapped.count, percent(mapped.observed)),
            bar,
        ]);
    }
    if let Some(bars) = table.column_mut(header.len() - 1) {
        bars.set_cell_alignment(CellAlignment::Left);
    }
    let summary = |name: &str, reliability: &Reliability| {
        let Reliability {
            brier, ece, auroc, ..
        } = reliability;
        let auroc = auroc.map_or("-".into(), |auroc| format!("{auroc:.3}"));
        format!("{name}: Brier {brier:.4}, expected calibration error {ece:.4}, AUROC {auroc}\n")
    };
    format!(
        "{} scored by {} ({} of each prefix); fitted on {} prefixes of {} problems, shown for the {} \
         of {} others\n\n{table}\n\n{}{}",
        calibration.policy,
        calibration.prm,
        calibration.aggregation.name(),
        calibration.samples,
        calibration.problems,
        held_out.raw.samples,
        held_out.problems,
        summary("as scored ", &held_out.raw),
        summary("calibrated", &held_out.calibrated)
    )
}
