//! A policy and a PRM read from a table: no weights, every branch known in advance.

use futures::executor::block_on;
use offshoot_strategies::{
    Confidence, ConfidenceWindow, Confidences, Config, Error, Outcome, Policy, Prm, Problem, Step,
    StepEnd, StepParams, solve,
};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

/// The steps and scores of the models, one line per node:
///
/// ```text
/// path: word:score word:score ...
/// ```
///
/// `path` is the words so far joined by `.` (`-` at the stem); the i-th fork of a branch there
/// writes the i-th word, one token each. A word ends in `!` for end of sequence, `~` for a cut,
/// and neither for the delimiter; `[7]` stands for `\boxed{7}`, `_` for nothing. The score is
/// the PRM's for that step on that path. A line `path?: word:score` is the greedy
/// continuation of a branch itself. A fork of the i-th fork of a path is at `path/i`. Several words
/// written in one go are joined by `|`. A word of several tokens has `+` between them, and between the
/// scores after each: `a+b:.1+.2` is the word `ab`. A token has a log-probability of -1, those of
/// `a%2` of -2.
///
/// The confidence at a word `a@5` is 5, at a word without `@` it is 1; the self-certainty is twice that.
pub struct Script {
    rows: HashMap<String, Vec<String>>,
    scores: HashMap<String, f64>,
    /// The order of completion: how often a call yields before it is done.
    pub delay: fn(usize) -> usize,
    calls: Cell<usize>,
    /// Paths the PRM scored, in order.
    pub scored: RefCell<Vec<String>>,
    /// Live branches of both models, now and at most.
    pub live: Rc<Cell<usize>>,
    pub peak: Rc<Cell<usize>>,
}

pub struct Branch {
    path: String,
    /// Which fork of its parent it is, until its first step.
    index: Option<usize>,
    forks: Cell<usize>,
    /// Of the policy: tokens in all, and of a word that is not whole.
    tokens: usize,
    begun: usize,
    live: Rc<Cell<usize>>,
}

impl Drop for Branch {
    fn drop(&mut self) {
        self.live.set(self.live.get() - 1);
    }
}

impl Script {
    pub fn new(text: &str) -> Script {
        let mut rows = HashMap::new();
        let mut scores = HashMap::new();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let (path, words) = line.split_once(": ").expect("path: words");
            let mut row = Vec::new();
            for entry in words.split_whitespace() {
                let mut at = said(path.trim_end_matches('?'));
                let (word, score) = entry.split_once(':').unwrap_or((entry, ""));
                for (word, score) in word.split('|').zip(score.split('|').chain([""].repeat(9))) {
                    let mut begun = String::new();
                    for (token, score) in clean(word).split('+').zip(score.split('+')) {
                        begun += token;
                        if !score.is_empty() {
                            let score = score.parse().expect("a score");
                            scores.insert(join(&at, &begun), score);
                        }
                    }
                    at = join(&at, &clean(word).replace('+', ""));
                }
                row.push(word.to_string());
            }
            assert!(
                rows.insert(path.to_string(), row).is_none(),
                "{path} stands twice"
            );
        }
        Script {
            rows,
            scores,
            delay: |_| 0,
            calls: Cell::new(0),
            scored: RefCell::default(),
            live: Rc::default(),
            peak: Rc::default(),
        }
    }

    /// Solves [`Script::problem`].
    pub fn solve(&self, config: &Config) -> Result<Outcome, Error> {
        let problem = Script::problem();
        let outcome = block_on(solve(&Writer(self), Some(&Scorer(self)), &problem, config));
        assert_eq!(self.live.get(), 0, "every branch is dropped at the end");
        outcome
    }

    /// The two models, for a strategy of a test's own.
    pub fn models(&self) -> (Writer<'_>, Scorer<'_>) {
        (Writer(self), Scorer(self))
    }

    /// The problem "p" with the answer 7.
    pub fn problem() -> Problem {
        Problem {
            answer: Some("7".into()),
            ..Problem::new("1", "p")
        }
    }

    fn branch(&self, path: &str, index: Option<usize>) -> Branch {
        self.live.set(self.live.get() + 1);
        self.peak.set(self.peak.get().max(self.live.get()));
        Branch {
            path: path.into(),
            index,
            forks: Cell::new(0),
            tokens: 1,
            begun: 0,
            live: self.live.clone(),
        }
    }

    async fn yields(&self) {
        let call = self.calls.get();
        self.calls.set(call + 1);
        let mut left = (self.delay)(call);
        poll_fn(|context| match left {
            0 => Poll::Ready(()),
            _ => {
                left -= 1;
                context.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await;
    }
}

fn join(path: &str, word: &str) -> String {
    if path == "-" {
        word.into()
    } else {
        format!("{path}.{word}")
    }
}

/// The words of a path without the forks between them: `-/2.a/0.b` is `a.b`.
fn said(path: &str) -> String {
    let words = path
        .split('.')
        .map(|word| word.split('/').next().unwrap_or(word));
    let words: Vec<&str> = words.collect();
    match words.as_slice() {
        ["-", said @ ..] if !said.is_empty() => said.join("."),
        said => said.join("."),
    }
}

fn clean(word: &str) -> &str {
    let word = word.trim_end_matches(['!', '~']);
    word.split_once('%').map_or(word, |(word, _)| word)
}

/// The confidence at a word.
fn sure(word: &str) -> Confidence {
    let top = clean(word)
        .split_once('@')
        .map_or(1.0, |(_, top)| top.parse().expect("a number"));
    Confidence {
        self_certainty: 2.0 * top,
        top,
    }
}

pub struct Writer<'a>(&'a Script);

impl Policy for Writer<'_> {
    type Branch = Branch;

    async fn start(&self, problem: &str, _stream: u64) -> Result<Branch, Error> {
        assert_eq!(problem, "p");
        Ok(self.0.branch("-", None))
    }

    fn fork(&self, branch: &Branch) -> Branch {
        let index = branch.forks.get();
        branch.forks.set(index + 1);
        let path = match branch.index {
            Some(earlier) => format!("{}/{earlier}", branch.path),
            None => branch.path.clone(),
        };
        assert_eq!(branch.begun, 0, "a fork in the middle of a word");
        let mut fork = self.0.branch(&path, Some(index));
        fork.tokens = branch.tokens;
        fork
    }

    fn twin(&self, stem: &Branch) -> Branch {
        self.0.branch(&stem.path, stem.index)
    }

    /// One token for the problem, and those of the words.
    fn num_tokens(&self, branch: &Branch) -> usize {
        branch.tokens
    }

    /// Words that begin with the same letter point the same way.
    async fn hidden_sum(&self, branch: &Branch, tokens: usize) -> Result<Vec<f64>, Error> {
        self.0.yields().await;
        let said = said(&branch.path);
        let words: Vec<&str> = said.split('.').collect();
        let mut sum = vec![0.0; 256];
        for word in &words[words.len() - tokens..] {
            sum[usize::from(word.as_bytes()[0])] += 1.0;
        }
        Ok(sum)
    }

    async fn step(&self, branch: &mut Branch, params: &StepParams<'_>) -> Result<Step, Error> {
        self.0.yields().await;
        let row = match params.sampling.temperature {
            0.0 => format!("{}?", branch.path),
            _ => branch.path.clone(),
        };
        let index = match params.sampling.temperature {
            0.0 => 0,
            _ => branch.index.unwrap_or(0),
        };
        let words = self.0.rows.get(&row).and_then(|words| words.get(index));
        let Some(words) = words else {
            return Err(Error::model(format!(
                "nothing scripted at {row} fork {index}"
            )));
        };
        assert_eq!(params.begun, branch.begun);
        let tokens: Vec<&str> = words.split('+').collect();
        let left = tokens.len() - branch.begun;
        if params.max_tokens < left {
            branch.begun += params.max_tokens;
            branch.tokens += params.max_tokens;
            return Ok(Step {
                text: tokens[..branch.begun].concat(),
                num_tokens: params.max_tokens,
                logprob: -(params.max_tokens as f64),
                confidences: Vec::new(),
                end: StepEnd::Length,
            });
        }
        let mut end = match words.chars().last() {
            _ if params.max_tokens == 0 => panic!("asked for no tokens"),
            Some('!') => StepEnd::Eos,
            Some('~') => StepEnd::Length,
            _ => StepEnd::Delimiter,
        };
        let mut text = String::new();
        let mut bar = match params.confidences {
            Confidences::StopBelow { bar, window } => Some((bar, ConfidenceWindow::new(window))),
            _ => None,
        };
        let mut confidences = Vec::new();
        for word in tokens.concat().split('|') {
            branch.path = join(&branch.path, clean(word));
            text += if text.is_empty() { "" } else { "\n\n" };
            text += &clean(word)
                .replace('[', "\\boxed{")
                .replace(']', "}")
                .replace('_', "");
            let confidence = sure(word);
            confidences.push(confidence);
            let low = (bar.as_mut())
                .is_some_and(|(bar, means)| means.push(confidence.top).is_some_and(|m| m < *bar));
            if low {
                end = StepEnd::LowConfidence;
                break;
            }
        }
        if end == StepEnd::Delimiter {
            text += params.delimiter.expect("only a step ends in a delimiter");
        }
        let surprise = words.trim_end_matches(['!', '~']).split_once('%');
        let surprise: f64 = surprise.map_or(1.0, |(_, nats)| nats.parse().expect("nats"));
        branch.index = None;
        branch.forks.set(0);
        let num_tokens = left.max(confidences.len());
        if params.confidences == Confidences::None {
            confidences.clear();
        }
        branch.begun = 0;
        branch.tokens += num_tokens;
        Ok(Step {
            text,
            num_tokens,
            logprob: -surprise * num_tokens as f64,
            confidences,
            end,
        })
    }
}

pub struct Scorer<'a>(&'a Script);

impl Prm for Scorer<'_> {
    type Branch = Branch;

    async fn start(&self, _problem: &str) -> Result<Branch, Error> {
        Ok(self.0.branch("-", None))
    }

    fn fork(&self, branch: &Branch) -> Branch {
        self.0.branch(&branch.path, None)
    }

    /// One token for the problem and one for each step.
    fn num_tokens(&self, branch: &Branch) -> usize {
        match branch.path.as_str() {
            "-" => 1,
            path => 1 + path.split('.').count(),
        }
    }

    async fn score(&self, branch: &mut Branch, steps: &[&str]) -> Result<Vec<f64>, Error> {
        self.0.yields().await;
        let mut scores = Vec::new();
        for step in steps {
            let word = step.replace("\\boxed{", "[").replace('}', "]");
            branch.path = join(&branch.path, &word);
            self.0.scored.borrow_mut().push(branch.path.clone());
            let score = self.0.scores.get(&branch.path).copied();
            scores.push(score.ok_or_else(|| Error::model(format!("no score at {}", branch.path)))?);
        }
        Ok(scores)
    }
}

/// The tree as one line a parent: `A+ B- C! ...` with `+` kept, `-` dropped, `/` rejected, `!` finished, `=`
/// duplicate, `~` cut, `_` empty, `.` stopped; `*` marks the chosen path.
pub fn tree(outcome: &Outcome) -> String {
    use offshoot_strategies::NodeState::*;
    let nodes = &outcome.trace.nodes;
    let path = |mut id: usize| {
        let mut words = Vec::new();
        while let Some(parent) = nodes[id].parent {
            words.push(nodes[id].text.replace("\\boxed{", "[").replace('}', "]"));
            id = parent;
        }
        words.reverse();
        if words.is_empty() {
            "-".to_string()
        } else {
            words.join(".")
        }
    };
    let mut lines = Vec::new();
    for node in nodes {
        let children = nodes.iter().filter(|child| child.parent == Some(node.id));
        let words: Vec<String> = children
            .map(|child| {
                let mark = match child.state {
                    Kept => "+",
                    Dropped => "-",
                    Rejected => "/",
                    Finished => "!",
                    Duplicate => "=",
                    LengthCut => "~",
                    Empty => "_",
                    Stopped => ".",
                };
                let word = child.text.replace("\\boxed{", "[").replace('}', "]");
                format!("{word}{mark}{}", if child.chosen { "*" } else { "" })
            })
            .collect();
        if !words.is_empty() {
            lines.push(format!("{}: {}", path(node.id), words.join(" ")));
        }
    }
    lines.join("\n")
}
