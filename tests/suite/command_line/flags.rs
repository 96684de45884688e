//! Flags that cannot be honoured are refused by name.

use std::fs;

use super::{Bad, bad, check, usage};
use crate::common::scratch;

#[test]
fn flags_that_cannot_be_honoured_are_named() {
    let folder = scratch("flags");
    fs::write(folder.join("empty.txt"), "\n\n \n").expect("a file is written");
    fs::write(folder.join("binary.txt"), b"\xff\xfe\n\n\x80").expect("a file is written");
    fs::write(folder.join("empty.jsonl"), "").expect("a file is written");
    fs::write(folder.join("notes.txt"), "hello\n").expect("a file is written");
    let long = "A crew has 12 stamps. ".repeat(200);
    let (solve_long, generate_long) = (["solve", &long], ["generate", &long]);
    let score_long = ["score", "--problem", &long, "--steps", "-"];
    let tiny = ["--kv-memory", "0.002", "--limit", "1", "--n", "4"];
    let tiny: Vec<&str> = ["solve"].into_iter().chain(tiny).collect();
    let per_problem = |arguments, says| Bad {
        lines: Some(2), // the problem's sentence, and that it has no result
        ..bad(arguments, says)
    };
    let cases = [
        // Predictions.
        usage(
            &["kernels", "predict", "--card", "gtx"],
            &["--card", "gtx", "h200"],
        ),
        bad(
            &["kernels", "predict", "--card", "h200", "--model", "gpt-5"],
            &["--model gpt-5", "expected one of nano"],
        ),
        bad(
            &["kernels", "predict", "--card", "h200", "--branches", "4096"],
            &["--branches", "4096 branches of llama-3.2-1b", "at most"],
        ),
        bad(
            &[
                "kernels",
                "predict",
                "--card",
                "h200",
                "--measured",
                "notes.txt",
            ],
            &["--measured notes.txt line 1", "expected"],
        ),
        // The search.
        bad(&["solve", "--n", "6"], &["--n is 6", "--beam-width"]),
        bad(&["solve", "--n", "0"], &["--n", "0"]),
        bad(&["solve", "--beam-width", "0"], &["--beam-width", "0"]),
        bad(&["solve", "--strategy", "dvts", "--n", "5"], &["--n is 5"]),
        bad(&["solve", "--strategy", "cot", "--n", "2"], &["--n", "2"]),
        bad(
            &["solve", "--strategy", "majority", "--lookahead", "1"],
            &["--lookahead"],
        ),
        bad(
            &["solve", "--strategy", "majority", "--verdict", "last-max"],
            &["--selection is last-max"],
        ),
        bad(&["solve", "--max-steps", "0"], &["--max-steps"]),
        bad(&["solve", "--step-tokens", "0"], &["--max-step-tokens"]),
        bad(&["solve", "--total-tokens", "0"], &["--max-tokens"]),
        bad(&["solve", "--tries", "0"], &["--max-retries"]),
        bad(&["solve", "--delimiter", ""], &["--delimiter"]),
        bad(&["solve", "--temperature", "-1"], &["--temperature", "-1"]),
        bad(
            &["solve", "--temperature", "nan"],
            &["--temperature", "NaN"],
        ),
        bad(&["solve", "--top-p", "0"], &["--top-p"]),
        bad(&["solve", "--top-p", "1.5"], &["--top-p", "1.5"]),
        bad(&["solve", "--min-p", "2"], &["--min-p", "2"]),
        bad(
            &["solve", "--repetition-penalty", "0"],
            &["--repetition-penalty"],
        ),
        usage(
            &["solve", "--strategy", "magic"],
            &["--strategy", "magic", "best-of-n"],
        ),
        usage(
            &["solve", "--beam-mode", "wide"],
            &["--beam-mode", "search-and-learn"],
        ),
        usage(
            &["solve", "--value", "median"],
            &["--aggregation", "median", "product"],
        ),
        usage(&["solve", "--verdict", "best"], &["--selection", "best"]),
        bad(
            &["solve", "--n", "18446744073709551615"],
            &["--n is", "65536"],
        ),
        usage(&["solve", "--device", "gpu"], &["--device", "cuda:INDEX"]),
        usage(&["solve", "--n", "many"], &["--n", "many"]),
        usage(&["solve", "--n", "-4"], &["-4", "--n <N>"]),
        usage(&["solve", "--concurrency", "0"], &["--concurrency", "0"]),
        usage(&["solve", "--problems", "x.jsonl", "text"], &["--problems"]),
        usage(&["solve", "--no-such-flag"], &["--no-such-flag"]),
        usage(&["dissolve"], &["dissolve"]),
        // The device.
        bad(
            &["solve", "--limit", "1", "--kv-memory", "0"],
            &["--kv-memory is 0"],
        ),
        bad(
            &["solve", "--limit", "1", "--kv-memory", "-3"],
            &["--kv-memory is -3"],
        ),
        bad(
            &["solve", "--limit", "1", "--kv-memory", "nan"],
            &["--kv-memory is NaN"],
        ),
        per_problem(
            &tiny,
            &[
                "problem heldout/",
                "--kv-memory",
                "too small for one branch",
            ],
        ),
        per_problem(
            &["solve", "--limit", "1", "--kv-memory", "0.0001"],
            &["--kv-memory"],
        ),
        usage(&["solve", "--block-tokens", "0"], &["--block-tokens", "0"]),
        usage(&["solve", "--max-rows", "0"], &["--max-batch-rows", "0"]),
        usage(&["solve", "--kv-dtype", "int2"], &["--kv-dtype", "int2"]),
        // Problems and prompts.
        bad(&["solve", ""], &["problem is empty"]),
        bad(&["solve", " \n\t"], &["problem is empty"]),
        bad(&["solve", "-"], &["problem is empty"]),
        per_problem(&solve_long, &["problem 1", "context of 512"]),
        bad(
            &["solve", "--problems", "none.jsonl"],
            &["--problems none.jsonl"],
        ),
        bad(&["solve", "--problems", "."], &["--problems ."]),
        bad(
            &["solve", "--problems", "empty.jsonl"],
            &["--problems empty.jsonl", "no problem"],
        ),
        bad(&generate_long, &["context of 512"]),
        bad(&["generate", "--raw", ""], &["prompt has no tokens"]),
        bad(
            &["generate", "--model", "nano-prm", "x"],
            &["--model nano-prm", "cannot write"],
        ),
        bad(
            &["generate", "--temperature", "-1", "x"],
            &["--temperature"],
        ),
        usage(&["generate"], &["PROMPT"]),
        usage(
            &["generate", "--max-tokens", "0", "x"],
            &["--max-tokens", "0"],
        ),
        usage(
            &["generate", "--raw", "--system", "s", "x"],
            &["--raw", "--system"],
        ),
        bad(
            &["score", "--problem", "x", "--steps", "none.txt"],
            &["--steps none.txt"],
        ),
        bad(
            &["score", "--problem", "x", "--steps", "empty.txt"],
            &["--steps empty.txt", "no step"],
        ),
        bad(
            &["score", "--problem", "x", "--steps", "binary.txt"],
            &["--steps binary.txt", "UTF-8"],
        ),
        bad(
            &["score", "--problem", "x", "--steps", "-"],
            &["--steps -", "no step"],
        ),
        Bad {
            input: "Step 1: 1 + 1 = 2.",
            ..bad(&score_long, &["context of 512"])
        },
        // Models in the wrong part.
        bad(
            &["solve", "--policy", "nano-prm"],
            &["--policy nano-prm", "cannot write"],
        ),
        bad(
            &["solve", "--prm", "nano-big"],
            &["--prm nano-big", "no reward head"],
        ),
        bad(
            &[
                "score",
                "--prm",
                "nano-small",
                "--problem",
                "x",
                "--steps",
                "notes.txt",
            ],
            &["--prm nano-small", "no reward head"],
        ),
        bad(
            &["solve", "--policy", "nano-smal"],
            &["--policy is nano-smal", "nano-small"],
        ),
        bad(&["solve", "--prm", "no/where"], &["--prm no/where"]),
        bad(&["inspect", "no/where"], &["no/where"]),
        bad(&["inspect", "notes.txt"], &["notes.txt"]),
        // Results.
        bad(&["show", "none.jsonl", "1"], &["none.jsonl"]),
        bad(
            &["show", "notes.txt", "1"],
            &["notes.txt line 1", "not a result"],
        ),
        bad(&["show", "empty.jsonl", "1"], &["empty.jsonl", "\"1\""]),
        bad(
            &["solve", "--limit", "1", "--out", "notes.txt"],
            &["notes.txt line 1", "not a result"],
        ),
        bad(
            &["solve", "--limit", "1", "--out", "no/where.jsonl"],
            &["--out no/where.jsonl"],
        ),
        bad(&["solve", "--limit", "1", "--out", "."], &["--out ."]),
        bad(&["man", "dissolve"], &["dissolve"]),
        usage(&["completions", "tcl"], &["tcl"]),
    ];
    check(&folder, &cases);
    let notes = fs::read_to_string(folder.join("notes.txt")).expect("it is still there");
    assert_eq!(
        notes, "hello\n",
        "--out touched a file that is no results file"
    );
}
