//! Every PRM of `tests/golden/data/prms` scores what plain transformers scores
//! (tests/golden/README.md).
//!
//! The golden scores come from whole texts, encoded and computed in one piece. Ours come from steps
//! encoded and computed one by one. Largest relative difference of any score:
//!
//! - arithmetic in f32 with K and V in f32: at most 1e-4, bf16 weights included;
//! - bf16 weights with K and V in bf16, as the command line runs them: at most 2e-2, against f32
//!   and against transformers' own bf16;
//! - forked trees against whole solutions: at most 1e-5, and no token is computed twice.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::common::tree::{Random, grow, grow_counted, path, read, read_counted, try_read};
use crate::common::{json_of, offshoot, report, repository, scratch};
use engine::checkpoint::Checkpoint;
use engine::checkpoint::source::Source;
use engine::text::chat::ChatTemplate;
use engine::text::tokenizer::Tokenizer;
use engine::{Dtype, Engine, Model, ModelSpec, Options};
use kernels::CpuBackend;
use serde::Deserialize;
use serde_json::{Value, json};
use strategies::{ContextOverflow, EnginePrm, Prm, PrmFormat, PrmKind};

/// A directory of `tests/golden/data/prms`, how it must be recognised to be read, and whether it is
/// stored in bf16.
struct Case {
    directory: &'static str,
    kind: PrmKind,
    half: bool,
}

const CASES: [Case; 6] = [
    case("llama3.1-8b-prm-f32", PrmKind::RlhFlow, false),
    case("math-shepherd-mistral-f32", PrmKind::MathShepherd, false),
    case("qwen-math-bf16", PrmKind::QwenMath, true),
    case("qwen-math-f32", PrmKind::QwenMath, false),
    case("skywork-f32", PrmKind::Skywork, false),
    case("trl-f32", PrmKind::TokenClassification, false),
];

const fn case(directory: &'static str, kind: PrmKind, half: bool) -> Case {
    Case {
        directory,
        kind,
        half,
    }
}

impl Case {
    fn folder(&self) -> PathBuf {
        repository("tests/golden/data/prms").join(self.directory)
    }

    fn golden(&self) -> Vec<Row> {
        #[derive(Deserialize)]
        struct Golden {
            solutions: Vec<Row>,
        }
        let text = std::fs::read(self.folder().join("golden.json")).expect("it is committed");
        let golden: Golden = serde_json::from_slice(&text).expect("golden.json has solutions");
        golden.solutions
    }
}

/// One solution of a golden file.
#[derive(Deserialize)]
struct Row {
    problem: String,
    steps: Vec<String>,
    read_at: Vec<usize>,
    scores: Vec<f64>,
    scores_bf16: Option<Vec<f64>>,
}

impl Row {
    fn steps(&self) -> Vec<&str> {
        self.steps.iter().map(String::as_str).collect()
    }
}

/// A PRM alone on an engine.
struct Scorer {
    engine: Engine,
    model: Model,
    prm: EnginePrm,
    kind: PrmKind,
}

/// Loads a directory as the command line does: its kind is what its head or name says.
fn load(folder: &Path, kv: Option<Dtype>, past_limit: ContextOverflow) -> Scorer {
    let source = Source::directory(folder).expect("a directory");
    let checkpoint = Checkpoint::open(source.clone()).expect("a golden checkpoint opens");
    let config = &checkpoint.config;
    let tokenizer = Rc::new(Tokenizer::open(&source, Some(config)).expect("its tokenizer"));
    let chat = Rc::new(ChatTemplate::open(&source, &tokenizer).expect("its template"));
    let kind = PrmKind::recognise(config, &folder.to_string_lossy()).expect("it is known");
    let format = PrmFormat::new(kind, config, Rc::clone(&tokenizer), chat).expect("it is usable");
    let options = Options {
        kv_bytes: Some(16 << 20),
        kv_dtype: kv.map(Into::into),
        ..Options::default()
    };
    let part = ModelSpec {
        head_rows: format.head_rows(),
        extend_context: past_limit == ContextOverflow::Extend,
        ..ModelSpec::new(&checkpoint, Some(tokenizer))
    };
    let (engine, mut models) =
        Engine::new(CpuBackend::new(2), &[part], &options).expect("it loads");
    let model = models.remove(0);
    Scorer {
        engine,
        prm: EnginePrm::new(model.clone(), Rc::new(format), past_limit),
        model,
        kind,
    }
}

impl Scorer {
    /// Scores of a whole solution, and how many tokens it takes.
    fn whole(&self, problem: &str, steps: &[&str]) -> (Vec<f64>, u64) {
        read_counted(&self.engine, &self.prm, problem, steps)
    }

    /// Tokens of a problem before its first step.
    fn prompt_tokens(&self, problem: &str) -> u64 {
        let started = self.engine.run(self.prm.start(problem));
        let branch = started.expect("the engine runs").expect("it fits");
        self.prm.num_tokens(&branch) as u64
    }

    /// Scores of a whole path, and the tokens its last step adds to it.
    fn path(&self, problem: &str, steps: &[&str]) -> (Vec<f64>, u64) {
        let (scores, tokens) = self.whole(problem, steps);
        let before = match &steps[..steps.len() - 1] {
            [] => self.prompt_tokens(problem),
            before => self.whole(problem, before).1,
        };
        (scores, tokens - before)
    }
}

/// The largest |a - b| / |b|; infinite when the lengths differ.
fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    (a.iter().zip(b))
        .map(|(a, b)| ((a - b) / b).abs())
        .fold(
            0.0,
            |most, e| if e.is_nan() { e } else { f64::max(most, e) },
        )
}

/// A copy of a golden directory, its config changed.
fn changed(name: &str, case: &Case, change: impl Fn(&mut Value)) -> PathBuf {
    let folder = scratch(name);
    for entry in std::fs::read_dir(case.folder()).expect("a directory") {
        let from = entry.expect("a readable entry").path();
        let to = folder.join(from.file_name().expect("a name"));
        std::fs::copy(&from, to).expect("a copy");
    }
    let path = folder.join("config.json");
    let text = std::fs::read(&path).expect("a config");
    let mut config: Value = serde_json::from_slice(&text).expect("JSON");
    change(&mut config);
    std::fs::write(&path, config.to_string()).expect("written");
    folder
}

fn the(kind: PrmKind) -> &'static Case {
    let case = CASES.iter().find(|c| c.kind == kind && !c.half);
    case.expect("one of each kind in f32")
}

#[test]
fn the_list_is_what_the_folder_holds() {
    let mut found: Vec<String> = std::fs::read_dir(repository("tests/golden/data/prms"))
        .expect("the golden PRMs are there")
        .map(|entry| entry.expect("a readable entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, CASES.map(|case| case.directory));
    for kind in PrmKind::ALL {
        assert!(CASES.iter().any(|c| c.kind == kind), "{}", kind.name());
    }
}

#[test]
fn scores_are_those_of_transformers() {
    let mut complaints = Vec::new();
    for case in &CASES {
        let rows = case.golden();
        let runs: &[Option<Dtype>] = if case.half {
            &[Some(Dtype::F32), None]
        } else {
            &[Some(Dtype::F32)]
        };
        for &kv in runs {
            let scorer = load(&case.folder(), kv, ContextOverflow::Truncate);
            assert_eq!(scorer.kind, case.kind, "{}", case.directory);
            for (number, row) in rows.iter().enumerate() {
                let (ours, tokens) = scorer.whole(&row.problem, &row.steps());
                let mut check = |what: &str, theirs: &[f64], most: f64| {
                    let error = relative_error(&ours, theirs);
                    if error.is_nan() || error > most {
                        complaints.push(format!(
                            "{}, solution {number}, KV {kv:?} against {what}: {error:.1e}, at most \
                             {most:.0e} expected; {ours:?}, {theirs:?}",
                            case.directory
                        ));
                    }
                };
                match kv {
                    Some(_) => check("f32", &row.scores, 1e-4),
                    None => check("f32", &row.scores, 2e-2),
                }
                if let Some(theirs) = &row.scores_bf16 {
                    check("bf16", theirs, 2e-2);
                }
                // Nothing after the last marker is computed.
                let last = row.read_at.last().expect("a step") + 1;
                if tokens != last as u64 {
                    complaints.push(format!(
                        "{}, solution {number}: {tokens} tokens, {last} expected",
                        case.directory
                    ));
                }
            }
        }
    }
    report(&complaints);
}

/// Trees whose nodes are sums and the golden solutions' steps, non-ASCII and line breaks included.
#[test]
fn forked_trees_score_like_whole_solutions() {
    let mut complaints = Vec::new();
    for (seed, case) in CASES.iter().enumerate() {
        let rows = case.golden();
        let steps: Vec<&str> = rows.iter().flat_map(Row::steps).collect();
        let mut random = Random(seed as u64);
        let whole = load(&case.folder(), None, ContextOverflow::Truncate);
        for (tree_number, (nodes, at_once)) in
            [(7, true), (12, false), (20, true)].iter().enumerate()
        {
            let problem = &rows[(seed + tree_number) % rows.len()].problem;
            let mut tree = random.tree(*nodes);
            for (i, node) in tree.iter_mut().enumerate() {
                if random.below(2) == 0 {
                    let step = steps[random.below(steps.len() as u64) as usize].trim();
                    // No two alike: their tokens would be shared.
                    node.text = format!("{step} ({i})");
                }
            }
            let grown = load(&case.folder(), None, ContextOverflow::Truncate);
            let (scores, read_tokens) =
                grow_counted(&grown.engine, &grown.prm, problem, &tree, *at_once);
            let name = format!("{}, {nodes} nodes", case.directory);
            let mut unique = whole.prompt_tokens(problem);
            for node in 0..tree.len() {
                let path = path(&tree, node);
                let texts: Vec<&str> = path.iter().map(|&i| tree[i].text.as_str()).collect();
                let (expected, tokens) = whole.path(problem, &texts);
                unique += tokens;
                let found: Vec<f64> = path.iter().map(|&i| scores[i]).collect();
                let error = relative_error(&found, &expected);
                if error.is_nan() || error > 1e-5 {
                    complaints.push(format!("{name}, node {node}: {found:?}, {expected:?}"));
                }
            }
            let computed = grown.model.usage().tokens_processed;
            if [computed, read_tokens] != [unique; 2] {
                complaints.push(format!("{name}: {computed} tokens, {unique} are unique"));
            }
        }
    }
    report(&complaints);
}

/// Heads of their own say what they are. An LM head says nothing: the directory's name must, or the
/// flag.
#[test]
fn a_prm_is_recognised_or_named() {
    let work = scratch("prm-names");
    for case in &CASES {
        let folder = case.folder();
        let folder = folder.to_str().expect("UTF-8");
        let found = json_of(&offshoot(&work, &["inspect", "--json", folder], ""));
        assert_eq!(found["prm"]["can"], json!(true), "{}", found["prm"]);
        let how = found["prm"]["how"].as_str().expect("a sentence");
        let begins = format!("{}: ", case.kind.name());
        assert!(how.starts_with(&begins), "{how}");
    }
    let bare = changed("no-template", the(PrmKind::QwenMath), |_| ());
    std::fs::remove_file(bare.join("chat_template.jinja")).expect("it has one");
    let bare = bare.to_str().expect("UTF-8");
    let found = json_of(&offshoot(&work, &["inspect", "--json", bare], ""));
    let how = found["prm"]["how"].as_str().expect("a sentence");
    assert!(how.starts_with("no chat template"), "{how}");
    for (kind, name) in [
        (PrmKind::MathShepherd, "a-mistral"),
        (PrmKind::RlhFlow, "a-llama"),
    ] {
        let case = the(kind);
        let folder = changed(name, case, |_| ());
        let folder = folder.to_str().expect("UTF-8");
        let row = &case.golden()[1];
        let mut call = vec!["score", "--json", "--prm", folder, "--steps", "-"];
        call.extend(["--problem", &row.problem]);
        let steps = row.steps.join("\n\n");
        let refused = offshoot(&work, &call, &steps);
        assert_eq!(refused.status.code(), Some(2), "{name}");
        let message = String::from_utf8_lossy(&refused.stderr);
        assert!(
            message.contains("--prm-format: math-shepherd or rlhflow"),
            "{message}"
        );
        call.extend(["--prm-format", kind.name()]);
        let found = json_of(&offshoot(&work, &call, &steps));
        let ours: Vec<f64> = serde_json::from_value(found["scores"].clone()).expect("scores");
        let error = relative_error(&ours, &row.scores);
        assert!(error < 1e-4, "{name}: {ours:?}, {:?}", row.scores);
        // Neither is a format that the head or the tokenizer cannot have.
        for other in PrmKind::ALL {
            let wrong = match other {
                PrmKind::MathShepherd => kind == PrmKind::RlhFlow,
                PrmKind::RlhFlow => kind == PrmKind::MathShepherd,
                _ => true,
            };
            let last = call.len() - 1;
            call[last] = other.name();
            let output = offshoot(&work, &call, &steps);
            let expected = if wrong { Some(2) } else { Some(0) };
            assert_eq!(output.status.code(), expected, "{name} as {}", other.name());
        }
    }
}

/// nano-small writes, a PRM with another tokenizer scores: what the results file says of every node
/// is what the PRM says of its whole path, and every token is counted once.
#[test]
fn a_policy_and_a_prm_with_different_tokenizers_work_together() {
    let folder = scratch("other-tokenizers");
    let mut complaints = Vec::new();
    for case in &CASES {
        let (directory, out) = (case.folder(), format!("{}.jsonl", case.directory));
        let directory = directory.to_str().expect("UTF-8");
        let mut call = vec!["solve", "--prm", directory, "--limit", "2", "--n", "16"];
        // Hot, so that few steps say the same.
        call.extend(["--temperature", "1.6", "--trees", "--out", &out, "--json"]);
        json_of(&offshoot(&folder, &call, ""));
        let lines = std::fs::read_to_string(folder.join(&out)).expect("results");
        assert_eq!(lines.lines().count(), 2);
        let scorer = load(&case.folder(), None, ContextOverflow::Truncate);
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).expect("a JSON object a line");
            let problem = line["problem"].as_str().expect("the problem");
            let nodes = line["tree"]["nodes"].as_array().expect("its tree");
            let mut unique = scorer.prompt_tokens(problem);
            let (mut scored, mut deepest) = (0, 0);
            for node in nodes {
                let Some(reward) = node["reward"].as_f64() else {
                    continue;
                };
                let up = |n: &&Value| n["parent"].as_u64().map(|p| &nodes[p as usize]);
                let mut texts: Vec<&str> = std::iter::successors(Some(node), up)
                    .map(|n| n["text"].as_str().expect("a step"))
                    .collect();
                texts.pop(); // the stem
                texts.reverse();
                let (scores, tokens) = scorer.path(problem, &texts);
                unique += tokens;
                scored += 1;
                deepest = deepest.max(texts.len());
                let last = [*scores.last().expect("a score")];
                if relative_error(&[reward], &last) > 1e-5 {
                    complaints.push(format!("{directory}: {reward}, whole {last:?}: {texts:?}"));
                }
            }
            let counted = line["tokens"]["prm"].as_u64();
            if scored < 8 || deepest < 2 || counted != Some(unique) {
                complaints.push(format!(
                    "{directory}: {scored} nodes, {counted:?} tokens, {unique} are unique"
                ));
            }
        }
    }
    report(&complaints);
}

/// A Skywork PRM of few positions; its golden solution is longer. transformers runs on, as the
/// paper's code does.
#[test]
fn past_the_positions_a_flag_decides() {
    let case = the(PrmKind::Skywork);
    let row = &case.golden()[1];
    let (problem, steps) = (&row.problem, row.steps());
    // Room for two of the six steps, and for one token more than the third has less.
    let positions = row.read_at[2];
    assert_eq!(steps.len(), 6);
    let short = |name: &str, positions: usize| {
        changed(name, case, |config| {
            config["max_position_embeddings"] = json!(positions);
        })
    };
    let folder = short("few-positions", positions);

    let extend_context = load(&folder, None, ContextOverflow::Extend);
    let found = read(&extend_context.engine, &extend_context.prm, problem, &steps);
    let error = relative_error(&found, &row.scores);
    assert!(error < 1e-4, "run-on: {found:?}, {:?}", row.scores);

    let cut = load(&folder, None, ContextOverflow::Truncate);
    let (found, tokens) = cut.whole(problem, &steps);
    let mut expected = row.scores[..2].to_vec();
    expected.resize(6, found[1]);
    let error = relative_error(&found, &expected);
    assert!(error < 1e-4, "truncate: {found:?}, {expected:?}");
    assert_eq!(found[2..], [found[1]; 4], "the last score that was read");
    assert_eq!(
        tokens,
        row.read_at[1] as u64 + 1,
        "what does not fit is not read"
    );
    // Step by step too, and also for a later step that would have fit by itself.
    let mut random = Random(0);
    let mut chain = random.tree(6);
    for (i, node) in chain.iter_mut().enumerate() {
        node.parent = i.checked_sub(1);
        node.text = if i < 3 { steps[i] } else { "1" }.to_string();
    }
    assert_eq!(grow(&cut.engine, &cut.prm, problem, &chain, true), found);

    let refuse = load(&folder, None, ContextOverflow::Refuse);
    let fits = read(&refuse.engine, &refuse.prm, problem, &steps[..2]);
    assert!(relative_error(&fits, &row.scores[..2]) < 1e-4, "{fits:?}");
    let refused = try_read(&refuse.engine, &refuse.prm, problem, &steps);
    let message = refused.expect_err("too long").to_string();
    assert!(message.contains(&positions.to_string()), "{message}");

    // The binary, and what no choice can score.
    let work = scratch("past-limit");
    let score = |folder: &Path, how: &str| {
        let folder = folder.to_str().expect("UTF-8");
        let mut call = vec!["score", "--json", "--prm", folder, "--steps", "-"];
        call.extend(["--problem", problem, "--past-limit", how]);
        offshoot(&work, &call, &row.steps.join("\n\n"))
    };
    for (how, expected) in [("run-on", &row.scores), ("truncate", &expected)] {
        let scores = json_of(&score(&folder, how))["scores"].clone();
        let scores: Vec<f64> = serde_json::from_value(scores).expect("numbers");
        assert!(
            relative_error(&scores, expected) < 1e-4,
            "{how}: {scores:?}"
        );
    }
    let (no_step, tiny) = (short("no-step", 60), short("tiny", 16));
    for (folder, how, says) in [
        (&folder, "refuse", positions.to_string()),
        (
            &no_step,
            "truncate",
            "do not fit the PRM's context length of 60 tokens".into(),
        ),
        (&tiny, "truncate", "16".into()),
        (&tiny, "run-on", "128".into()),
    ] {
        let output = score(folder, how);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{how}: {message}");
        assert!(message.contains(&says), "{how}: {message}");
    }
}
