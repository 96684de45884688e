//! Shared by the whole-system tests: the embedded family as a library, the binary as a command.

#![allow(dead_code, reason = "`tests/loading_fuzz.rs` uses a part of it")]

pub mod tree;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::rc::Rc;

use engine::checkpoint::Checkpoint;
use engine::checkpoint::source::Source;
use engine::text::chat::ChatTemplate;
use engine::text::tokenizer::Tokenizer;
use engine::{DeviceModels, Engine, Model, ModelSpec, Options};
use kernels::CpuBackend;
use serde_json::Value;
use strategies::{
    Config, ContextOverflow, EnginePolicy, EnginePrm, Outcome, PrmFormat, PrmKind, Problem,
    PromptKind,
};

/// A path in the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The directory of an embedded model.
pub fn embedded(word: &str) -> PathBuf {
    repository("session/src/embedded").join(word)
}

/// The bundled problems as text, one JSON object a line.
pub fn heldout() -> String {
    std::fs::read_to_string(repository("session/src/embedded/nano-heldout.jsonl"))
        .expect("the bundled problems are in the repository")
}

/// `count` of the bundled problems, spread over all levels.
pub fn problems(count: usize) -> Vec<Problem> {
    let (all, bad) = strategies::read_problems(heldout().as_bytes());
    assert!(
        bad.is_empty() && all.len() >= count,
        "{count} of the bundled problems"
    );
    let step = all.len() / count;
    all.into_iter().step_by(step).take(count).collect()
}

/// An empty folder for the files of one test.
pub fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("an old scratch folder can be removed");
    }
    std::fs::create_dir_all(&folder).expect("a scratch folder can be made");
    folder
}

/// A checkpoint with its tokenizer and chat template.
pub struct Parts {
    pub checkpoint: Checkpoint,
    pub tokenizer: Rc<Tokenizer>,
    pub chat: Rc<ChatTemplate>,
}

/// Opens an embedded model from its directory.
pub fn open(word: &str) -> Parts {
    let source = Source::directory(embedded(word)).expect("the embedded models are directories");
    let checkpoint = Checkpoint::open(source.clone()).expect("an embedded checkpoint opens");
    let tokenizer = Tokenizer::open(&source, Some(&checkpoint.config)).expect("its tokenizer");
    let chat = ChatTemplate::open(&source, &tokenizer).expect("its chat template");
    Parts {
        checkpoint,
        tokenizer: Rc::new(tokenizer),
        chat: Rc::new(chat),
    }
}

/// nano-small and nano-prm on one engine.
pub struct Pair {
    pub engine: Engine,
    pub policy_model: Model,
    pub prm_model: Model,
    pub policy: EnginePolicy,
    pub prm: EnginePrm,
}

/// Puts nano-small and nano-prm onto `threads` threads.
pub fn pair(threads: usize, options: &Options) -> Pair {
    pair_on(&[threads], options)
}

/// Puts nano-small and nano-prm onto one device of so many threads, or onto one each.
pub fn pair_on(threads: &[usize], options: &Options) -> Pair {
    let (small, prm) = (open("nano-small"), open("nano-prm"));
    let parts =
        [&small, &prm].map(|p| ModelSpec::new(&p.checkpoint, Some(Rc::clone(&p.tokenizer))));
    let devices = (parts.chunks(parts.len() / threads.len()).zip(threads))
        .map(|(parts, &threads)| DeviceModels::load(CpuBackend::new(threads), parts, options))
        .collect::<Result<Vec<_>, _>>()
        .expect("the family loads");
    let (engine, models) = Engine::of(devices, options.seed, options.async_scheduling);
    let stop = small.checkpoint.eos().to_vec();
    Pair {
        policy: EnginePolicy::new(
            models[0].clone(),
            Rc::clone(&small.tokenizer),
            Rc::clone(&small.chat),
            PromptKind::Qwen.style(),
            stop,
            ContextOverflow::Truncate,
        ),
        prm: scorer(&prm, &models[1]),
        policy_model: models[0].clone(),
        prm_model: models[1].clone(),
        engine,
    }
}

/// A token-classification checkpoint on an engine, as a PRM.
pub fn scorer(parts: &Parts, model: &Model) -> EnginePrm {
    let kind = PrmKind::TokenClassification;
    let (tokenizer, chat) = (Rc::clone(&parts.tokenizer), Rc::clone(&parts.chat));
    let format = PrmFormat::new(kind, &parts.checkpoint.config, tokenizer, chat)
        .expect("an embedded PRM has a step marker");
    EnginePrm::new(model.clone(), Rc::new(format), ContextOverflow::Truncate)
}

impl Pair {
    /// Solves all problems at once.
    pub fn solve(&self, problems: &[&Problem], config: &Config) -> Vec<Outcome> {
        let each = (problems.iter())
            .map(|problem| strategies::solve(&self.policy, Some(&self.prm), problem, config));
        self.engine
            .run(futures::future::try_join_all(each))
            .expect("the engine runs")
            .expect("every problem is solved")
    }
}

/// A call of the binary: its arguments, standard input, and the folder it runs in.
pub fn offshoot(folder: &Path, arguments: &[&str], input: &str) -> Output {
    finish(
        Command::new(env!("CARGO_BIN_EXE_offshoot"))
            .current_dir(folder)
            // A name that is no directory is looked up on the hub: never from a test.
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_HOME", folder.join("hugging-face"))
            .args(arguments),
        input,
    )
}

/// Starts a call of the binary that nobody listens to, so that a test can kill it.
pub fn start(folder: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_offshoot"))
        .current_dir(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts")
}

/// Runs a command to its end, giving it `input`.
pub fn finish(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input may be gone already.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output().expect("the command ends")
}

/// Standard output of a good call.
pub fn stdout_of(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).expect("standard output is UTF-8")
}

/// The JSON object a good call printed.
pub fn json_of(output: &Output) -> Value {
    let text = stdout_of(output);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text:?}"))
}

/// Fails with every complaint there is, so that one run shows all cases that fail.
pub fn report(complaints: &[String]) {
    assert!(
        complaints.is_empty(),
        "{} failed:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
}
