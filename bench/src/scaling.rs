//! Accuracy and cost of every strategy against N.
//!
//! For every seed: CoT with the small and the big policy, then majority vote, best-of-N, beam
//! search and DVTS. Beam search runs at every N. The others run at the largest N only: the first N'
//! solutions *are* the run with N', so accuracies at smaller N are subsamples, for every seed. Its
//! tokens, FLOPs and seconds are not those of N'. So with the first seed each smaller N also runs
//! alone: the cost columns come from that run, and the study fails unless its answers are the
//! subsample's.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::Done;
use crate::machine::{Machine, root, today};
use crate::markdown;
use crate::offshoot::{Levels, Offshoot, Run};

/// Flags of the study.
#[derive(clap::Args, Debug)]
pub struct Flags {
    /// Seeds 0, 1, ... of the runs.
    #[arg(long, default_value_t = 5, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The budgets N, each divisible by 4.
    #[arg(
        long,
        default_value = "4,16,64",
        value_delimiter = ',',
        value_name = "N,..."
    )]
    n: Vec<u64>,
    /// Only the first COUNT problems.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
    /// Folder of the raw results; runs of the same binary found there are not repeated. Default:
    /// bench/results/, named by date and machine.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// The binary. Default: the release build of this workspace, built first.
    #[arg(long, value_name = "FILE")]
    offshoot: Option<PathBuf>,
    /// Put the table between the scaling markers of the README.
    #[arg(long)]
    write_readme: bool,
}

/// The strategies whose smaller budgets come from one run.
const SUBSAMPLED: [&str; 3] = ["majority", "best-of-n", "dvts"];

/// Settings of one more run of DVTS at the largest N: eight candidates a tree, a higher
/// temperature, paths scored by the product of their steps' scores. Chosen on the nano family's
/// validation problems (`bench/nano/README.md`); all other rows have the paper's defaults.
const CHOSEN: [&str; 6] = [
    "--beam-width",
    "8",
    "--temperature",
    "1.0",
    "--selection",
    "product-vote",
];

/// A row of the table.
struct Row {
    name: String,
    n: u64,
    /// Arguments of the runs that give the accuracy at `n`, one per seed.
    accuracy: Vec<Vec<String>>,
    /// Arguments of the runs with exactly this N, whose cost is averaged.
    cost: Vec<Vec<String>>,
}

/// Runs the study.
pub fn run(flags: &Flags) -> Done {
    let machine = Machine::this();
    let mut budgets = flags.n.clone();
    budgets.sort_unstable();
    budgets.dedup();
    let max = budgets.last().copied().unwrap_or(0);
    if budgets.iter().any(|n| *n == 0 || n % 4 != 0) || max == 0 || max % 8 != 0 {
        return Err(format!(
            "--n {:?}: expected multiples of the beam width 4, the largest one of 8",
            flags.n
        ));
    }
    let offshoot = Offshoot::find(flags.offshoot.as_deref())?;
    let folder = (flags.out.clone()).unwrap_or_else(|| {
        root()
            .join("bench/results")
            .join(today() + "-" + &machine.slug())
    });
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;

    let rows = rows(&budgets, flags.seeds, flags.limit);
    let wanted = unique(
        rows.iter()
            .flat_map(|row| row.accuracy.iter().chain(&row.cost)),
    );
    let mut record = Record::open(folder.join("scaling.jsonl"), &offshoot.hash)?;
    for (number, arguments) in wanted.iter().enumerate() {
        if record.find(arguments).is_none() {
            eprintln!(
                "{}/{}: offshoot solve {}",
                number + 1,
                wanted.len(),
                arguments.join(" ")
            );
            record.add(offshoot.solve(arguments, &folder.join("unfinished.jsonl"))?)?;
        }
    }
    subsamples_are_runs(&rows, &record)?;

    let command = command(flags, &budgets);
    let report = report(&rows, &record, &machine, &command, flags)?;
    let about = format!(
        "# Accuracy and cost against N\n\n{report}\n\
         Commit {}, binary {} (FNV-1a). `scaling.jsonl` has one run a line: its arguments, a hash \
         of its answers, right answers by N and level, and what `offshoot solve --json` printed. \
         The table is made from it by the command above.\n",
        machine.commit, offshoot.hash
    );
    write(&folder.join("README.md"), &about)?;
    if flags.write_readme {
        let readme = root().join("README.md");
        let text = std::fs::read_to_string(&readme).map_err(|e| format!("README.md: {e}"))?;
        write(&readme, &markdown::put_between(&text, "scaling", &report)?)?;
    }
    println!("{report}");
    Ok(())
}

/// The rows of the table and the runs each needs.
fn rows(budgets: &[u64], seeds: u64, limit: Option<u64>) -> Vec<Row> {
    let max = budgets.iter().copied().max().unwrap_or(1);
    let arguments = |words: &[&str], n: u64, seed: u64| {
        let mut all: Vec<String> = words.iter().map(|w| w.to_string()).collect();
        all.extend([
            "--n".into(),
            n.to_string(),
            "--seed".into(),
            seed.to_string(),
        ]);
        if let Some(limit) = limit {
            all.extend(["--limit".into(), limit.to_string()]);
        }
        all
    };
    let every_seed = |words: &[&str], n: u64| -> Vec<Vec<String>> {
        (0..seeds).map(|seed| arguments(words, n, seed)).collect()
    };
    let mut rows = Vec::new();
    for policy in ["nano-small", "nano-big"] {
        let runs = every_seed(&["--strategy", "cot", "--policy", policy], 1);
        rows.push(Row {
            name: format!("CoT, {policy}"),
            n: 1,
            accuracy: runs.clone(),
            cost: runs,
        });
    }
    for strategy in ["majority", "best-of-n", "beam", "dvts"] {
        for &n in budgets {
            let words = ["--strategy", strategy];
            let subsampled = SUBSAMPLED.contains(&strategy) && n != max && n.is_power_of_two();
            let (accuracy, cost) = if subsampled {
                (every_seed(&words, max), vec![arguments(&words, n, 0)])
            } else {
                (every_seed(&words, n), every_seed(&words, n))
            };
            rows.push(Row {
                name: strategy.into(),
                n,
                accuracy,
                cost,
            });
        }
    }
    let words: Vec<&str> = ["--strategy", "dvts"].into_iter().chain(CHOSEN).collect();
    let runs = every_seed(&words, max);
    rows.push(Row {
        name: "dvts, chosen on validation".into(),
        n: max,
        accuracy: runs.clone(),
        cost: runs,
    });
    rows
}

fn unique<'a>(all: impl Iterator<Item = &'a Vec<String>>) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for arguments in all {
        if !found.contains(arguments) {
            found.push(arguments.clone());
        }
    }
    found
}

/// Where a smaller N ran by itself, its right answers must be those of the subsample with the
/// same seed.
fn subsamples_are_runs(rows: &[Row], record: &Record) -> Done {
    for row in rows {
        let (Some(whole), Some(alone)) = (row.accuracy.first(), row.cost.first()) else {
            continue;
        };
        let (whole, alone) = (record.get(whole)?, record.get(alone)?);
        let (from_whole, from_alone) = (whole.levels(row.n)?, alone.levels(row.n)?);
        if from_whole != from_alone {
            return Err(format!(
                "{} at N = {}: {from_alone:?} when run alone, {from_whole:?} as a subsample",
                row.name, row.n
            ));
        }
    }
    Ok(())
}

/// The raw results of one binary.
struct Record {
    path: PathBuf,
    binary: String,
    runs: Vec<Run>,
}

impl Record {
    fn open(path: PathBuf, binary: &str) -> Done<Record> {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut runs = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let run: Run = serde_json::from_str(line)
                .map_err(|e| format!("{} line {}: {e}", path.display(), number + 1))?;
            if run.binary != binary {
                return Err(format!(
                    "{} line {}: of another binary ({}, now {binary}); name another --out",
                    path.display(),
                    number + 1,
                    run.binary
                ));
            }
            runs.push(run);
        }
        let binary = binary.into();
        Ok(Record { path, binary, runs })
    }

    fn find(&self, arguments: &[String]) -> Option<&Run> {
        (self.runs.iter()).find(|run| run.arguments == arguments && run.binary == self.binary)
    }

    fn get(&self, arguments: &[String]) -> Done<&Run> {
        let words = || format!("offshoot solve {}: no such run", arguments.join(" "));
        self.find(arguments).ok_or_else(words)
    }

    fn all(&self, wanted: &[Vec<String>]) -> Done<Vec<&Run>> {
        wanted.iter().map(|arguments| self.get(arguments)).collect()
    }

    fn add(&mut self, run: Run) -> Done {
        let failed = |e: std::io::Error| format!("{}: {e}", self.path.display());
        let line = serde_json::to_string(&run).map_err(|e| e.to_string())?;
        let mut file = (OpenOptions::new().create(true).append(true))
            .open(&self.path)
            .map_err(failed)?;
        writeln!(file, "{line}").map_err(failed)?;
        self.runs.push(run);
        Ok(())
    }
}

/// The table and the sentences that explain it.
fn report(
    rows: &[Row],
    record: &Record,
    machine: &Machine,
    command: &str,
    flags: &Flags,
) -> Done<String> {
    // The number of problems by level.
    let mut levels: BTreeMap<&String, u64> = BTreeMap::new();
    for row in rows {
        for (level, count) in record.get(&row.accuracy[0])?.levels(row.n)? {
            levels.insert(level, count.problems);
        }
    }
    let problems: u64 = levels.values().sum();
    let seeds = match flags.seeds {
        1 => "one seed".to_string(),
        count => format!("mean ± standard deviation over {count} seeds"),
    };
    let params = |arguments: &[String]| -> Done<String> {
        let run = record.get(arguments)?;
        let name = run.summary["policy"]["name"].as_str().unwrap_or("?");
        Ok(format!("{name} {}", run.number("/policy/params")))
    };
    let prm = (record.runs.iter()).find_map(|run| run.summary["prm"]["params"].as_u64());
    Ok(format!(
        "{}\n\
         {problems} bundled problems; accuracy is the {seeds}. CoT is greedy. Parameters: {}, {}, \
         nano-prm {}. Tokens and FLOPs (2 per multiply-add) are counted, per problem, prompts \
         included, each token once; seconds are measured, for all problems; the KV peak is of policy and \
         PRM together. Majority, best-of-n and dvts at a smaller N are the first solutions of the largest \
         run, for every seed; their cost columns are from a run of that N alone, seed 0, whose answers \
         were compared with the subsample's.{}\n\n\
         Machine: {}. Commit {}. Command: `{command}`\n",
        table(rows, record, &levels)?,
        params(&rows[0].cost[0])?,
        params(&rows[1].cost[0])?,
        prm.map_or("-".into(), |p| p.to_string()),
        any_correct(rows, record)?,
        machine.words(),
        machine.commit,
    ))
}

fn table(rows: &[Row], record: &Record, levels: &BTreeMap<&String, u64>) -> Done<String> {
    let mut header: Vec<String> = [
        "strategy",
        "N",
        "accuracy, %",
        "policy tokens",
        "PRM tokens",
        "policy MFLOPs",
        "PRM MFLOPs",
        "seconds",
        "KV peak, MiB",
    ]
    .map(String::from)
    .to_vec();
    header.extend(levels.keys().map(|level| format!("level {level}, %")));
    let mut lines = Vec::new();
    for row in rows {
        let runs = record.all(&row.accuracy)?;
        let counts: Vec<&Levels> = runs
            .iter()
            .map(|run| run.levels(row.n))
            .collect::<Done<_>>()?;
        let accuracy: Vec<f64> = counts.iter().map(|counts| percent(counts, None)).collect();
        let (mean, deviation) = mean_and_deviation(&accuracy);
        let mut line = vec![row.name.clone(), row.n.to_string()];
        line.push(match deviation {
            Some(deviation) => format!("{mean:.1} ± {deviation:.1}"),
            None => format!("{mean:.1}"),
        });
        line.extend(cost(&record.all(&row.cost)?));
        line.extend(levels.keys().map(|level| {
            let shares: Vec<f64> = counts.iter().map(|c| percent(c, Some(level))).collect();
            format!("{:.1}", mean_and_deviation(&shares).0)
        }));
        lines.push(line);
    }
    Ok(markdown::table(&header, 1, &lines))
}

/// A sentence on how often any of the largest best-of-n's solutions is right.
fn any_correct(rows: &[Row], record: &Record) -> Done<String> {
    let Some(row) = rows.iter().rfind(|row| row.name == "best-of-n") else {
        return Ok(String::new());
    };
    let runs = record.all(&row.cost)?;
    let shares: Vec<f64> = runs
        .iter()
        .map(|run| 100.0 * run.number("/any_correct/accuracy"))
        .collect();
    Ok(format!(
        " At least one of the {} solutions of best-of-n is right for {:.1}% of the problems.",
        row.n,
        mean_and_deviation(&shares).0
    ))
}

/// The cost columns: means over the runs.
fn cost(runs: &[&Run]) -> Vec<String> {
    let mean = |path: &str| {
        let all: Vec<f64> = runs.iter().map(|run| run.number(path)).collect();
        mean_and_deviation(&all).0
    };
    let problems = mean("/problems").max(1.0);
    let has_prm = runs.iter().all(|run| run.summary["prm"].is_object());
    let of_prm = |text: String| if has_prm { text } else { "0".into() };
    vec![
        format!("{:.0}", mean("/policy/tokens_processed") / problems),
        of_prm(format!("{:.0}", mean("/prm/tokens_processed") / problems)),
        format!("{:.0}", mean("/flops/policy") / problems / 1e6),
        of_prm(format!("{:.0}", mean("/flops/prm") / problems / 1e6)),
        format!("{:.1}", mean("/seconds")),
        format!("{:.2}", mean("/kv/peak_bytes") / f64::from(1 << 20)),
    ]
}

/// The share of right answers, of one level or of all.
fn percent(levels: &Levels, only: Option<&str>) -> f64 {
    let counts = || {
        let chosen = levels
            .iter()
            .filter(|(level, _)| only.is_none_or(|o| o == *level));
        chosen.map(|(_, count)| count)
    };
    let problems: u64 = counts().map(|c| c.problems).sum();
    let correct: u64 = counts().map(|c| c.correct).sum();
    100.0 * correct as f64 / problems.max(1) as f64
}

/// The mean, and the sample standard deviation of two values or more.
fn mean_and_deviation(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let deviation = (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
    (mean, deviation)
}

/// The command that makes this table, without flags that name a path on this machine.
fn command(flags: &Flags, budgets: &[u64]) -> String {
    let budgets: Vec<String> = budgets.iter().map(u64::to_string).collect();
    let mut command = format!(
        "cargo run --release -p offshoot-bench -- scaling --seeds {} --n {}",
        flags.seeds,
        budgets.join(",")
    );
    if let Some(limit) = flags.limit {
        command += &format!(" --limit {limit}");
    }
    if flags.write_readme {
        command += " --write-readme";
    }
    command
}

fn write(path: &Path, text: &str) -> Done {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_deviations() {
        for (values, expected) in [
            (vec![3.0], (3.0, None)),
            (vec![1.0, 3.0], (2.0, Some(2f64.sqrt()))),
            (vec![2.0, 2.0, 2.0], (2.0, Some(0.0))),
            (vec![2.0, 4.0, 4.0, 4.0, 6.0], (4.0, Some(2f64.sqrt()))),
        ] {
            assert_eq!(mean_and_deviation(&values), expected, "{values:?}");
        }
    }

    #[test]
    fn a_smaller_budget_costs_a_run_of_its_own() {
        let rows = rows(&[4, 64], 2, None);
        let words = |arguments: &[String]| arguments.join(" ");
        let row = |name: &str, n: u64| {
            let found = rows.iter().find(|row| row.name == name && row.n == n);
            let row = found.expect("the row");
            let all = |runs: &[Vec<String>]| runs.iter().map(|r| words(r)).collect::<Vec<_>>();
            (all(&row.accuracy), all(&row.cost))
        };
        let run = |strategy: &str, n: u64, seed: u64| {
            format!("--strategy {strategy} --n {n} --seed {seed}")
        };
        for strategy in SUBSAMPLED {
            let (accuracy, cost) = row(strategy, 4);
            assert_eq!(accuracy, [run(strategy, 64, 0), run(strategy, 64, 1)]);
            assert_eq!(cost, [run(strategy, 4, 0)]);
        }
        let (accuracy, cost) = row("beam", 4);
        assert_eq!(accuracy, [run("beam", 4, 0), run("beam", 4, 1)]);
        assert_eq!(accuracy, cost);
    }
}
