//! Progress of a sweep: a line for the whole on stderr, and a line for each configuration in
//! `progress.txt`, beside the results.

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use session::Error;
use session::sweep::{Record, Stored, Watch};
use strategies::Problem;

use super::{Group, label};
use crate::error::sentence;
use crate::progress::duration;

/// How often `progress.txt` and a plain line are written.
const FILE_EVERY: Duration = Duration::from_secs(5);
const LINE_EVERY: Duration = Duration::from_secs(30);

/// All configurations of a sweep as they advance.
pub struct Progress {
    configurations: Vec<Configuration>,
    /// The configuration of each cell, over all groups.
    of_cell: Vec<usize>,
    /// The first cell of the group that runs.
    first: usize,
    file: PathBuf,
    bar: Option<ProgressBar>,
    began: Instant,
    wrote: Instant,
    said: Instant,
}

/// A configuration at its N, over all seeds.
struct Configuration {
    label: String,
    /// Searches in all, and how many were there before this run.
    total: usize,
    before: usize,
    done: usize,
    /// Of this run.
    right: usize,
    graded: usize,
    flops: f64,
    began: Option<Instant>,
}

impl Progress {
    /// Nothing has run yet; `out` gets `progress.txt`.
    pub fn new(groups: &[Group], stored: &[Vec<Stored>], out: &Path, problems: usize) -> Progress {
        let (mut configurations, mut of_cell): (Vec<Configuration>, Vec<usize>) =
            Default::default();
        let cells = groups.iter().zip(stored);
        for (file, stored) in cells.flat_map(|(group, stored)| group.cells.iter().zip(stored)) {
            let label = label(&file.cell, file.cell.search.n);
            let known = configurations.iter().position(|c| c.label == label);
            let at = known.unwrap_or_else(|| {
                configurations.push(Configuration::new(label));
                configurations.len() - 1
            });
            configurations[at].total += problems;
            configurations[at].before += stored.count();
            configurations[at].done += stored.count();
            of_cell.push(at);
        }
        let total: usize = configurations.iter().map(|c| c.total).sum();
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:24} {wide_msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total as u64).with_style(style)
        });
        let now = Instant::now();
        Progress {
            configurations,
            of_cell,
            first: 0,
            file: out.join("progress.txt"),
            bar,
            began: now,
            wrote: now,
            said: now,
        }
    }

    /// The next group runs.
    pub fn next_group(&mut self, ended: &Group) {
        self.first += ended.cells.len();
    }

    /// All has run: `progress.txt` has nothing more to say.
    pub fn end(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        // What is not there need not go.
        let _ = std::fs::remove_file(&self.file);
    }

    fn show(&mut self) {
        let line = self.line();
        if let Some(bar) = &self.bar {
            bar.set_position(self.configurations.iter().map(|c| c.done as u64).sum());
            bar.set_message(line.clone());
        } else if self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            eprintln!("{line}");
        }
        if self.wrote.elapsed() >= FILE_EVERY {
            self.wrote = Instant::now();
            let mut text = line + "\n\n";
            for configuration in &self.configurations {
                text += &(configuration.line() + "\n");
            }
            // It is there for whoever looks; the results do not need it.
            let _ = std::fs::write(&self.file, text);
        }
    }

    /// `3/12 configurations, 4100/60000 searches, ETA 2 h 3 min`.
    fn line(&self) -> String {
        let all = &self.configurations;
        let ended = all.iter().filter(|c| c.done == c.total).count();
        let searches = |of: fn(&Configuration) -> usize| all.iter().map(of).sum::<usize>();
        let (done, total) = (searches(|c| c.done), searches(|c| c.total));
        let mut line = format!(
            "{ended}/{} configurations, {done}/{total} searches",
            all.len()
        );
        let flops: f64 = all.iter().map(|c| c.flops).sum();
        let left: f64 = all.iter().map(Configuration::flops_left).sum();
        if flops > 0.0 && done < total {
            let eta = self.began.elapsed().as_secs_f64() * left / flops;
            line += &format!(", ETA {}", duration(eta));
        }
        line
    }
}

impl Configuration {
    fn new(label: String) -> Configuration {
        Configuration {
            label,
            total: 0,
            before: 0,
            done: 0,
            right: 0,
            graded: 0,
            flops: 0.0,
            began: None,
        }
    }

    /// What its missing searches will compute, by the mean of those that ended.
    fn flops_left(&self) -> f64 {
        let mean = self.flops / ((self.done - self.before) as f64).max(1.0);
        mean * (self.total - self.done) as f64
    }

    /// `nano-small, beam N = 16: 120/5000 searches, 63.3 % right, ETA 4 min`.
    fn line(&self) -> String {
        let mut line = format!("{}: {}/{} searches", self.label, self.done, self.total);
        if self.graded > 0 {
            let share = 100.0 * self.right as f64 / self.graded as f64;
            line += &format!(", {share:.1} % right");
        }
        let ran = self.done - self.before;
        if let Some(began) = self.began
            && ran > 0
            && self.done < self.total
        {
            let each = began.elapsed().as_secs_f64() / ran as f64;
            let left = (self.total - self.done) as f64;
            line += &format!(", ETA {}", duration(each * left));
        }
        line
    }
}

impl Watch for Progress {
    fn ended(&mut self, cell: usize, record: &Record) {
        let configuration = &mut self.configurations[self.of_cell[self.first + cell]];
        configuration.began.get_or_insert_with(Instant::now);
        configuration.done += 1;
        configuration.graded += usize::from(record.correct.is_some());
        configuration.right += usize::from(record.correct == Some(true));
        configuration.flops += record.flops() as f64;
        let ended = configuration.done == configuration.total;
        if ended && self.bar.is_none() {
            eprintln!("{}", configuration.line());
        }
        self.show();
    }

    fn failed(&mut self, cell: usize, problem: &Problem, error: Error) {
        let label = &self.configurations[self.of_cell[self.first + cell]].label;
        let line = format!(
            "error: {label}: problem {}: {}",
            problem.id,
            sentence(error)
        );
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }
}
