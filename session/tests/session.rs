//! The handle: jobs together give what each gives alone, cancelling frees, branches search as strategies do.

#[path = "../examples/serve.rs"]
mod serve;
#[path = "../examples/solve.rs"]
mod solve;

use std::collections::BTreeMap;

use futures::executor::block_on;
use futures::{StreamExt, future, stream};
use offshoot_session::local::{Local, Sources};
use offshoot_session::{
    Config, Device, EngineOptions, Error, Event, GenerateRequest, Message, Options, Outcome,
    Problem, Prompt, Role, Sampling, Session, StepOptions, StopRule, Strategy, Usages,
};

fn options() -> Options {
    Options {
        engine: EngineOptions {
            device: Device::Cpu,
            ..EngineOptions::default()
        },
        ..Options::default()
    }
}

fn open() -> Session {
    Session::open(&options()).expect("the embedded models")
}

/// The first of the bundled problems.
fn problems(count: usize) -> Vec<Problem> {
    let (mut problems, _) = strategies::read_problems(offshoot_session::embedded::PROBLEMS);
    problems.truncate(count);
    problems
}

fn warm(temperature: f32) -> Sampling {
    Sampling {
        temperature,
        ..Sampling::GREEDY
    }
}

/// Searches of all strategies, with different seeds and distributions.
fn searches() -> Vec<Config> {
    let of = |strategy, n, seed, temperature| Config {
        n,
        seed,
        sampling: warm(temperature),
        ..Config::new(strategy)
    };
    vec![
        of(Strategy::Cot, 1, 0, 0.0),
        of(Strategy::Majority, 8, 1, 0.7),
        of(Strategy::BestOfN, 4, 2, 1.0),
        of(Strategy::Beam, 8, 3, 0.7),
        of(Strategy::Dvts, 8, 4, 0.9),
        of(Strategy::Beam, 4, 5, 0.7),
    ]
}

#[test]
fn the_examples_run() {
    solve::main().expect("the example that solves");
    serve::main().expect("the example that serves");
}

#[test]
fn jobs_together_give_what_each_gives_alone() {
    let session = open();
    let cases: Vec<(Problem, Config)> = (problems(3).into_iter())
        .flat_map(|problem| searches().into_iter().map(move |c| (problem.clone(), c)))
        .collect();
    let jobs: Vec<_> = (cases.iter())
        .map(|(problem, config)| session.solve(problem.clone(), config.clone()))
        .collect();
    for ((problem, config), job) in cases.into_iter().zip(jobs) {
        let together = job.wait().expect("a solved problem");
        let name = format!("{} by {}", problem.id, config.strategy.name());
        let alone = open()
            .solve(problem, config)
            .wait()
            .expect("the same alone");
        assert_eq!(together, alone, "{name}");
    }
}

/// Tokens that the policy and the PRM computed.
fn computed(usages: Usages) -> [u64; 2] {
    [usages.policy, usages.prm].map(|usage| usage.map_or(0, |usage| usage.work.tokens_processed))
}

#[test]
fn many_jobs_compute_what_one_future_over_all_problems_computes() {
    let config = Config {
        n: 4,
        ..Config::new(Strategy::Beam)
    };
    let problems = problems(64);
    let session = open();
    let jobs: Vec<_> = (problems.iter())
        .map(|problem| session.solve(problem.clone(), config.clone()))
        .collect();
    let outcomes: Vec<Outcome> = (jobs.into_iter())
        .map(|job| job.wait().expect("a solved problem"))
        .collect();

    let options = options();
    let sources = Sources::find(&options, &mut Silent).expect("embedded models");
    let (local, ()) = Local::open(&options, sources, |_| Ok(())).expect("embedded models");
    let all = stream::iter(
        problems
            .iter()
            .map(|problem| local.solve(problem, &config, &|_| ())),
    );
    let solved = local.engine().run(all.buffered(64).collect::<Vec<_>>());
    for (outcome, solved) in outcomes.iter().zip(solved.expect("a CPU")) {
        assert_eq!(*outcome, solved.expect("a solved problem"));
    }
    let usages = block_on(session.usage()).expect("a session");
    assert_eq!(computed(usages), computed(local.usage()));
}

struct Silent;

impl offshoot_session::Watch for Silent {
    fn begin(&mut self, _: &str, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn end(&mut self) {}
    fn retry(&mut self, _: &str, _: &str, _: std::time::Duration) {}
}

#[test]
fn the_cost_of_a_search_is_what_the_engine_computes() {
    let looks_ahead = Config {
        n: 8,
        lookahead: 1,
        ..Config::new(Strategy::Beam)
    };
    let verifies_late = Config {
        n: 8,
        verify_every: 3,
        ..Config::new(Strategy::Beam)
    };
    let rejects_early = Config {
        n: 8,
        early_rejection: 3,
        ..Config::new(Strategy::Beam)
    };
    let chains = Config {
        n: 8,
        chain_threshold: 0.75,
        ..Config::new(Strategy::Beam)
    };
    let others = [
        Strategy::Rebase,
        Strategy::Dora,
        Strategy::Ets,
        Strategy::Mur,
        Strategy::ParticleFiltering,
    ];
    let others = others.map(|strategy| Config {
        n: 8,
        ..Config::new(strategy)
    });
    // Votes in several rounds, which may stop after any of them.
    let settled = |strategy, stop_rule| Config {
        n: 16,
        stop_rule,
        ..Config::new(strategy)
    };
    let with_bar = Config {
        n: 8,
        confidence_bar: Some(10.0),
        confidence_warmup: 4,
        confidence_window: 16,
        ..Config::new(Strategy::Majority)
    };
    let rounds = [
        settled(Strategy::Majority, StopRule::Beta),
        settled(Strategy::BestOfN, StopRule::Unbeatable),
        settled(Strategy::BestOfN, StopRule::BayesFactor),
        with_bar,
    ];
    // The nano models do not think. What ends their thinking here ends with a token, and is one token
    // where it is left out.
    let forced = |thinking_end: &str, thinking_budget, continuations| Config {
        n: 3,
        thinking_end: thinking_end.into(),
        thinking_budget,
        continuations,
        max_tokens: 300,
        ..Config::new(Strategy::BudgetForcing)
    };
    let thinking = [
        forced("The answer is \\boxed{", 0, 1),
        forced("The answer is \\boxed{", 20, 0),
        forced("The answer is \\boxed{", 100, 0),
        forced(" = ", 100, 3),
        Config {
            n: 3,
            probe_interval: 8,
            probe_agreement: 2,
            probe_prompt: "The answer is \\boxed{".into(),
            ..Config::new(Strategy::Certaindex)
        },
        Config {
            n: 6,
            wait_for: 2,
            ..Config::new(Strategy::FirstFinished)
        },
    ];
    let configs = (searches().into_iter())
        .chain([looks_ahead, verifies_late, rejects_early, chains])
        .chain(others)
        .chain(rounds)
        .chain(thinking)
        .chain([Config::new(Strategy::Auto), planned()]);
    for config in configs {
        // Hidden states are computed from the start of a block on.
        let mut options = options();
        if matches!(config.strategy, Strategy::Dora | Strategy::Ets) || config.chain_threshold > 0.0
        {
            options.engine.block_tokens = 1;
        }
        for problem in problems(3) {
            let session = Session::open(&options).expect("the embedded models");
            let outcome = session.solve(problem, config.clone()).wait();
            let outcome = outcome.expect("a search");
            let cost = outcome.cost;
            assert_eq!(cost.drawn, outcome.policy_tokens as u64);
            let usages = block_on(session.usage()).expect("a session");
            for (usage, work) in [(usages.policy, cost.policy), (usages.prm, cost.prm)] {
                let usage = usage.expect("both models");
                let found = (work.tokens, usage.rates.of(&work));
                let expected = (usage.work.tokens_processed, usage.work.flops);
                let name = config.strategy.name();
                assert_eq!(found, expected, "{name} {work:?}");
            }
        }
    }
}

#[test]
fn the_first_to_finish_are_the_shortest_of_a_majority_vote() {
    let config = |strategy| Config {
        n: 6,
        wait_for: 3,
        ..Config::new(strategy)
    };
    for problem in problems(3) {
        let [all, first] = [Strategy::Majority, Strategy::FirstFinished].map(|strategy| {
            let outcome = open().solve(problem.clone(), config(strategy)).wait();
            outcome.expect("a search")
        });
        let texts = |outcome: &Outcome| -> Vec<(usize, Vec<String>)> {
            let solutions = outcome.solutions.iter();
            let pair = |s: &offshoot_session::Solution| (s.num_tokens, s.steps.clone());
            solutions.map(pair).collect()
        };
        let mut shortest = texts(&all);
        shortest.sort_by_key(|(num_tokens, _)| *num_tokens);
        shortest.truncate(3);
        assert_eq!(texts(&first), shortest, "{}", problem.id);
        assert!(first.policy_tokens <= all.policy_tokens);
    }
}

/// Beam search, then DVTS where the answer has less support than one in a hundred problems.
fn planned() -> Config {
    let plan = r#"{
        "search": {"strategy": "beam", "n": 4},
        "rules": [
            {"difficulty": 0.01},
            {"difficulty": 1.0, "then": {
                "search": {"strategy": "best-of-n", "n": 2},
                "rules": [
                    {"difficulty": 0.999},
                    {"difficulty": 1.0, "then": {"search": {"strategy": "best-of-n", "n": 8}}}
                ]
            }}
        ]
    }"#;
    Config {
        plan: Some(serde_json::from_str(plan).expect("a plan")),
        ..Config::new(Strategy::Auto)
    }
}

#[test]
fn auto_finds_what_its_searches_find_alone() {
    let session = open();
    let mut searches = [0; 4];
    let all = problems(usize::MAX);
    for problem in all.into_iter().rev().step_by(9) {
        let solve = |config: Config| session.solve(problem.clone(), config).wait();
        let auto = solve(planned()).expect("a search");
        let choice = auto.choice.expect("a choice");
        searches[choice.searches] += 1;
        let config = Config {
            n: choice.n,
            ..Config::new(choice.strategy)
        };
        let alone = solve(config).expect("a search");
        let found = |outcome: &Outcome| -> Vec<(Vec<String>, Vec<f64>)> {
            let solutions = outcome.solutions.iter();
            solutions
                .map(|s| (s.steps.clone(), s.scores.clone()))
                .collect()
        };
        assert_eq!(found(&auto), found(&alone), "{}", problem.id);
        assert_eq!(auto.prediction, alone.prediction);
        assert_eq!(auto.stem, alone.stem);
        // Every solution's node has the path that it says.
        for solution in &auto.solutions {
            let mut steps = Vec::new();
            let mut next = Some(solution.node);
            while let Some(id) = next.filter(|&id| id > 0) {
                steps.insert(0, auto.trace.nodes[id].text.clone());
                next = auto.trace.nodes[id].parent;
            }
            assert_eq!(steps, solution.steps);
        }
        let sum = {
            let beam = Config {
                n: 4,
                ..Config::new(Strategy::Beam)
            };
            let first = solve(beam).expect("a search");
            let mut sum = alone.cost.drawn;
            if choice.searches > 1 {
                sum += first.cost.drawn;
            }
            sum
        };
        assert_eq!(auto.cost.drawn, sum);
    }
    assert!(
        searches[1] > 2 && searches[2] > 0 && searches[3] > 0,
        "{searches:?}"
    );
}

#[test]
fn an_interrupted_step_goes_on_as_if_it_had_not_been() {
    // One child is the best of one.
    let whole = Config {
        n: 6,
        beam_width: 1,
        ..Config::new(Strategy::Dvts)
    };
    let session = open();
    for problem in problems(4) {
        let mut outcomes = [0, 1, 2, 5].map(|early_rejection| {
            let config = Config {
                early_rejection,
                ..whole.clone()
            };
            let outcome = session.solve(problem.clone(), config).wait();
            outcome.expect("a search")
        });
        // Their cost differs, and logarithms are added in another order.
        for outcome in &mut outcomes {
            let solutions = outcome.solutions.iter_mut();
            solutions.for_each(|solution| {
                solution.cost = Default::default();
                solution.logprob = (solution.logprob * 1e6).round();
            });
        }
        let [first, others @ ..] = outcomes;
        for other in others {
            assert_eq!(other.solutions, first.solutions);
            assert_eq!(other.policy_tokens, first.policy_tokens);
        }
    }
}

fn live_blocks(session: &Session) -> usize {
    let usages = block_on(session.usage()).expect("a session");
    let models = usages.policy.iter().chain(&usages.prm);
    models.map(|usage| usage.kv.live_blocks).sum()
}

/// Whether nothing is held after a few batches.
fn is_free(session: &Session) -> bool {
    (0..10).any(|_| live_blocks(session) == 0)
}

#[test]
fn a_dropped_job_frees_everything() {
    let session = open();
    let config = Config {
        n: 64,
        ..Config::new(Strategy::Majority)
    };
    for problem in problems(4) {
        let job = session.solve(problem, config.clone());
        while live_blocks(&session) == 0 {
            std::thread::yield_now();
        }
        drop(job);
        assert!(is_free(&session), "{} live blocks", live_blocks(&session));
    }
    let one = problems(1).remove(0);
    let solved = session.solve(one, Config::new(Strategy::Beam)).wait();
    assert!(solved.is_ok(), "{:?}", solved.err());
}

#[test]
fn a_job_that_waits_for_admission_can_be_dropped() {
    let options = Options {
        concurrency: Some(1),
        ..options()
    };
    let session = Session::open(&options).expect("the embedded models");
    let mut jobs: Vec<_> = (problems(3).into_iter())
        .map(|problem| session.solve(problem, Config::new(Strategy::Beam)))
        .collect();
    drop(jobs.remove(1));
    for job in jobs {
        job.wait().expect("a solved problem");
    }
}

#[test]
fn text_is_streamed_as_it_becomes_final() {
    let session = open();
    let question = "A crew has 509 stamps. They make 322 more. How many stamps are there?";
    let request = GenerateRequest::new(Prompt::Messages(vec![Message::new("user", question)]));
    let mut job = session.generate(request.clone());
    let mut pieces = Vec::new();
    while let Some(event) = block_on(job.next()) {
        if let Event::Text(piece) = event {
            pieces.push(piece);
        }
    }
    let generation = job.wait().expect("a text");
    assert!(pieces.len() > 1, "{pieces:?}");
    assert_eq!(pieces.concat(), generation.text);

    // The same from token ids, and a turn that is continued.
    let text = generation.text.clone();
    let ids = block_on(session.tokenize(Role::Policy, question.into(), true)).expect("token ids");
    let spelt = block_on(session.detokenize(Role::Policy, ids.clone())).expect("a text");
    assert_eq!(spelt.trim(), question);
    let raw = |prompt| session.generate(GenerateRequest::new(prompt)).wait();
    let by_ids = raw(Prompt::TokenIds(ids)).expect("a text");
    assert_eq!(by_ids, raw(Prompt::Raw(question.into())).expect("a text"));
    let begun = text.split_at(text.len() / 2).0;
    let messages = vec![
        Message::new("user", question),
        Message::new("assistant", begun),
    ];
    let rest = raw(Prompt::Messages(messages)).expect("a text");
    assert!(rest.prompt_tokens > generation.prompt_tokens);
}

/// Best-of-N by a program outside, through branches: the steps and scores of each solution.
async fn best_of_n(session: &Session, problem: &Problem, config: &Config) -> Vec<Scored> {
    let whole = StepOptions {
        delimiter: None,
        max_tokens: config.max_tokens,
        sampling: config.sampling,
    };
    let stem = session.stem(problem.problem.clone(), config.seed).await;
    let stem = stem.expect("a stem");
    let write = async |mut branch: offshoot_session::Branch| {
        let text = branch.step(&whole).await.expect("a solution").text;
        let steps: Vec<String> = (text.split(&config.delimiter).map(str::trim))
            .filter(|step| !step.is_empty())
            .map(String::from)
            .collect();
        let scores = branch.score_steps(steps.clone()).await.expect("scores");
        let read = branch.read().await.expect("a text");
        assert_eq!((read.text, read.scores), (text, scores.clone()));
        (steps, scores)
    };
    let branches: Vec<_> = (0..config.n).map(|_| stem.fork()).collect();
    future::join_all(branches.into_iter().map(write)).await
}

type Scored = (Vec<String>, Vec<f64>);

#[test]
fn branches_write_and_score_what_a_strategy_does() {
    let session = open();
    let config = Config {
        n: 6,
        seed: 9,
        ..Config::new(Strategy::BestOfN)
    };
    for problem in problems(2) {
        let outside = block_on(best_of_n(&session, &problem, &config));
        let job = session.solve(problem, config.clone());
        let inside = job.wait().expect("a solved problem").solutions;
        let inside: Vec<Scored> = inside.into_iter().map(|s| (s.steps, s.scores)).collect();
        assert_eq!(outside, inside);
    }
    assert!(is_free(&session), "branches that were dropped hold nothing");
}

/// A device that fails is what every job says: here a model whose last norm is NaN.
#[test]
fn a_failed_device_is_what_every_job_says() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("nan-model");
    let _ = std::fs::remove_dir_all(&folder);
    offshoot_session::embedded::export("nano-small", &folder).expect("a model");
    let file = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&file).expect("the weights");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let fields: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).expect("JSON");
    let offsets = &fields["model.norm.weight"]["data_offsets"];
    let at = |i: usize| 8 + header + offsets[i].as_u64().expect("an offset") as usize;
    for pair in bytes[at(0)..at(1)].chunks_exact_mut(2) {
        pair.copy_from_slice(&0x7fc0_u16.to_le_bytes()); // NaN in bf16
    }
    std::fs::write(&file, bytes).expect("the weights");
    let options = Options {
        policy: Some(folder.display().to_string()),
        prm: None,
        ..options()
    };
    let session = Session::open(&options).expect("a model that loads");
    let jobs: Vec<_> = (problems(3).into_iter())
        .map(|problem| session.solve(problem, Config::new(Strategy::Majority)))
        .collect();
    for job in jobs {
        let error = job.wait().err().map(|error| error.to_string());
        let error = error.unwrap_or_default();
        assert!(error.contains("cannot draw a token"), "{error:?}");
    }
    let after = session.solve(problems(1).remove(0), Config::new(Strategy::Majority));
    assert!(matches!(after.wait(), Err(Error::Device(_))));
}

#[test]
fn dropping_a_session_waits_for_its_jobs() {
    let session = open();
    let problem = problems(1).remove(0);
    let job = session.solve(problem, Config::new(Strategy::Beam));
    drop(session);
    // The thread has ended, so the outcome is there.
    let outcome = job.outcome();
    futures::pin_mut!(outcome);
    assert!(futures::FutureExt::now_or_never(outcome).is_some_and(|done| done.is_ok()));
}

#[test]
fn a_step_and_its_score_through_branches() {
    let session = open();
    let problem = problems(1).remove(0);
    let options = StepOptions {
        delimiter: Some("\n\n".into()),
        max_tokens: 256,
        sampling: Sampling::GREEDY,
    };
    block_on(async {
        let stem = session
            .stem(problem.problem.clone(), 0)
            .await
            .expect("a stem");
        let mut branch = stem.fork();
        let (mut steps, mut written) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let step = branch.step(&options).await.expect("a step");
            assert!(!step.logprobs.is_empty());
            assert_eq!(step.logprobs.len(), step.sampled_ids.len());
            written.extend(step.token_ids);
            steps.push(step.text.trim().to_string());
        }
        let scores = branch.score().await.expect("scores");
        let whole = session.score(problem.problem.clone(), steps.clone());
        assert_eq!(scores, whole.outcome().await.expect("scores"));
        assert_eq!(
            branch.score().await.expect("nothing new"),
            Vec::<f64>::new()
        );
        let read = branch.read().await.expect("a text");
        assert_eq!(read.scores, scores);
        assert_eq!(read.token_ids[read.prompt_tokens..], written);

        // Of the last layer, one vector a token; a fork's are its parent's.
        let info = session.info().policy.clone().expect("a policy");
        let positions = read.prompt_tokens..read.token_ids.len();
        let layer = info.layers;
        let states = branch.hidden_states(layer, positions.clone()).await;
        let states = states.expect("hidden states");
        assert_eq!(states.len(), written.len());
        assert!(states.iter().all(|state| state.len() == info.hidden));
        let of_fork = branch.fork().hidden_states(layer, positions).await;
        assert_eq!(of_fork.expect("hidden states"), states);
        for (layer, positions) in [(layer + 1, 0..1), (0, 0..read.token_ids.len() + 1)] {
            let error = branch.hidden_states(layer, positions).await.err();
            assert!(
                error.as_ref().is_some_and(Error::names_settings),
                "{error:?}"
            );
        }
        assert!(branch.read().await.is_ok());

        // A dropped future gives its branch up, and nothing else.
        let mut given_up = stem.fork();
        {
            let step = given_up.step(&options);
            futures::pin_mut!(step);
            assert!(futures::poll!(step.as_mut()).is_pending());
        }
        let error = given_up.step(&options).await.err();
        assert!(matches!(error, Some(Error::BranchGivenUp)), "{error:?}");
        assert!(stem.fork().step(&options).await.is_ok());
    });
}

#[test]
fn what_cannot_be_honoured_names_its_setting() {
    let opened = |change: fn(&mut Options)| {
        let mut options = options();
        change(&mut options);
        match Session::open(&options) {
            Ok(_) => "opened".to_string(),
            Err(error) => error.to_string(),
        }
    };
    for (change, expected) in [
        (
            (|o| o.policy = Some("nowhere".into())) as fn(&mut Options),
            "`policy` is nowhere (no such directory); expected a directory, an embedded model (nano-small, nano-big, \
             nano-prm) or a name on the hub (org/name or org/name@revision)",
        ),
        (
            |o| o.policy = Some("nano-prm".into()),
            "`policy` nano-prm: a classifier of 2 labels cannot write; expected a causal language model",
        ),
        (
            |o| (o.policy, o.prm) = (None, None),
            "`policy` is missing; expected a policy or a `prm`",
        ),
        (
            |o| o.concurrency = Some(0),
            "`concurrency` is 0; expected a number from 1 up",
        ),
        (
            |o| o.engine.block_tokens = 0,
            "`block_tokens` is 0; expected a number from 1 to 1024",
        ),
    ] {
        assert_eq!(opened(change), expected);
    }
    let session = Session::open(&Options {
        prm: None,
        ..options()
    });
    let session = session.expect("a policy alone");
    let problem = problems(1).remove(0);
    let error = session
        .solve(problem.clone(), Config::new(Strategy::Beam))
        .wait();
    let error = error.err().map(|error| error.to_string());
    assert_eq!(
        error.as_deref(),
        Some("this session has no prm; open it with `prm`")
    );
    let zero = Config {
        n: 0,
        ..Config::new(Strategy::Majority)
    };
    assert!(session.solve(problem, zero).wait().is_err());
}

#[test]
fn events_tell_what_becomes_of_steps_and_solutions() {
    let session = open();
    for config in searches() {
        let name = config.strategy.name();
        let mut job = session.solve(problems(1).remove(0), config.clone());
        let (mut states, mut solutions) = (BTreeMap::new(), Vec::new());
        while let Some(event) = block_on(job.next()) {
            match event {
                Event::Step { tree, node } => drop(states.insert((tree, node.id), node)),
                Event::Solution(solution) => solutions.push(solution),
                other => panic!("{name}: {other:?}"),
            }
        }
        let outcome = job.wait().expect("a solved problem");
        assert_eq!(solutions.len(), outcome.solutions.len(), "{name}");
        for solution in &outcome.solutions {
            let same = |said: &&strategies::Solution| said.steps == solution.steps;
            let said = solutions.iter().find(same).expect(name);
            assert_eq!(said.scores, solution.scores, "{name}");
        }
        let whole = matches!(
            config.strategy,
            Strategy::Cot | Strategy::Majority | Strategy::BestOfN
        );
        assert_eq!(states.is_empty(), whole, "{name}");
        if config.strategy == Strategy::Beam {
            // One tree: the last news of every step is what the tree says of it.
            let nodes = outcome.trace.nodes.iter().skip(1);
            let said: Vec<_> = states.values().map(|n| (n.id, n.state, n.reward)).collect();
            let is: Vec<_> = nodes.map(|n| (n.id, n.state, n.reward)).collect();
            assert_eq!(said, is, "{name}");
        }
    }
}
