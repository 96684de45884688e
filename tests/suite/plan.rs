//! Plans: what one says of itself is what `auto` does; one of other models is refused.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{heldout, json_of, offshoot, scratch, stdout_of};

fn run(folder: &Path, line: &str) -> std::process::Output {
    offshoot(folder, &line.split(' ').collect::<Vec<_>>(), "")
}

/// Sixty problems of all levels, and a plan learned from them.
fn planned(name: &str) -> (std::path::PathBuf, Value) {
    let folder = scratch(name);
    let text = heldout();
    let lines: Vec<&str> = text.lines().rev().step_by(3).take(60).collect();
    fs::write(folder.join("problems.jsonl"), lines.join("\n")).expect("a file is written");
    let grid = "problems = 'problems.jsonl'\npolicies = ['nano-small']\nprms = ['nano-prm']\nseeds = 2\n\
                [[configurations]]\nstrategy = ['beam', 'dvts']\nn = [4, 32]\nbeam_width = 4\n\
                [[configurations]]\nstrategy = 'best-of-n'\nn = 8\n";
    fs::write(folder.join("sweep.toml"), grid).expect("a file is written");
    stdout_of(&run(
        &folder,
        "sweep --config sweep.toml --timed 2 --out sweep",
    ));
    let plan = run(
        &folder,
        "plan sweep --accuracy 0.6 --held-out sweep --out plan.toml --json",
    );
    (folder, json_of(&plan))
}

fn row<'a>(plan: &'a Value, what: &str, on: &str) -> &'a Value {
    let rows = plan["rows"].as_array().expect("rows");
    let found = rows
        .iter()
        .find(|row| row["what"] == what && row["on"] == on);
    found.expect(what)
}

#[test]
fn auto_does_what_its_plan_says() {
    let (folder, plan) = planned("plan_says");
    let own = row(&plan, "the plan", "calibration");
    assert!(own["accuracy"].as_f64().expect("a share") >= 0.6);
    // The held-out problems are the same ones here, and the searches too.
    let same = row(&plan, "the plan", "held-out");
    assert_eq!(
        (&same["accuracy"], &same["cost"]),
        (&own["accuracy"], &own["cost"])
    );
    let rules = plan["plan"]["rules"]
        .as_array()
        .expect("more than one search");
    assert!(
        rules.iter().any(|rule| rule["then"].is_object()),
        "{rules:?}"
    );

    let grid = "problems = 'problems.jsonl'\npolicies = ['nano-small']\nprms = ['nano-prm']\nseeds = 2\n\
                [[configurations]]\nstrategy = 'auto'\nplan = 'plan.toml'\n";
    fs::write(folder.join("auto.toml"), grid).expect("a file is written");
    let rows = json_of(&run(
        &folder,
        "sweep --config auto.toml --timed 0 --out auto --json",
    ));
    let auto = &rows[0];
    assert_eq!(auto["configuration"], "auto-plan=plan");
    let number = |value: &Value| value.as_f64().expect("a number");
    assert!((number(&auto["accuracy"]) - number(&own["accuracy"])).abs() < 1e-12);
    // The last row of a prompt is computed again where another search follows.
    let flops = number(&auto["policy_flops"]) + number(&auto["prm_flops"]);
    let ratio = flops / number(&own["cost"]);
    assert!((1.0..1.05).contains(&ratio), "{ratio}");

    let line = "solve --problems problems.jsonl --limit 12 --strategy auto --plan plan.toml --out out.jsonl";
    stdout_of(&run(&folder, line));
    let lines = fs::read_to_string(folder.join("out.jsonl")).expect("results");
    assert_eq!(lines.lines().count(), 12);
    let text = stdout_of(&run(&folder, "plan sweep --unit seconds --accuracy 0.5"));
    assert!(text.contains("learned from 60 problems"), "{text}");
    let table = stdout_of(&run(&folder, "plan sweep"));
    assert!(table.contains("plan as good"), "{table}");
}

#[test]
fn auto_without_a_plan_follows_the_paper() {
    let folder = scratch("plan_paper");
    let summary = json_of(&run(
        &folder,
        "solve --strategy auto --n 8 --limit 20 --json",
    ));
    assert_eq!(summary["problems"], 20);
}

#[test]
fn a_plan_that_does_not_fit_is_one_sentence() {
    let (folder, _) = planned("plan_bad");
    let text = fs::read_to_string(folder.join("plan.toml")).expect("a plan");
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("written");
    write(
        "params.toml",
        &text.replace("prm_params = 924546", "prm_params = 924547"),
    );
    write(
        "head.toml",
        &text.replace(
            "prm_format = \"token-classification\"",
            "prm_format = \"skywork\"",
        ),
    );
    write("newer.toml", &text.replace("schema = 1", "schema = 99"));
    write("search.toml", &text.replace("strategy = ", "strategem = "));
    write("not.toml", "schema = 1");
    let auto = "solve --limit 1 --strategy auto --plan";
    for (line, sentence) in [
        (
            format!("{auto} plan.toml --policy nano-big"),
            "--plan plan.toml: made for the policy nano-small (52448 parameters), not for nano-big (433824 parameters)",
        ),
        (
            format!("{auto} params.toml"),
            "--plan params.toml: made for the PRM nano-prm (924547 parameters), not for nano-prm (924546 parameters)",
        ),
        (
            format!("{auto} head.toml"),
            "--plan head.toml: made for the PRM nano-prm (924546 parameters) read as skywork, not for",
        ),
        (
            format!("{auto} newer.toml"),
            "--plan newer.toml: written by a newer offshoot (schema 99, this one reads 1)",
        ),
        (
            format!("{auto} not.toml"),
            "--plan not.toml line 1: not a plan of offshoot: missing field",
        ),
        (
            format!("{auto} search.toml"),
            "--plan search.toml: `strategem` is \"beam\": missing field `strategy`",
        ),
        (format!("{auto} no.toml"), "--plan no.toml: No such file"),
        (
            "solve --limit 1 --strategy beam --plan plan.toml".into(),
            "--plan is given; expected none: the strategy beam follows no plan",
        ),
        (
            "plan sweep --accuracy 1.5".into(),
            "--accuracy is 1.5; expected at most ",
        ),
        (
            "plan sweep --budget 10".into(),
            "--budget is 10; expected at least ",
        ),
        (
            "plan plan.toml --budget 10".into(),
            "plan.toml: not the folder of a sweep: ",
        ),
        (
            "plan sweep --policy nano-big --budget 10".into(),
            "sweep: --policy and --prm must name one of its pairs: nano-small with nano-prm",
        ),
    ] {
        let output = run(&folder, &line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(
            stderr.starts_with(&format!("error: {sentence}")),
            "{line}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{line}: {stderr}");
    }
}
