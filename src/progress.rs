//! Progress on stderr: a bar with rate and ETA on a terminal, plain lines otherwise.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain line is printed at most.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Counts problems as they end.
pub struct Progress {
    bar: Option<ProgressBar>,
    began: Instant,
    last_line: Instant,
    total: usize,
    before: usize,
    done: usize,
    graded: usize,
    correct: usize,
}

impl Progress {
    /// `total` problems, of which `done` are in the results file already.
    pub fn new(total: usize, done: usize) -> Progress {
        let bar = stderr().is_terminal().then(|| {
            let template = "{bar:30} {pos}/{len} problems, {msg}, {per_sec}, ETA {eta}";
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total as u64)
                .with_style(style)
                .with_position(done as u64)
        });
        let now = Instant::now();
        Progress {
            bar,
            began: now,
            last_line: now,
            total,
            before: done,
            done,
            graded: 0,
            correct: 0,
        }
    }

    /// A problem is solved.
    pub fn solved(&mut self, correct: Option<bool>) {
        self.done += 1;
        self.graded += usize::from(correct.is_some());
        self.correct += usize::from(correct == Some(true));
        let share = format!("{} of {} right", self.correct, self.graded);
        if let Some(bar) = &self.bar {
            bar.set_message(share);
            bar.set_position(self.done as u64);
        } else if self.last_line.elapsed() >= LINE_EVERY || self.done == self.total {
            self.last_line = Instant::now();
            let rate =
                (self.done - self.before) as f64 / self.began.elapsed().as_secs_f64().max(1e-9);
            let left = (self.total - self.done) as f64 / rate;
            eprintln!(
                "{}/{} problems, {share}, {rate:.2}/s, ETA {left:.0} s",
                self.done, self.total
            );
        }
    }

    /// Prints a line above the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// Removes the bar.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
