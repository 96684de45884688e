//! Downloads on stderr: a bar with rate and ETA on a terminal, plain lines otherwise.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use engine::checkpoint::hub::Watch;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// How often a plain line is printed at most.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows one file after the other.
#[derive(Default)]
pub struct Downloads {
    bar: Option<ProgressBar>,
    file: String,
    bytes: u64,
    got: u64,
    last_line: Option<Instant>,
}

impl Downloads {
    fn line(&mut self) {
        let (file, got, all) = (&self.file, HumanBytes(self.got), HumanBytes(self.bytes));
        eprintln!("fetching {file}: {got} of {all}");
        self.last_line = Some(Instant::now());
    }
}

impl Watch for Downloads {
    fn begin(&mut self, file: &str, bytes: u64) {
        (self.file, self.bytes, self.got) = (file.to_string(), bytes, 0);
        self.last_line = None;
        if stderr().is_terminal() {
            let template =
                "fetching {msg} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, ETA {eta}";
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = self.bar.get_or_insert_with(|| ProgressBar::new(bytes));
            bar.set_style(style);
            bar.set_length(bytes);
            bar.set_position(0);
            bar.set_message(self.file.clone());
        }
    }

    fn advance(&mut self, bytes: u64) {
        let first = self.got == 0 && self.last_line.is_none();
        self.got += bytes;
        match &self.bar {
            // What was there already is no part of the rate.
            Some(bar) if first => {
                bar.set_position(self.got);
                bar.reset_eta();
            }
            Some(bar) => bar.set_position(self.got),
            None if self
                .last_line
                .is_none_or(|last| last.elapsed() >= LINE_EVERY) =>
            {
                self.line()
            }
            None => {}
        }
    }

    fn end(&mut self) {
        match self.bar.take() {
            Some(bar) => bar.finish_and_clear(),
            None => self.line(),
        }
    }

    fn retry(&mut self, file: &str, why: &str, wait: Duration) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let seconds = wait.as_secs_f64();
        eprintln!("fetching {file}: {why}; trying again in {seconds} s");
    }
}
