//! Progress on stderr: tokens, rate and ETA from the first seconds on; a bar on a terminal, plain
//! lines otherwise.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use session::Usages;

/// How often a plain line is printed in the first minute, and later.
const LINE_EVERY: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(30)];

/// Tokens of a solution before any has ended. A guess: the ETA says "roughly" while it counts.
const TYPICAL_TOKENS: u64 = 300;

/// How many parts the bar has.
const BAR_PARTS: u64 = 1000;

/// Problems as they end, and the tokens that the policy draws for them.
pub struct Progress {
    bar: Option<ProgressBar>,
    began: Instant,
    last_line: Option<Instant>,
    /// All problems, those of the results file included.
    total: usize,
    /// Problems in the results file before.
    before: usize,
    done: usize,
    graded: usize,
    correct: usize,
    tokens: Tokens,
    /// What one solution may draw at most.
    max_tokens: u64,
    /// Solutions of a problem.
    n: u64,
}

/// Counts of the tokens that the policy has drawn.
#[derive(Clone, Copy, Debug, Default)]
struct Tokens {
    /// In all.
    drawn: u64,
    /// For problems that have ended.
    of_problems: u64,
    /// On the paths of finished solutions, and the number of these.
    of_solutions: u64,
    solutions: u64,
}

/// The tokens that a problem is expected to draw.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    /// By the mean of what has ended.
    About(f64),
    /// By [`TYPICAL_TOKENS`]: nothing has ended.
    Roughly(f64),
}

impl Progress {
    /// `total` problems, of which `done` are in the results file already; each has `n` solutions of
    /// at most `max_tokens`.
    pub fn new(total: usize, done: usize, n: usize, max_tokens: usize) -> Progress {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:24} {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(BAR_PARTS).with_style(style)
        });
        Progress {
            bar,
            began: Instant::now(),
            last_line: None,
            total,
            before: done,
            done,
            graded: 0,
            correct: 0,
            tokens: Tokens::default(),
            max_tokens: max_tokens as u64,
            n: n as u64,
        }
    }

    /// A problem is solved; its search drew `tokens`.
    pub fn solved(&mut self, correct: Option<bool>, tokens: u64) {
        self.done += 1;
        self.tokens.of_problems += tokens;
        self.tokens.drawn = self.tokens.drawn.max(self.tokens.of_problems);
        self.graded += usize::from(correct.is_some());
        self.correct += usize::from(correct == Some(true));
        self.show(self.done == self.total);
    }

    /// What the models have done so far.
    pub fn worked(&mut self, usages: &Usages) {
        let drawn = usages
            .policy
            .map_or(0, |policy| policy.work.tokens_generated);
        self.tokens.drawn = self.tokens.drawn.max(drawn);
        self.tokens.of_solutions = usages.solution_tokens;
        self.tokens.solutions = usages.solutions;
        self.show(false);
    }

    fn show(&mut self, last: bool) {
        let elapsed = self.began.elapsed();
        if let Some(bar) = &self.bar {
            bar.set_position((self.share() * BAR_PARTS as f64) as u64);
            bar.set_message(self.line(elapsed));
            return;
        }
        let every = LINE_EVERY[usize::from(elapsed >= Duration::from_secs(60))];
        let due = self.last_line.is_none_or(|line| line.elapsed() >= every);
        if last || (due && self.tokens.drawn > 0) {
            self.last_line = Some(Instant::now());
            eprintln!("{}", self.line(elapsed));
        }
    }

    /// `3/32 problems, 1 of 3 right, 45210 tokens, 110 tokens/s, ETA 12 min`.
    fn line(&self, elapsed: Duration) -> String {
        let mut line = format!("{}/{} problems", self.done, self.total);
        if self.graded > 0 {
            line += &format!(", {} of {} right", self.correct, self.graded);
        }
        let rate = self.tokens.drawn as f64 / elapsed.as_secs_f64().max(1e-9);
        line += &format!(", {} tokens, {rate:.0} tokens/s", self.tokens.drawn);
        if self.done < self.total && rate > 0.0 {
            let (confidence, tokens) = match self.expected() {
                Expected::About(tokens) => ("", tokens),
                Expected::Roughly(tokens) => ("roughly ", tokens),
            };
            let left = (self.run() as f64 * tokens - self.tokens.drawn as f64).max(0.0);
            line += &format!(", ETA {confidence}{}", duration(left / rate));
        }
        line
    }

    /// Problems of this run.
    fn run(&self) -> usize {
        self.total - self.before
    }

    /// The share of the work that is done: what the bar shows.
    fn share(&self) -> f64 {
        let (Expected::About(tokens) | Expected::Roughly(tokens)) = self.expected();
        let drawn = self.tokens.drawn as f64 / tokens.max(1.0);
        // What is under way may be longer than what has ended; the last problem alone ends the run.
        let drawn = drawn
            .min(self.run() as f64)
            .max((self.done - self.before) as f64);
        (self.before as f64 + drawn) / (self.total as f64).max(1.0)
    }

    fn expected(&self) -> Expected {
        let done = self.done - self.before;
        if done > 0 {
            return Expected::About(self.tokens.of_problems as f64 / done as f64);
        }
        match self.tokens.solutions {
            0 => Expected::Roughly((self.n * self.max_tokens.min(TYPICAL_TOKENS)) as f64),
            solutions => {
                // Solutions that have ended are the short ones; all tokens for each that has ended
                // are too many. The truth is between the two.
                let (low, high) = (self.tokens.of_solutions, self.tokens.drawn);
                let [low, high] = [low, high].map(|tokens| tokens as f64 / solutions as f64);
                let tokens = (low * high.min(self.max_tokens as f64)).sqrt();
                Expected::About(self.n as f64 * tokens)
            }
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

/// `45 s`, `12 min`, `3 h 5 min`.
pub fn duration(seconds: f64) -> String {
    // A rate near 0 gives a time that no integer holds.
    let seconds = seconds.min(1e9).ceil() as u64;
    match seconds {
        0..100 => format!("{seconds} s"),
        100..6000 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four problems of two solutions of at most 100 tokens, without a bar.
    fn progress(before: usize) -> Progress {
        Progress {
            bar: None,
            ..Progress::new(4, before, 2, 100)
        }
    }

    fn usages(drawn: u64, solutions: u64, solution_tokens: u64) -> Usages {
        let mut usages = Usages {
            policy: Some(session::ModelUsage {
                work: session::Usage::default(),
                kv: session::KvUsage::default(),
                rates: Default::default(),
            }),
            solutions,
            solution_tokens,
            ..Usages::default()
        };
        usages
            .policy
            .iter_mut()
            .for_each(|p| p.work.tokens_generated = drawn);
        usages
    }

    #[test]
    fn the_eta_is_a_guess_until_something_has_ended() {
        let ten = Duration::from_secs(10);
        let mut progress = progress(0);
        progress.worked(&usages(40, 0, 0));
        let line = progress.line(ten);
        assert_eq!(
            line,
            "0/4 problems, 40 tokens, 4 tokens/s, ETA roughly 4 min"
        );
        // Two solutions of 20 tokens have ended, 80 tokens are drawn: 20 to 40 for each.
        progress.worked(&usages(80, 2, 40));
        let line = progress.line(ten);
        assert_eq!(line, "0/4 problems, 80 tokens, 8 tokens/s, ETA 19 s");
        // A problem has ended, with 60 tokens.
        progress.worked(&usages(80, 3, 60));
        progress.solved(Some(true), 60);
        let line = progress.line(ten);
        assert_eq!(
            line,
            "1/4 problems, 1 of 1 right, 80 tokens, 8 tokens/s, ETA 20 s"
        );
        assert!((progress.share() - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn problems_of_an_earlier_run_cost_nothing() {
        let mut progress = progress(3);
        assert_eq!(progress.share(), 0.75);
        progress.worked(&usages(100, 1, 50));
        let line = progress.line(Duration::from_secs(1));
        // 50 tokens for a solution that has ended, 100 for all that were drawn: 141 for two.
        assert_eq!(line, "3/4 problems, 100 tokens, 100 tokens/s, ETA 1 s");
        let share = (3.0 + 100.0 / 20_000f64.sqrt()) / 4.0;
        assert!((progress.share() - share).abs() < 1e-9);
    }

    #[test]
    fn durations_are_as_exact_as_a_reader_needs() {
        for (seconds, text) in [
            (0.0, "0 s"),
            (98.5, "99 s"),
            (100.0, "2 min"),
            (3599.0, "60 min"),
            (11_100.0, "3 h 5 min"),
            (f64::INFINITY, "277777 h 46 min"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
