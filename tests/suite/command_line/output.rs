//! What each command prints.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use engine::Options;
use serde_json::{Value, json};
use strategies::Prm;

use super::{bad, cheap, check, missing};
use crate::common::{
    embedded, finish, heldout, json_of, offshoot, open, pair, report, repository, scratch,
    stdout_of,
};

/// The fields the README names, as paths.
const SUMMARY: [&str; 25] = [
    "problems",
    "correct",
    "accuracy",
    "strategy",
    "n",
    "seed",
    "grader",
    "policy/name",
    "policy/params",
    "policy/tokens_processed",
    "policy/tokens_reused",
    "policy/tokens_generated",
    "prm/name",
    "prm/params",
    "prm/tokens_processed",
    "prm/tokens_reused",
    "prm/tokens_generated",
    "kv/block_tokens",
    "kv/peak_blocks",
    "kv/peak_bytes",
    "kv/unshared_bytes",
    "flops/policy",
    "flops/prm",
    "seconds",
    "selection",
];

const LINE: [&str; 13] = [
    "id",
    "problem",
    "level",
    "subject",
    "answer",
    "prediction",
    "correct",
    "strategy",
    "n",
    "seed",
    "verdicts",
    "tokens/policy",
    "tokens/prm",
];

#[test]
fn solve_reports_every_field() {
    let folder = scratch("solve");
    let mut complaints = Vec::new();
    for (strategy, n, verdicts) in [
        ("cot", "1", 1),
        ("majority", "4", 1),
        ("best-of-n", "4", 9),
        ("beam", "4", 9),
        ("dvts", "4", 9),
    ] {
        let out = format!("{strategy}.jsonl");
        let flags = [
            "solve",
            "--strategy",
            strategy,
            "--n",
            n,
            "--limit",
            "3",
            "--json",
        ];
        let summary = json_of(&offshoot(
            &folder,
            &[&flags[..], &["--trees", "--out", &out]].concat(),
            "",
        ));
        let needs_prm = verdicts > 1;
        let wanted: Vec<&str> = SUMMARY
            .into_iter()
            .filter(|path| needs_prm || !path.starts_with("prm/"))
            .collect();
        complaints.extend(
            missing(&summary, &wanted)
                .iter()
                .map(|path| format!("{strategy}: the summary has no {path}")),
        );
        for (path, expected) in [
            ("/problems", json!(3)),
            ("/strategy", json!(strategy)),
            ("/seed", json!(0)),
            ("/kv/block_tokens", json!(16)),
            ("/policy/name", json!("nano-small")),
        ] {
            if summary.pointer(path) != Some(&expected) {
                complaints.push(format!("{strategy}: {path} is not {expected}: {summary}"));
            }
        }
        let number = |path: &str| summary.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        let shared = number("/kv/peak_bytes") < number("/kv/unshared_bytes") || n == "1";
        if number("/flops/policy") == 0 || needs_prm == (number("/flops/prm") == 0) || !shared {
            complaints.push(format!("{strategy}: counts that cannot be: {summary}"));
        }

        let lines = fs::read_to_string(folder.join(&out)).expect("the results are there");
        let lines: Vec<Value> = (lines.lines())
            .map(|line| serde_json::from_str(line).expect("a line is JSON"))
            .collect();
        for line in &lines {
            let nodes = line.pointer("/tree/nodes").and_then(Value::as_array);
            let found = line["verdicts"].as_array().map(Vec::len);
            if !missing(line, &LINE).is_empty() || nodes.is_none_or(|n| n.len() < 2) {
                complaints.push(format!(
                    "{strategy}: a line lacks {:?}",
                    missing(line, &LINE)
                ));
            }
            if found != Some(verdicts) {
                complaints.push(format!(
                    "{strategy}: {found:?} verdicts, {verdicts} expected"
                ));
            }
        }
        let ids: Vec<&Value> = lines.iter().map(|line| &line["id"]).collect();
        let bundled = heldout();
        let expected: Vec<Value> = (bundled.lines().take(3))
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["unique_id"].clone())
            .collect();
        if ids != expected.iter().collect::<Vec<_>>() {
            complaints.push(format!("{strategy}: the first three problems are {ids:?}"));
        }
        let correct = lines.iter().filter(|line| line["correct"] == true).count();
        if summary["correct"] != correct {
            complaints.push(format!("{strategy}: {correct} lines are right: {summary}"));
        }
    }
    report(&complaints);
}

#[test]
fn one_problem_as_argument_or_on_standard_input() {
    let folder = scratch("argument");
    let problem = "A crew has 5 books. Then 2 more come in. How many books are left?";
    let argument = stdout_of(&offshoot(&folder, &cheap(&[problem]), ""));
    let input = stdout_of(&offshoot(&folder, &cheap(&["-"]), &format!("{problem}\n")));
    assert_eq!(argument, input);
    assert!(argument.contains("Answer: "), "{argument}");
    let plain = stdout_of(&offshoot(
        &folder,
        &["solve", "--limit", "2", "--n", "4"],
        "",
    ));
    for word in ["level", "accuracy", "last-vote", "nano-small", "nano-prm"] {
        assert!(plain.contains(word), "no {word:?} in {plain}");
    }
}

#[test]
fn show_draws_a_tree() {
    let folder = scratch("show");
    let flags = ["--limit", "2", "--out", "r.jsonl"];
    stdout_of(&offshoot(
        &folder,
        &cheap(&[&flags[..], &["--trees"]].concat()),
        "",
    ));
    let flags = ["--limit", "1", "--out", "plain.jsonl"];
    stdout_of(&offshoot(&folder, &cheap(&flags), ""));

    let lines = fs::read_to_string(folder.join("r.jsonl")).expect("the results are there");
    for (number, line) in lines.lines().enumerate() {
        let line: Value = serde_json::from_str(line).expect("a line is JSON");
        let id = line["id"].as_str().expect("an id");
        let nodes = line["tree"]["nodes"].as_array().expect("a tree");
        let number = (number + 1).to_string();
        let by_id = stdout_of(&offshoot(&folder, &["show", "r.jsonl", id, "--all"], ""));
        let by_number = stdout_of(&offshoot(
            &folder,
            &["show", "r.jsonl", &number, "--all"],
            "",
        ));
        assert_eq!(by_id, by_number);
        assert!(
            by_id.starts_with(line["problem"].as_str().expect("a text")),
            "{by_id}"
        );
        // One line for every step but the stem; the chosen path is marked from top to bottom.
        let drawn = |mark: &str| by_id.lines().filter(|l| l.contains(mark)).count();
        let steps = drawn("\u{2514} ") + drawn("\u{251c} ");
        assert_eq!(steps, nodes.len() - 1, "{by_id}");
        let chosen = nodes[1..].iter().filter(|n| n["chosen"] == true).count();
        assert_eq!(drawn("\u{2514} *") + drawn("\u{251c} *"), chosen, "{by_id}");
        assert!(chosen > 0, "{by_id}");
        let narrow = ["show", "r.jsonl", id, "--width", "50"];
        let narrow = stdout_of(&offshoot(&folder, &narrow, ""));
        let tree = narrow
            .lines()
            .filter(|l| l.contains(['\u{2514}', '\u{251c}']));
        assert!(tree.clone().count() > 0 && tree.clone().all(|l| l.chars().count() <= 50));
    }
    check(
        &folder,
        &[
            bad(&["show", "r.jsonl", "3"], &["r.jsonl", "\"3\""]),
            bad(&["show", "r.jsonl", "0"], &["r.jsonl", "\"0\""]),
            bad(&["show", "plain.jsonl", "1"], &["plain.jsonl", "--trees"]),
        ],
    );
}

#[test]
fn generate_streams_what_json_tells() {
    let folder = scratch("generate");
    let prompt = "A crew has 5 books. Then 2 more come in. How many books are left?";
    let run = |more: &[&str]| offshoot(&folder, &[&["generate"], more].concat(), "");
    let whole = json_of(&run(&["--json", prompt]));
    let fields = [
        "prompt_tokens",
        "token_ids",
        "text",
        "logprobs",
        "finish_reason",
    ];
    assert_eq!(missing(&whole, &fields), [""; 0]);
    let text = whole["text"].as_str().expect("a text");
    assert!(
        !text.is_empty() && whole["finish_reason"] == "stop",
        "{whole}"
    );
    assert_eq!(stdout_of(&run(&[prompt])), format!("{text}\n"), "streamed");
    assert_eq!(
        stdout_of(&offshoot(&folder, &["generate", "-"], prompt)),
        format!("{text}\n")
    );

    let count = |value: &Value| value.as_array().map_or(0, Vec::len);
    let logprobs = whole["logprobs"].as_array().expect("a list");
    assert_eq!(
        logprobs.len(),
        count(&whole["token_ids"]),
        "one to one, the end's own one too"
    );
    assert!(
        logprobs
            .iter()
            .all(|l| l.as_f64().is_some_and(|l| l <= 0.0)),
        "{whole}"
    );

    // The template adds tokens around the prompt, --raw does not.
    let parts = open("nano-small");
    let raw = json_of(&run(&["--json", "--raw", prompt]));
    let encoded = parts.tokenizer.encode(prompt, true).expect("plain text");
    assert_eq!(raw["prompt_tokens"], encoded.len());
    assert!(whole["prompt_tokens"].as_u64() > raw["prompt_tokens"].as_u64());

    // A stop text is no part of the text, wherever it falls in the tokens.
    for stop in ["=", "= ", "\\n\\n", &text[1..4], "\\boxed"] {
        let meant = stop.replace("\\n", "\n");
        let stopped = json_of(&run(&["--json", "--stop", stop, "--stop", "never", prompt]));
        let cut = text.find(&meant).expect("the stop text is in the text");
        assert_eq!(stopped["text"], text[..cut], "--stop {stop:?}");
        // The tokens are those that were drawn, so the same as without it as far as they go.
        for list in ["token_ids", "logprobs"] {
            let (cut, all) = (stopped[list].as_array(), whole[list].as_array());
            let (cut, all) = (cut.expect("a list"), all.expect("a list"));
            assert!(all.starts_with(cut), "--stop {stop:?}: {list} {cut:?}");
        }
        assert_eq!(count(&stopped["token_ids"]), count(&stopped["logprobs"]));
        assert_eq!(stopped["finish_reason"], "stop");
    }
    let short = json_of(&run(&["--json", "--max-tokens", "3", prompt]));
    assert_eq!(count(&short["token_ids"]), 3);
    assert_eq!(short["finish_reason"], "length");

    // Of the model's own distribution, or of the one that is drawn from.
    let logprobs = |more: &[&str]| -> Vec<f64> {
        let call = [
            &["--json", "--max-tokens", "12", "--seed", "3"],
            more,
            &[prompt],
        ]
        .concat();
        let found = json_of(&run(&call))["logprobs"].clone();
        serde_json::from_value(found).expect("numbers")
    };
    let processed = ["--logprobs", "processed", "--temperature"];
    let own = logprobs(&["--temperature", "1"]);
    let apart = |a: &[f64], b: &[f64]| {
        assert_eq!(a.len(), b.len());
        a.iter()
            .zip(b)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max)
    };
    // Alike where nothing is changed, but for weights that are cut to integers.
    let same = logprobs(&[&processed[..], &["1"]].concat());
    assert!(apart(&own, &same) < 1e-3, "{own:?} {same:?}");
    let warm = logprobs(&[&processed[..], &["1.7"]].concat());
    let raw = logprobs(&["--logprobs", "raw_logprobs", "--temperature", "1.7"]);
    assert!(apart(&warm, &raw) > 1e-2, "{warm:?} {raw:?}");
    for certain in [&["0"][..], &["1", "--top-k", "1"]] {
        let zeros = logprobs(&[&processed, certain].concat());
        assert!(zeros.iter().all(|l| *l == 0.0), "{certain:?}: {zeros:?}");
    }

    let drawn = |seed| stdout_of(&run(&["--temperature", "1.5", "--seed", seed, prompt]));
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1"), drawn("2"));
}

#[test]
fn score_prints_what_the_library_scores() {
    let folder = scratch("score");
    let problem = "A crew has 5 books. Then 2 more come in. How many books are left?";
    let steps = ["Step 1: 5 + 2 = 7.", "The answer is \\boxed{7}."];
    let expected = {
        let pair = pair(1, &Options::default());
        let scores = pair.engine.run(async {
            let mut branch = pair.prm.start(problem).await?;
            pair.prm.score(&mut branch, &steps).await
        });
        let scores = scores.expect("the engine runs").expect("two scores");
        (scores, pair.prm_model.usage().tokens_processed)
    };
    let text = format!("\n{}\r\n\r\n\n\n  {}\n", steps[0], steps[1]);
    fs::write(folder.join("steps.txt"), &text).expect("a file is written");
    for (file, input) in [("steps.txt", ""), ("-", text.as_str())] {
        let call = ["score", "--problem", problem, "--steps", file];
        let found = json_of(&offshoot(
            &folder,
            &[&call[..], &["--json"]].concat(),
            input,
        ));
        assert_eq!(found["tokens_processed"], expected.1);
        let scores = found["scores"].as_array().expect("a list");
        assert_eq!(scores.len(), 2);
        for (found, expected) in scores.iter().zip(&expected.0) {
            // Only what reading a decimal can lose.
            let found = found.as_f64().expect("a number");
            assert!((found - expected).abs() < 1e-15, "{found} and {expected}");
        }
        let plain = stdout_of(&offshoot(&folder, &call, input));
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(lines.len(), 2, "{plain}");
        for ((line, step), score) in lines.iter().zip(steps).zip(&expected.0) {
            assert_eq!(*line, format!("{score:.6}  {step}"));
        }
    }
}

#[test]
fn inspect_says_what_a_model_is() {
    let folder = scratch("inspect");
    for (word, writes) in [
        ("nano-small", true),
        ("nano-big", true),
        ("nano-prm", false),
    ] {
        let config = fs::read(embedded(word).join("config.json")).expect("a config");
        let config: Value = serde_json::from_slice(&config).expect("its JSON");
        let number = |name: &str| config[name].as_u64().unwrap_or_else(|| panic!("{name}"));
        let found = json_of(&offshoot(&folder, &["inspect", "--json", word], ""));
        let kv = 2
            * number("num_hidden_layers")
            * number("num_key_value_heads")
            * number("head_dim")
            * 2;
        for (field, expected) in [
            ("name", json!(word)),
            ("architecture", config["architectures"][0].clone()),
            ("parameters", json!(open(word).checkpoint.params())),
            ("context", config["max_position_embeddings"].clone()),
            ("kv_bytes_per_token", json!(kv)),
        ] {
            assert_eq!(found[field], expected, "{word}, {field}");
        }
        assert_eq!(found["policy"]["can"], writes, "{word}");
        assert_eq!(found["prm"]["can"], !writes, "{word}");
        // The same model from its directory.
        let path: PathBuf = repository("session/src/embedded").join(word);
        let path = path.to_str().expect("a path in UTF-8");
        let mut by_path = json_of(&offshoot(&folder, &["inspect", "--json", path], ""));
        assert_eq!(by_path["name"], path);
        // transformers can open a directory, and takes another tokenizer for Qwen2's.
        let warned = by_path["warnings"].to_string().contains("Qwen2Tokenizer");
        assert_eq!(warned, word == "nano-prm", "{by_path}");
        for field in ["name", "files", "warnings"] {
            by_path[field] = found[field].clone();
        }
        assert_eq!(by_path, found);
        let text = stdout_of(&offshoot(&folder, &["inspect", word], ""));
        assert!(
            text.contains(&format!("{kv} bytes of KV cache a token")),
            "{text}"
        );
    }
}

#[test]
fn completions_and_manual_pages() {
    let folder = scratch("completions");
    let commands = [
        "solve",
        "show",
        "generate",
        "score",
        "inspect",
        "completions",
        "man",
    ];
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = stdout_of(&offshoot(&folder, &["completions", shell], ""));
        for word in commands.iter().chain(&["beam-width"]) {
            assert!(
                script.contains(word),
                "{word} is not in the script for {shell}"
            );
        }
    }
    let page = stdout_of(&offshoot(&folder, &["man"], ""));
    assert!(page.contains(".TH offshoot 1"), "{page}");
    for command in commands {
        assert!(page.contains(command), "{command} is not in the page");
        let page = stdout_of(&offshoot(&folder, &["man", command], ""));
        assert!(
            page.contains(".SH NAME") && page.contains(command),
            "{page}"
        );
    }
    let page = stdout_of(&offshoot(&folder, &["man", "solve"], ""));
    assert!(page.contains("beam\\-width"), "{page}");
}

/// The reader of our output may close it early.
#[test]
fn a_closed_pipe_is_no_error() {
    let folder = scratch("pipe");
    // The second is still writing when its reader goes.
    for command in [
        "completions bash",
        "generate --device cpu --temperature 3 --max-tokens 400 --raw x",
    ] {
        let script = format!("\"$0\" {command} | head -c 10 >/dev/null; exit ${{PIPESTATUS[0]}}");
        let mut bash = Command::new("bash");
        bash.current_dir(&folder).args(["-c", &script]);
        let output = finish(bash.arg(env!("CARGO_BIN_EXE_offshoot")), "");
        assert!(output.status.success(), "{command}: {output:?}");
        assert!(output.stderr.is_empty(), "{command}: {output:?}");
    }
}
