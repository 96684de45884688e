//! Models by hub name, through the binary, against a small hub on loopback that answers as the
//! real one does: a list of files, redirects (relative for small files, to another address for
//! weights), ETags, commits and ranges.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::common::{embedded, finish, scratch, stdout_of};
use serde_json::{Value, json};

const MAIN: &str = "0123456789abcdef0123456789abcdef01234567";
const OLD: &str = "fedcba9876543210fedcba9876543210fedcba98";
const WEIGHTS: &str = "model.safetensors";

/// Faults of the hub.
#[derive(Clone, Copy, Default)]
struct Manners {
    /// Downloads of weights that end after half of what was asked for.
    cuts: usize,
    /// Whether downloads of weights stop after half, but do not end.
    stall: bool,
    /// Requests that are read and never answered: those whose path begins so.
    mute: Option<&'static str>,
    /// Where the weights are, if not on this hub: another hub on another port.
    elsewhere: Option<&'static str>,
    /// The token that must be shown.
    token: Option<&'static str>,
}

#[derive(Default)]
struct State {
    manners: Manners,
    /// Requests: path, range, authorization.
    log: Vec<(String, String, String)>,
    stalled: bool,
}

/// A hub with one repository, `org/nano`, whose `main` and `v1` are two commits.
struct Hub {
    endpoint: String,
    state: Arc<(Mutex<State>, Condvar)>,
}

type Files = BTreeMap<String, Vec<u8>>;

/// nano-small, and files that are never wanted.
fn nano() -> Files {
    let mut files = Files::new();
    for entry in fs::read_dir(embedded("nano-small")).expect("a folder") {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        files.insert(name.into_owned(), fs::read(&path).expect("readable"));
    }
    for other in ["pytorch_model.bin", "README.md", "onnx/model.onnx"] {
        files.insert(other.to_string(), b"not for us".to_vec());
    }
    files
}

impl Hub {
    fn new(files: Files, manners: Manners) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        state.0.lock().expect("a lock").manners = manners;
        let shared = (Arc::new(files), Arc::clone(&state), endpoint.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, state, endpoint) = shared.clone();
                // A client may go away at any time: that is its own affair.
                std::thread::spawn(move || {
                    let _ = answer(stream, &files, &state, &endpoint);
                });
            }
        });
        Hub { endpoint, state }
    }

    /// The requests so far, and forgets them.
    fn log(&self) -> Vec<(String, String, String)> {
        std::mem::take(&mut self.state.0.lock().expect("a lock").log)
    }

    /// Waits until a download has stopped half-way.
    fn wait_for_stall(&self) {
        let guard = self.state.0.lock().expect("a lock");
        let (_guard, timeout) = (self.state.1)
            .wait_timeout_while(guard, Duration::from_secs(120), |state| !state.stalled)
            .expect("a lock");
        assert!(!timeout.timed_out(), "no download began");
    }

    fn command(&self, folder: &Path, arguments: &[&str]) -> Command {
        command(&self.endpoint, folder, arguments)
    }

    fn call(&self, folder: &Path, arguments: &[&str]) -> Output {
        finish(&mut self.command(folder, arguments), "")
    }
}

/// The binary with this hub and a cache in `folder`, and nothing else from the environment.
fn command(endpoint: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offshoot"));
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_uppercase();
        if upper.starts_with("HF_") || upper.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(folder)
        .args(arguments)
        .env("HF_HOME", folder.join("home"))
        .env("HF_ENDPOINT", endpoint);
    command
}

fn answer(
    stream: TcpStream,
    files: &Files,
    state: &(Mutex<State>, Condvar),
    endpoint: &str,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_string()),
        }
    }
    let first = lines.first().cloned().unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_string();
    let header = |name: &str| {
        let found = lines.iter().filter_map(|line| line.split_once(": "));
        let mut found = found.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found
            .next()
            .map_or(String::new(), |(_, value)| value.to_string())
    };
    let (range, token) = (header("range"), header("authorization"));
    let manners = {
        let mut state = state.0.lock().expect("a lock");
        state.log.push((path.clone(), range.clone(), token.clone()));
        state.manners
    };
    let mut stream = stream;
    let mut reply = |status: &str, headers: &[(&str, &str)], body: &[u8]| {
        let length = body.len();
        let mut head =
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(head.as_bytes())?;
        stream.write_all(b"\r\n")?;
        Ok::<_, std::io::Error>(()).and_then(|()| {
            if first.starts_with("HEAD") {
                Ok(())
            } else {
                stream.write_all(body)
            }
        })
    };
    if manners.mute.is_some_and(|muted| path.starts_with(muted)) {
        // Until the client is gone.
        reader.read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    let commit = |revision: &str| match revision {
        "main" | MAIN => Some(MAIN),
        "v1" | OLD => Some(OLD),
        _ => None,
    };
    let cdn = path.strip_prefix("/cdn/");
    let wanted = manners.token.map(|token| format!("Bearer {token}"));
    if cdn.is_none() && wanted.is_some_and(|wanted| wanted != token) {
        return reply(
            "401 Unauthorized",
            &[],
            b"Access to model org/nano is restricted",
        );
    }
    if let Some(revision) = path.strip_prefix("/api/models/org/nano/revision/") {
        let Some(sha) = commit(revision) else {
            return reply("404 Not Found", &[], b"{}");
        };
        let siblings: Vec<Value> = files
            .keys()
            .map(|name| json!({"rfilename": name}))
            .collect();
        let info = json!({"sha": sha, "siblings": siblings, "tags": []});
        return reply("200 OK", &[], info.to_string().as_bytes());
    }
    let resolved = path.strip_prefix("/org/nano/resolve/");
    let cached = path.strip_prefix("/api/resolve-cache/models/org/nano/");
    let found = cdn.or(resolved).or(cached).and_then(|rest| {
        let (revision, file) = rest.split_once('/')?;
        Some((commit(revision)?, file, files.get(file)?))
    });
    let Some((sha, file, bytes)) = found else {
        return reply("404 Not Found", &[], b"Entry not found");
    };
    let etag = format!("\"{file}-{}\"", &sha[..7]);
    if resolved.is_some() && file.ends_with(".safetensors") {
        let host = manners.elsewhere.unwrap_or(endpoint);
        let location = format!("{host}/cdn/{sha}/{file}");
        let linked = [
            ("X-Linked-Etag", &*etag),
            ("X-Repo-Commit", sha),
            ("Location", &location),
        ];
        return reply("302 Found", &linked, b"");
    }
    if resolved.is_some() && file == "config.json" {
        let location = format!("/api/resolve-cache/models/org/nano/{sha}/{file}");
        return reply("307 Temporary Redirect", &[("Location", &location)], b"");
    }
    let (from, to) = range
        .strip_prefix("bytes=")
        .and_then(|r| r.split_once('-'))
        .unwrap_or(("", ""));
    let from: usize = from.parse().unwrap_or(0);
    let to = to
        .parse()
        .map_or(bytes.len(), |to: usize| to + 1)
        .min(bytes.len());
    if from >= to {
        return reply("416 Range Not Satisfiable", &[], b"");
    }
    let shown = format!("bytes {from}-{}/{}", to - 1, bytes.len());
    let headers = [
        ("ETag", &*etag),
        ("X-Repo-Commit", sha),
        ("Content-Range", &shown),
    ];
    let half = from + (to - from) / 2;
    let (cut, stall) = match cdn {
        Some(_) if to - from > 1 => (manners.cuts > 0, manners.stall),
        _ => (false, false),
    };
    if !cut && !stall {
        return reply("206 Partial Content", &headers, &bytes[from..to]);
    }
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: {shown}\r\n\r\n",
        to - from
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&bytes[from..half])?;
    stream.flush()?;
    if stall {
        state.0.lock().expect("a lock").stalled = true;
        state.1.notify_all();
        // Until the client is gone.
        reader.read_to_end(&mut Vec::new())?;
    } else {
        state.0.lock().expect("a lock").manners.cuts -= 1;
    }
    Ok(())
}

const GENERATE: [&str; 7] = [
    "generate",
    "--max-tokens",
    "8",
    "--model",
    "org/nano",
    "--threads=1",
    "1 + 1",
];

/// The text that the model writes when it is named nano-small.
fn expected(folder: &Path) -> String {
    let arguments = GENERATE.map(|a| if a == "org/nano" { "nano-small" } else { a });
    stdout_of(&crate::common::offshoot(folder, &arguments, ""))
}

fn snapshot(folder: &Path, commit: &str) -> PathBuf {
    folder
        .join("home/hub/models--org--nano/snapshots")
        .join(commit)
}

fn same_weights(folder: &Path, commit: &str) {
    let fetched = fs::read(snapshot(folder, commit).join(WEIGHTS)).expect("the weights");
    assert!(fetched == nano()[WEIGHTS], "the weights differ");
}

#[test]
fn a_model_is_fetched_once() {
    let folder = scratch("hub-once");
    let expected = expected(&folder);
    let hub = Hub::new(nano(), Manners::default());
    let output = hub.call(&folder, &GENERATE);
    assert_eq!(stdout_of(&output), expected);
    let stderr = String::from_utf8_lossy(&output.stderr);
    for file in ["config.json", "tokenizer.json", WEIGHTS] {
        assert!(stderr.contains(&format!("fetching {file}: ")), "{stderr}");
    }
    let log = hub.log();
    for (path, ..) in &log {
        let never = [".bin", ".md", ".onnx"]
            .iter()
            .any(|end| path.ends_with(end));
        assert!(!never, "{path} was asked for");
    }
    let main = folder.join("home/hub/models--org--nano/refs/main");
    assert_eq!(fs::read_to_string(main).expect("a ref"), MAIN);
    same_weights(&folder, MAIN);

    // Complete: nobody is asked, with and without the variable; a commit is a name too.
    let mut offline = hub.command(&folder, &GENERATE);
    let output = finish(offline.env("HF_HUB_OFFLINE", "1"), "");
    assert_eq!(stdout_of(&output), expected);
    assert_eq!(stdout_of(&hub.call(&folder, &GENERATE)), expected);
    let named = format!("org/nano@{MAIN}");
    let by_commit = GENERATE.map(|a| if a == "org/nano" { &named } else { a });
    assert_eq!(stdout_of(&hub.call(&folder, &by_commit)), expected);
    assert_eq!(hub.log(), []);

    // A cache that lacks a file gets that file alone.
    let config = snapshot(&folder, MAIN).join("tokenizer.json");
    fs::remove_file(config).expect("it is there");
    assert_eq!(stdout_of(&hub.call(&folder, &GENERATE)), expected);
    let log = hub.log();
    let files: Vec<_> = log
        .iter()
        .filter(|(path, ..)| !path.starts_with("/api"))
        .collect();
    assert!(!files.is_empty(), "{log:?}");
    assert!(
        files
            .iter()
            .all(|(path, ..)| path.ends_with("/tokenizer.json")),
        "{log:?}"
    );
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let folder = scratch("hub-broken");
    let manners = Manners {
        cuts: 2,
        ..Manners::default()
    };
    let hub = Hub::new(nano(), manners);
    let output = hub.call(&folder, &GENERATE);
    assert_eq!(stdout_of(&output), expected(&folder));
    same_weights(&folder, MAIN);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.matches("trying again").count(), 2, "{stderr}");
    let log = hub.log();
    let starts: Vec<u64> = (log.iter())
        .filter(|(path, range, _)| path.starts_with("/cdn/") && range != "bytes=0-0")
        .map(|(_, range, _)| {
            range["bytes=".len()..range.len() - 1]
                .parse()
                .expect("a start")
        })
        .collect();
    assert!(
        starts.len() == 3 && starts.is_sorted_by(|a, b| a < b),
        "{starts:?}"
    );
}

#[test]
fn a_killed_download_is_resumed_by_the_next_run() {
    let folder = scratch("hub-killed");
    let manners = Manners {
        stall: true,
        ..Manners::default()
    };
    let hub = Hub::new(nano(), manners);
    let mut child = hub
        .command(&folder, &GENERATE)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    hub.wait_for_stall();
    // The bytes that the hub has sent must be on the disk.
    let blobs = folder.join("home/hub/models--org--nano/blobs");
    let half = (nano()[WEIGHTS].len() / 2) as u64;
    let part = || {
        let entries = fs::read_dir(&blobs).expect("a folder").flatten();
        let mut parts = entries.filter(|e| e.path().extension().is_some_and(|e| e == "part"));
        parts
            .next()
            .and_then(|e| e.metadata().ok())
            .map_or(0, |m| m.len())
    };
    let begun = std::time::Instant::now();
    while part() == 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "nothing is written"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let left = part();
    assert!(0 < left && left <= half, "{left} of {half}");

    hub.state.0.lock().expect("a lock").manners = Manners::default();
    hub.log();
    assert_eq!(stdout_of(&hub.call(&folder, &GENERATE)), expected(&folder));
    same_weights(&folder, MAIN);
    let resumed = format!("bytes={left}-");
    assert!(
        hub.log().iter().any(|(_, range, _)| *range == resumed),
        "{resumed}"
    );
}

#[test]
fn revisions_and_tokens_are_respected() {
    let folder = scratch("hub-token");
    let manners = Manners {
        token: Some("secret"),
        ..Manners::default()
    };
    let hub = Hub::new(nano(), manners);
    let arguments = GENERATE.map(|a| if a == "org/nano" { "org/nano@v1" } else { a });
    let mut command = hub.command(&folder, &arguments);
    let output = finish(command.env("HF_TOKEN", "secret"), "");
    assert_eq!(stdout_of(&output), expected(&folder));
    let old = folder.join("home/hub/models--org--nano/refs/v1");
    assert_eq!(fs::read_to_string(old).expect("a ref"), OLD);
    same_weights(&folder, OLD);
    assert!(!snapshot(&folder, MAIN).exists());
    let log = hub.log();
    let shown = |(path, _, token): &&(String, String, String)| {
        !path.starts_with("/cdn/") && token != "Bearer secret"
    };
    assert_eq!(log.iter().find(shown), None);

    // Another address is asked for the weights, with a redirect of the hub's: without the token.
    let folder = scratch("hub-elsewhere");
    let other = Hub::new(nano(), Manners::default());
    let manners = Manners {
        elsewhere: Some(String::leak(other.endpoint.clone())),
        ..manners
    };
    let hub = Hub::new(nano(), manners);
    let mut command = hub.command(&folder, &GENERATE);
    let output = finish(command.env("HF_TOKEN", "secret"), "");
    assert_eq!(stdout_of(&output), expected(&folder));
    let (log, elsewhere) = (hub.log(), other.log());
    assert!(
        log.iter().all(|(.., token)| token == "Bearer secret"),
        "{log:?}"
    );
    assert!(!elsewhere.is_empty());
    assert!(
        elsewhere.iter().all(|(.., token)| token.is_empty()),
        "{elsewhere:?}"
    );

    // The token that a login has left.
    let folder = scratch("hub-login");
    fs::create_dir_all(folder.join("home")).expect("a folder");
    fs::write(folder.join("home/token"), "secret\n").expect("a file");
    let output = hub.call(&folder, &["inspect", "org/nano"]);
    assert!(
        stdout_of(&output).starts_with("org/nano: LlamaForCausalLM\n"),
        "{output:?}"
    );
}

/// A hub that takes requests and says nothing, at once or at the weights, is given up.
#[test]
fn silence_ends() {
    for (name, muted, what) in [
        ("hub-mute", "/", "the list of files"),
        ("hub-mute-later", "/cdn/", WEIGHTS),
    ] {
        let folder = scratch(name);
        let manners = Manners {
            mute: Some(muted),
            ..Manners::default()
        };
        let hub = Hub::new(nano(), manners);
        let mut command = hub.command(&folder, &GENERATE);
        for timeout in ["HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"] {
            command.env(timeout, "0.5");
        }
        let output = finish(&mut command, "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        let says = format!("fetching {what}: it is silent for too long");
        assert_eq!(stderr.matches(&says).count(), 3, "{stderr}");
        let last = stderr.lines().last().unwrap_or_default();
        let says = [
            "error: --model org/nano: ",
            "cannot be reached",
            "HF_HUB_DOWNLOAD_TIMEOUT",
        ];
        assert!(says.iter().all(|text| last.contains(text)), "{stderr}");
    }
    let folder = scratch("hub-timeout");
    let hub = Hub::new(nano(), Manners::default());
    let mut command = hub.command(&folder, &GENERATE);
    let output = finish(command.env("HF_HUB_DOWNLOAD_TIMEOUT", "soon"), "");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("`HF_HUB_DOWNLOAD_TIMEOUT` is soon; expected a number of seconds"),
        "{stderr}"
    );
}

#[test]
fn inspect_leaves_the_weights_where_they_are() {
    let folder = scratch("hub-inspect");
    let hub = Hub::new(nano(), Manners::default());
    let text = stdout_of(&hub.call(&folder, &["inspect", "org/nano"]));
    assert!(text.contains("weights    not fetched yet"), "{text}");
    assert!(
        !hub.log()
            .iter()
            .any(|(path, ..)| path.ends_with(".safetensors"))
    );
    // A run fetches the rest; then inspect reads them.
    stdout_of(&hub.call(&folder, &GENERATE));
    let text = stdout_of(&hub.call(&folder, &["inspect", "org/nano"]));
    assert!(
        text.contains("in model.safetensors") && !text.contains("not fetched"),
        "{text}"
    );
}

#[test]
fn shards_are_those_of_the_index() {
    let folder = scratch("hub-shards");
    let mut files = nano();
    let weights = files.remove(WEIGHTS).expect("weights");
    let shard = "model-00001-of-00001.safetensors";
    let index = json!({"weight_map": {"model.norm.weight": shard}});
    files.insert(
        "model.safetensors.index.json".into(),
        index.to_string().into_bytes(),
    );
    let lacking = Hub::new(files.clone(), Manners::default());
    let output = lacking.call(&folder, &GENERATE);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains(&format!("org/nano on the hub has no {shard}; ")),
        "{stderr}"
    );
    files.insert(shard.into(), weights);
    let hub = Hub::new(files, Manners::default());
    assert_eq!(stdout_of(&hub.call(&folder, &GENERATE)), expected(&folder));
}

#[test]
fn what_cannot_be_had_is_one_sentence() {
    let folder = scratch("hub-refused");
    let gated = Manners {
        token: Some("secret"),
        ..Manners::default()
    };
    let (open, closed) = (
        Hub::new(nano(), Manners::default()),
        Hub::new(nano(), gated),
    );
    let mut pickled = nano();
    pickled.remove(WEIGHTS);
    let pickled = Hub::new(pickled, Manners::default());
    let mut empty = nano();
    empty.remove("config.json");
    let empty = Hub::new(empty, Manners::default());
    // A port that nobody listens on.
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}", listener.local_addr().expect("an address"))
    };
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);
    #[rustfmt::skip]
    let cases: [Case<'_>; 9] = [
        (&open.endpoint, "org/nano", &[("HF_HUB_OFFLINE", "1")], &["--model org/nano: no such directory, and it is not in the hub cache", "HF_HUB_OFFLINE"]),
        (&closed.endpoint, "org/nano", &[], &["(401)", "gated", "set HF_TOKEN"]),
        (&closed.endpoint, "org/nano", &[("HF_TOKEN", "wrong")], &["the owner of the token (HF_TOKEN)", "/org/nano"]),
        (&open.endpoint, "org/none", &[], &["--model org/none: no such directory", "no such model"]),
        (&open.endpoint, "org/nano@v9", &[], &["org/nano@v9", "no revision v9"]),
        (&pickled.endpoint, "org/nano", &[], &["only as pytorch_model.bin", "LlamaForCausalLM", "save_pretrained('nano')", "./nano"]),
        (&empty.endpoint, "org/nano", &[], &["org/nano on the hub has no config.json"]),
        (&nobody, "org/nano", &[], &[&nobody, "cannot be reached"]),
        ("no address", "org/nano", &[], &["no address"]),
    ];
    let mut complaints = Vec::new();
    for (endpoint, model, variables, says) in cases {
        let arguments = GENERATE.map(|a| if a == "org/nano" { model } else { a });
        let mut command = command(endpoint, &folder, &arguments);
        let output = finish(command.envs(variables.iter().copied()), "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.lines().last().unwrap_or_default();
        let right = output.status.code() == Some(2)
            && last.starts_with("error: ")
            && says.iter().all(|text| last.contains(text))
            && !stderr.contains("panicked");
        if !right {
            complaints.push(format!(
                "{model} at {endpoint} {variables:?}: {says:?}\n{stderr}"
            ));
        }
    }
    crate::common::report(&complaints);
}
