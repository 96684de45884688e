//! Strategies that put texts into a solution, on a policy that reads its tokens from tapes.

use futures::executor::block_on;
use offshoot_strategies::{
    Config, Ending, Error, NoPrm, NodeState, Outcome, Policy, Problem, Step, StepEnd, StepParams,
    Strategy, solve,
};
use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;

/// What the policy writes: words are tokens, `!` is the end of sequence, `[7]` stands for `\boxed{7}`.
/// What is appended in one call is one token.
#[derive(Default)]
struct Tapes<'a> {
    /// Of each solution, through whatever is appended in between.
    solutions: &'a [&'a str],
    /// Of a probe of a solution, by the tokens that the solution had written.
    probes: &'a [(usize, &'a str)],
    /// The end of the prompt.
    prompt: &'a str,
    /// Tokens of the context; 0 for no end.
    context: usize,
    calls: Cell<usize>,
    /// Every call yields a different number of times.
    yields: bool,
}

struct Branch {
    /// The solution's; of the root there is none.
    index: Option<usize>,
    forks: Cell<usize>,
    tokens: Vec<String>,
    /// Tokens that were read off the solution's tape.
    written: usize,
    /// Tokens that were read off the probe's tape, on a probe.
    probed: Option<usize>,
}

impl Tapes<'_> {
    fn next(&self, branch: &mut Branch) -> String {
        let tape = match branch.probed {
            None => self.solutions[branch.index.expect("a solution")],
            Some(_) => {
                let probe = self.probes.iter().find(|(at, _)| *at == branch.written);
                probe
                    .unwrap_or_else(|| panic!("no probe at {}", branch.written))
                    .1
            }
        };
        let place = branch.probed.as_mut().unwrap_or(&mut branch.written);
        let token = tape.split_whitespace().nth(*place);
        *place += 1;
        let token = token.unwrap_or_else(|| panic!("{tape} has no token {place}"));
        token.replace('[', "\\boxed{").replace(']', "}")
    }
}

impl Policy for Tapes<'_> {
    type Branch = Branch;

    async fn start(&self, _: &str, _: u64) -> Result<Branch, Error> {
        Ok(Branch {
            index: None,
            forks: Cell::new(0),
            tokens: vec![self.prompt.into()],
            written: 0,
            probed: None,
        })
    }

    fn fork(&self, branch: &Branch) -> Branch {
        let fork = branch.forks.get();
        branch.forks.set(fork + 1);
        Branch {
            index: branch.index.or(Some(fork)),
            forks: Cell::new(0),
            tokens: branch.tokens.clone(),
            ..*branch
        }
    }

    fn twin(&self, stem: &Branch) -> Branch {
        Branch {
            forks: Cell::new(0),
            tokens: stem.tokens.clone(),
            ..*stem
        }
    }

    fn num_tokens(&self, branch: &Branch) -> usize {
        branch.tokens.len()
    }

    fn append(&self, branch: &mut Branch, text: &str) -> Result<bool, Error> {
        let fits = self.context == 0 || branch.tokens.len() + 1 < self.context;
        if fits {
            branch.tokens.push(text.into());
            branch.probed = text.ends_with("\\boxed{").then_some(0);
        }
        Ok(fits)
    }

    fn text(&self, branch: &Branch, from: usize) -> Result<String, Error> {
        Ok(branch.tokens[from..].concat())
    }

    fn is_full(&self, branch: &Branch) -> Result<bool, Error> {
        Ok(self.context > 0 && branch.tokens.len() >= self.context)
    }

    fn prompt_ends_with(&self, _: &str, text: &str) -> Result<bool, Error> {
        Ok(self.prompt.ends_with(text))
    }

    async fn step(&self, branch: &mut Branch, params: &StepParams<'_>) -> Result<Step, Error> {
        let call = self.calls.replace(self.calls.get() + 1);
        let mut left = if self.yields { (call * 7919) % 11 } else { 0 };
        poll_fn(|context| match left {
            0 => Poll::Ready(()),
            _ => {
                left -= 1;
                context.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await;
        assert!(
            !self.is_full(branch)?,
            "asked for a token beyond the context"
        );
        assert!(params.max_tokens > 0, "asked for no tokens");
        let (mut text, mut num_tokens) = (String::new(), 0);
        let end = loop {
            if num_tokens == params.max_tokens || self.is_full(branch)? {
                break StepEnd::Length;
            }
            let token = self.next(branch);
            num_tokens += 1;
            if token == "!" {
                break StepEnd::Eos;
            }
            if params.delimiter == Some(&token) {
                if params.include_delimiter {
                    text += &token;
                    branch.tokens.push(token);
                }
                break StepEnd::Delimiter;
            }
            text += &token;
            branch.tokens.push(token);
        };
        Ok(Step {
            text,
            num_tokens,
            logprob: -(num_tokens as f64),
            confidences: Vec::new(),
            end,
        })
    }
}

fn run(tapes: Tapes<'_>, config: &Config) -> Outcome {
    let problem = Problem::new("1", "p");
    let mut outcomes = [false, true].map(|yields| {
        let tapes = Tapes {
            yields,
            calls: Cell::new(0),
            ..tapes
        };
        block_on(solve(&tapes, None::<&NoPrm>, &problem, config)).expect("on tape")
    });
    let [first, second] = &mut outcomes;
    assert_eq!(
        first, second,
        "the order in which futures end changes nothing"
    );
    assert_eq!(first.policy_tokens, first.trace.num_tokens());
    first.clone()
}

/// The texts of the solutions, their tokens and endings.
fn brief(outcome: &Outcome) -> Vec<(String, usize, Ending)> {
    let solutions = outcome.solutions.iter();
    let brief = |s: &offshoot_strategies::Solution| {
        let text = s
            .steps
            .join("\n\n")
            .replace("\\boxed{", "[")
            .replace('}', "]");
        assert_eq!(s.logprob, -(s.num_tokens as f64));
        (text, s.num_tokens, s.ending)
    };
    solutions.map(brief).collect()
}

#[test]
fn budget_forcing() {
    use Ending::{Finished, LengthCut};
    struct Case {
        budget: usize,
        continuations: usize,
        prompt: &'static str,
        context: usize,
        tape: &'static str,
        text: &'static str,
        tokens: usize,
        ending: Ending,
    }
    let case = |budget, continuations, tape, text, tokens| Case {
        budget,
        continuations,
        prompt: "p",
        context: 0,
        tape,
        text,
        tokens,
        ending: Finished,
    };
    let cases = [
        // The model ends its thinking itself; its own delimiter is a token that it wrote.
        case(8, 0, "a b </think> [7] !", "<think>\nab</think>\n\n[7]", 5),
        Case {
            prompt: "p<think>",
            ..case(8, 0, "a b </think> [7] !", "ab</think>\n\n[7]", 5)
        },
        // The budget is used up.
        case(
            2,
            0,
            "a b [7] !",
            "<think>\nab\n</think>\n\nFinal Answer:[7]",
            4,
        ),
        // No budget: no thinking, and no line break too many.
        case(0, 3, "[7] !", "<think>\n</think>\n\nFinal Answer:[7]", 2),
        Case {
            prompt: "p<think>",
            ..case(0, 0, "[7] !", "</think>\n\nFinal Answer:[7]", 2)
        },
        // It goes on as often as it has to, while there is budget.
        case(
            8,
            1,
            "a </think> b </think> [7] !",
            "<think>\naWaitb</think>\n\n[7]",
            6,
        ),
        case(2, 1, "a </think> [7] !", "<think>\na</think>\n\n[7]", 4),
        case(
            3,
            2,
            "a </think> b [7] !",
            "<think>\naWaitb\n</think>\n\nFinal Answer:[7]",
            5,
        ),
        // An end of sequence ends the thinking as the delimiter does.
        case(8, 0, "a ! [7] !", "<think>\na</think>\n\n[7]", 4),
        // It never closes its thinking, and has no more than one token for its answer.
        Case {
            ending: LengthCut,
            ..case(
                9,
                0,
                "a b c d e f g h i j k",
                "<think>\nabcdefghi\n</think>\n\nFinal Answer:j",
                10,
            )
        },
        // The context ends: in the thinking, before "Wait", behind the thinking, in the answer.
        Case {
            context: 4,
            ending: LengthCut,
            ..case(8, 0, "a b c", "<think>\nab", 2)
        },
        Case {
            context: 4,
            ending: LengthCut,
            ..case(8, 1, "a </think>", "<think>\na", 2)
        },
        Case {
            context: 4,
            ending: LengthCut,
            ..case(8, 0, "a </think>", "<think>\na</think>", 2)
        },
        Case {
            context: 6,
            ending: LengthCut,
            ..case(8, 0, "a </think> b c", "<think>\na</think>\n\nb", 3)
        },
    ];
    for c in cases {
        let config = Config {
            thinking_budget: c.budget,
            continuations: c.continuations,
            max_tokens: 10,
            ..Config::new(Strategy::BudgetForcing)
        };
        let tapes = Tapes {
            solutions: &[c.tape],
            prompt: c.prompt,
            context: c.context,
            ..Tapes::default()
        };
        let found = brief(&run(tapes, &config));
        assert_eq!(
            found,
            [(c.text.to_string(), c.tokens, c.ending)],
            "{}",
            c.tape
        );
    }
    // Texts of one's own, and no opening.
    let config = Config {
        thinking_start: String::new(),
        thinking_end: "/t".into(),
        thinking_budget: 3,
        answer_prompt: "so [".into(),
        continuations: 1,
        continuation_text: "Hm".into(),
        ..Config::new(Strategy::BudgetForcing)
    };
    let tapes = Tapes {
        solutions: &["a /t b 7] !"],
        ..Tapes::default()
    };
    let text = "aHmb\n/t\n\nso [7]".to_string();
    assert_eq!(brief(&run(tapes, &config)), [(text, 5, Finished)]);
    // N of them vote; a tie goes to the earlier one. The first N' are the run with N'.
    let config = Config {
        n: 3,
        max_tokens: 10,
        thinking_budget: 1,
        ..Config::new(Strategy::BudgetForcing)
    };
    let tapes = Tapes {
        solutions: &["a [2] !", "</think> [1] !", "</think> [1] !"],
        ..Tapes::default()
    };
    let outcome = run(tapes, &config);
    assert_eq!(outcome.prediction.as_deref(), Some("1"));
    assert_eq!(outcome.policy_tokens, 9);
    let smaller: Vec<_> = (outcome.by_n.iter())
        .map(|by| (by.n, by.verdicts[0].prediction.as_deref()))
        .collect();
    assert_eq!(smaller, [(1, Some("2")), (2, Some("2"))]);
}

#[test]
fn certaindex() {
    use Ending::{Finished, LengthCut};
    const CLOSED: &str = "...</think>\n Oh, I have got the answer to the whole problem\n\
                          **Final Answer:**\n\\[\n [7]\n\\]";
    const AGAIN: &str = "... Oh, I have got the answer to the whole problem\n\
                         **Final Answer:**\n\\[\n [7]\n\\]";
    type Probes = &'static [(usize, &'static str)];
    let agree: Probes = &[(0, "8} !"), (2, "7} !"), (4, "7} so !"), (6, "7} !")];
    let never: Probes = &[(0, "8} !"), (2, "7} Wait !"), (4, "7} !"), (6, "} !")];
    // (agreement, tape, probes, text, end of the text, tokens, tokens of probes, ending)
    let cases = [
        // A probe looks at what was there before the part that is written beside it: the third part is
        // written when the probes at 2 and 4 agree.
        (2, "a b c d e f", agree, "abcdef", CLOSED, 6, 7, Finished),
        (
            3,
            "a b c d e f g h",
            agree,
            "abcdefgh",
            CLOSED,
            8,
            9,
            Finished,
        ),
        (1, "a b", &[(0, "7} !")][..], "ab", CLOSED, 2, 2, Finished),
        // The thinking is closed already.
        (
            1,
            "a </think>",
            &[(0, "7} !")],
            "a</think>",
            AGAIN,
            2,
            2,
            Finished,
        ),
        // It ends by itself before they agree; the probe beside the last part is not looked at.
        (2, "a b c [9] !", agree, "abc[9]", "", 5, 7, Finished),
        // They never agree: a hedge, no answer. Then the tokens end.
        (2, "a b c d e f g h", never, "abcdefgh", "", 8, 9, LengthCut),
        // 20 tokens without a closing brace are no answer.
        (
            1,
            "a !",
            &[(0, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21")],
            "a",
            "",
            2,
            20,
            Finished,
        ),
    ];
    for (agreement, tape, probes, text, closing, tokens, probed, ending) in cases {
        let config = Config {
            probe_interval: 2,
            probe_agreement: agreement,
            max_tokens: if ending == LengthCut { 8 } else { 100 },
            ..Config::new(Strategy::Certaindex)
        };
        let tapes = Tapes {
            solutions: &[tape],
            probes,
            ..Tapes::default()
        };
        let outcome = run(tapes, &config);
        let expected = match closing {
            "" => text.to_string(),
            _ => format!("{text}\n\n{closing}"),
        };
        assert_eq!(brief(&outcome), [(expected, tokens, ending)], "{tape}");
        let last = &outcome.trace.nodes[outcome.solutions[0].node];
        assert_eq!(last.lookahead_tokens, probed, "{tape}");
        assert_eq!(outcome.policy_tokens, tokens + probed, "{tape}");
        let answer = outcome.prediction.as_deref();
        assert_eq!(answer == Some("7"), !closing.is_empty(), "{tape}");
    }
    // Agreement is by value, and the last probe's text is given; N of them vote.
    let config = Config {
        n: 3,
        probe_interval: 2,
        probe_agreement: 2,
        ..Config::new(Strategy::Certaindex)
    };
    let tapes = Tapes {
        solutions: &["a b c d", "a [9] !", "a b c d"],
        probes: &[(0, "0.5} !"), (2, "\\frac{1}{2}} !")],
        ..Tapes::default()
    };
    let outcome = run(tapes, &config);
    assert_eq!(outcome.prediction.as_deref(), Some("\\frac{1}{2}"));
    let by_n: Vec<_> = (outcome.by_n.iter())
        .map(|by| (by.n, by.cost.drawn))
        .collect();
    // 4 and its probes' 2 + 2; 3 and its probes' 2 + 2, of which the second ends with the solution.
    assert_eq!(by_n, [(1, 8), (2, 15)]);
    // A probe that the context has no room for is not sure.
    let config = Config {
        probe_agreement: 1,
        ..Config::new(Strategy::Certaindex)
    };
    let tapes = Tapes {
        solutions: &["a"],
        context: 2,
        ..Tapes::default()
    };
    assert_eq!(brief(&run(tapes, &config)), [("a".into(), 1, LengthCut)]);
}

#[test]
fn first_finished() {
    use NodeState::{Dropped, Finished, LengthCut};
    let long = "x ".repeat(80);
    let after = format!("{}[5] !", "x ".repeat(70));
    let run = |solutions: &[&str], wait_for, max_tokens, context| {
        let config = Config {
            n: solutions.len(),
            wait_for,
            max_tokens,
            ..Config::new(Strategy::FirstFinished)
        };
        let tapes = Tapes {
            solutions,
            context,
            ..Tapes::default()
        };
        let outcome = run(tapes, &config);
        assert!(outcome.by_n.is_empty());
        let nodes = outcome.trace.nodes.iter();
        let written = nodes.filter(|node| node.num_tokens > 0);
        let fates: Vec<_> = written.map(|node| (node.num_tokens, node.state)).collect();
        let tokens: Vec<usize> = outcome.solutions.iter().map(|s| s.num_tokens).collect();
        (outcome.prediction.clone(), tokens, fates)
    };
    let answer = |text: &str| Some(text.to_string());
    // Of equal ones the first; the others stop at the end of the round.
    let short = [&long[..], "a b [1] !", "a [2] !", "a [3] !"];
    let fates = vec![(64, Dropped), (4, Dropped), (3, Finished), (3, Dropped)];
    assert_eq!(run(&short, 1, 200, 0), (answer("2"), vec![3], fates));
    // Three vote, the shortest first: a tie is the shortest one's.
    let fates = vec![(64, Dropped), (4, Finished), (3, Finished), (3, Finished)];
    assert_eq!(run(&short, 3, 200, 0), (answer("2"), vec![3, 3, 4], fates));
    // The longer ones have the majority.
    let two = ["a b [1] !", "a [2] !", "a b c [1] !"];
    let fates = vec![(4, Finished), (3, Finished), (5, Finished)];
    assert_eq!(run(&two, 3, 200, 0), (answer("1"), vec![3, 4, 5], fates));
    // In the second round.
    let fates = vec![(80, Dropped), (72, Finished)];
    assert_eq!(
        run(&[&long, &after], 1, 80, 0),
        (answer("5"), vec![72], fates)
    );
    // Fewer finish than it waits for; none does; the context ends one before it could.
    let fates = vec![(80, Dropped), (72, Finished)];
    assert_eq!(
        run(&[&long, &after], 2, 80, 0),
        (answer("5"), vec![72], fates)
    );
    let fates = vec![(70, LengthCut), (70, Dropped)];
    assert_eq!(run(&[&long, &long], 1, 70, 0), (None, vec![70], fates));
    let fates = vec![(2, LengthCut), (2, Dropped)];
    assert_eq!(run(&[&long, "a [2] !"], 1, 70, 3), (None, vec![2], fates));
}

#[test]
fn options_that_cannot_be_honoured() {
    let forcing = Config::new(Strategy::BudgetForcing);
    let certaindex = Config::new(Strategy::Certaindex);
    let first = Config::new(Strategy::FirstFinished);
    for (config, sentence) in [
        (
            Config {
                thinking_budget: 8192,
                ..forcing.clone()
            },
            "`thinking_budget` is 8192; expected less than `max_tokens` (8192), which the answer needs too",
        ),
        (
            Config {
                thinking_end: " ".into(),
                ..forcing.clone()
            },
            "`thinking_end` is empty; expected the text that ends a model's thinking",
        ),
        (
            Config {
                continuations: 1,
                continuation_text: String::new(),
                ..forcing.clone()
            },
            "`continuation_text` is empty; expected a text to go on with, or no `continuations`",
        ),
        (
            Config {
                lookahead: 1,
                ..forcing
            },
            "`lookahead` is 1; expected 0: the strategy budget-forcing writes whole solutions, not steps",
        ),
        (
            Config {
                probe_interval: 0,
                ..certaindex.clone()
            },
            "`probe_interval` is 0; expected at least 1",
        ),
        (
            Config {
                probe_agreement: 0,
                ..certaindex.clone()
            },
            "`probe_agreement` is 0; expected at least 1",
        ),
        (
            Config {
                probe_prompt: "The answer is".into(),
                ..certaindex
            },
            "`probe_prompt` is The answer is; expected a text that ends with {, which opens the answer",
        ),
        (
            Config {
                wait_for: 0,
                ..first.clone()
            },
            "`wait_for` is 0; expected a number from 1 to `n` (4)",
        ),
        (
            Config {
                wait_for: 5,
                ..first
            },
            "`wait_for` is 5; expected a number from 1 to `n` (4)",
        ),
    ] {
        assert_eq!(config.validate().expect_err(sentence).to_string(), sentence);
    }
}
