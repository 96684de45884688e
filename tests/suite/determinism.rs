//! A search is the same, tree and numbers, whatever else is on the device, however many threads
//! compute it, however memory is cut, and when memory runs out on the way.
//!
//! Compared are whole outcomes as JSON: every step, reward, value, log-probability and verdict.

use crate::common::{Pair, pair, pair_on, problems, report};
use engine::Options;
use strategies::{Config, Problem, Strategy};

const STRATEGIES: [Strategy; 3] = [Strategy::Beam, Strategy::Dvts, Strategy::BestOfN];

fn config(strategy: Strategy, seed: u64) -> Config {
    Config {
        n: 8,
        seed,
        ..Config::new(strategy)
    }
}

/// Every problem's whole outcome, all solved at once on `pair`.
fn outcomes(pair: &Pair, problems: &[&Problem], config: &Config) -> Vec<String> {
    (pair.solve(problems, config).iter())
        .map(|outcome| serde_json::to_string(outcome).expect("an outcome is JSON"))
        .collect()
}

/// Where two outcomes part, with a little of both.
fn difference(found: &str, expected: &str) -> String {
    let same = (found.bytes().zip(expected.bytes()))
        .take_while(|(a, b)| a == b)
        .count();
    let around = |text: &str| {
        let bytes = text.as_bytes();
        let window = &bytes[same.saturating_sub(40)..bytes.len().min(same + 40)];
        String::from_utf8_lossy(window).into_owned()
    };
    format!(
        "they part at byte {same}: {:?} expected {:?}",
        around(found),
        around(expected)
    )
}

fn compare(complaints: &mut Vec<String>, what: &str, found: &[String], expected: &[String]) {
    if found.len() != expected.len() {
        complaints.push(format!("{what}: {} outcomes", found.len()));
    }
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        if found != expected {
            let where_ = difference(found, expected);
            complaints.push(format!("{what}, problem {i}: {where_}"));
        }
    }
}

/// Options of the device; the default is that of the command line.
#[derive(Clone, Copy)]
struct Setup {
    name: &'static str,
    threads: usize,
    block_tokens: usize,
    rows: usize,
    run_ahead: bool,
}

const PLAIN: Setup = Setup {
    name: "again",
    threads: 2,
    block_tokens: 16,
    rows: 512,
    run_ahead: false,
};

const SETUPS: [Setup; 9] = [
    PLAIN,
    Setup {
        name: "running ahead",
        run_ahead: true,
        ..PLAIN
    },
    Setup {
        name: "1 thread",
        threads: 1,
        ..PLAIN
    },
    Setup {
        name: "3 threads",
        threads: 3,
        ..PLAIN
    },
    Setup {
        name: "blocks of 1",
        block_tokens: 1,
        ..PLAIN
    },
    Setup {
        name: "blocks of 4",
        block_tokens: 4,
        ..PLAIN
    },
    Setup {
        name: "blocks of 32",
        block_tokens: 32,
        ..PLAIN
    },
    Setup {
        name: "7 rows",
        rows: 7,
        ..PLAIN
    },
    Setup {
        name: "64 rows",
        rows: 64,
        ..PLAIN
    },
];

impl Setup {
    fn pair(self) -> Pair {
        let options = Options {
            block_tokens: self.block_tokens,
            max_batch_rows: Some(self.rows),
            async_scheduling: Some(self.run_ahead),
            ..Options::default()
        };
        pair(self.threads, &options)
    }
}

#[test]
fn threads_blocks_and_rows_change_nothing() {
    let problems = problems(4);
    let problems: Vec<&Problem> = problems.iter().collect();
    let mut complaints = Vec::new();
    for strategy in STRATEGIES {
        let config = config(strategy, 3);
        let expected = outcomes(&PLAIN.pair(), &problems, &config);
        for setup in SETUPS {
            let found = outcomes(&setup.pair(), &problems, &config);
            let what = format!("{}, {}", strategy.name(), setup.name);
            compare(&mut complaints, &what, &found, &expected);
        }
    }
    report(&complaints);
}

#[test]
fn policy_and_prm_on_devices_of_their_own_change_nothing() {
    let problems = problems(4);
    let problems: Vec<&Problem> = problems.iter().collect();
    let mut complaints = Vec::new();
    for strategy in STRATEGIES {
        let config = config(strategy, 3);
        let one = PLAIN.pair();
        let expected = outcomes(&one, &problems, &config);
        for (ahead, kv_bytes) in [(false, None), (true, Some(1 << 19))] {
            let options = Options {
                async_scheduling: Some(ahead),
                kv_bytes,
                ..Options::default()
            };
            let two = pair_on(&[1, 2], &options);
            let found = outcomes(&two, &problems, &config);
            let what = format!("{}, running ahead: {ahead}", strategy.name());
            compare(&mut complaints, &what, &found, &expected);
        }
    }
    report(&complaints);
}

#[test]
fn company_changes_nothing() {
    let problems = problems(13);
    let all: Vec<&Problem> = problems.iter().collect();
    let mut complaints = Vec::new();
    for strategy in STRATEGIES {
        let config = config(strategy, 5);
        let among = outcomes(&PLAIN.pair(), &all, &config);
        for at in [0, 6, 12] {
            let alone = outcomes(&PLAIN.pair(), &all[at..=at], &config);
            let what = format!("{} alone", strategy.name());
            compare(&mut complaints, &what, &among[at..=at], &alone);
        }
        // A second time on the same engine, whose cache is full of the first, and in another order.
        let used = PLAIN.pair();
        outcomes(&used, &all, &config);
        let backwards: Vec<&Problem> = all.iter().rev().copied().collect();
        let mut again = outcomes(&used, &backwards, &config);
        again.reverse();
        let what = format!("{} from a full cache", strategy.name());
        compare(&mut complaints, &what, &again, &among);
    }
    report(&complaints);
}

#[test]
fn another_seed_gives_another_tree() {
    let problems = problems(4);
    let problems: Vec<&Problem> = problems.iter().collect();
    for strategy in STRATEGIES {
        let pair = PLAIN.pair();
        let hot = |seed| {
            let mut config = config(strategy, seed);
            config.sampling.temperature = 1.5;
            outcomes(&pair, &problems, &config)
        };
        let (one, two) = (hot(1), hot(2));
        for (i, (one, two)) in one.iter().zip(&two).enumerate() {
            assert_ne!(one, two, "{}, problem {i}: two seeds", strategy.name());
        }
        // Siblings draw numbers of their own. If the four of a family drew the same, three of
        // them would be duplicates.
        let count = |what: &str| one.iter().map(|o| o.matches(what).count()).sum::<usize>();
        let (same, all) = (count("\"duplicate\""), count("\"depth\""));
        let name = strategy.name();
        assert!(
            3 * same < 2 * all,
            "{name}: {same} of {all} steps are a sibling's"
        );
    }
}

#[test]
fn a_third_of_the_memory_gives_the_same_trees() {
    let problems = problems(13);
    let problems: Vec<&Problem> = problems.iter().collect();
    let mut complaints = Vec::new();
    for strategy in STRATEGIES {
        let config = config(strategy, 11);
        let roomy = PLAIN.pair();
        let expected = outcomes(&roomy, &problems, &config);
        let models = [&roomy.policy_model, &roomy.prm_model];
        let needed: usize = models
            .map(|m| m.kv_usage())
            .map(|kv| kv.peak_blocks * kv.block_bytes)
            .iter()
            .sum();
        assert_eq!(preemptions(&roomy), 0, "{}: a roomy pool", strategy.name());

        for part in [2, 3] {
            let tight = pair(
                2,
                &Options {
                    kv_bytes: Some(needed / part),
                    ..Options::default()
                },
            );
            let found = outcomes(&tight, &problems, &config);
            let what = format!("{}, 1/{part} of {needed} bytes", strategy.name());
            compare(&mut complaints, &what, &found, &expected);
            if preemptions(&tight) == 0 {
                complaints.push(format!("{what}: nothing was preempted"));
            }
        }
    }
    report(&complaints);
}

fn preemptions(pair: &Pair) -> u64 {
    pair.policy_model.usage().preemptions + pair.prm_model.usage().preemptions
}
