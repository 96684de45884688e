//! Results files of earlier releases are read: their options had other names, and lacked some.
//!
//! `old_results/beam-0.1.jsonl` was written by 0.1.0 with `solve --limit 2 --n 4 --trees --value
//! min --verdict min-vote --total-tokens 512 --step-tokens 128 --tries 2 --past-limit run-on`,
//! `old_results/majority-0.1.jsonl` with `solve --limit 2 --n 4 --strategy majority`.

use offshoot_strategies::{
    Aggregation, Config, ContextOverflow, Selection, Solution, Strategy, Subsample, Trace, Verdict,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

const BEAM: &str = include_str!("old_results/beam-0.1.jsonl");
const MAJORITY: &str = include_str!("old_results/majority-0.1.jsonl");

fn lines(file: &str) -> Vec<Value> {
    let lines = file.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("lines of JSON")
}

fn read<T: DeserializeOwned>(line: &Value, pointer: &str) -> T {
    let value = line.pointer(pointer).expect(pointer).clone();
    serde_json::from_value(value).expect(pointer)
}

#[test]
fn a_tree_search_of_0_1_is_read() {
    let expected = Config {
        n: 4,
        aggregation: Aggregation::Min,
        selection: Some(Selection::Vote(Aggregation::Min)),
        max_tokens: 512,
        max_step_tokens: 128,
        max_retries: 2,
        ..Config::new(Strategy::Beam)
    };
    let lines = lines(BEAM);
    assert_eq!(lines.len(), 2);
    for line in &lines {
        let config: Config = read(line, "/settings/search");
        assert_eq!(config, expected);
        let overflow: ContextOverflow = read(line, "/settings/past_limit");
        assert_eq!(overflow, ContextOverflow::Extend);

        let solutions: Vec<Solution> = read(line, "/solutions");
        let trace: Trace = read(line, "/tree");
        let verdicts: Vec<Verdict> = read(line, "/verdicts");
        assert_eq!(verdicts.len(), 9);
        assert_eq!(verdicts[1].selection, Selection::Vote(Aggregation::Min));
        assert_eq!(
            trace.num_tokens() as u64,
            read::<u64>(line, "/tokens/policy")
        );
        for solution in &solutions {
            let mut along = 0;
            let mut next = Some(solution.node);
            while let Some(id) = next {
                along += trace.nodes[id].num_tokens;
                next = trace.nodes[id].parent;
            }
            assert_eq!(solution.num_tokens, along);
        }
    }
}

#[test]
fn a_vote_of_0_1_is_read() {
    let expected = Config {
        n: 4,
        ..Config::new(Strategy::Majority)
    };
    for line in &lines(MAJORITY) {
        let config: Config = read(line, "/settings/search");
        assert_eq!(config, expected);
        let by_n: Vec<Subsample> = read(line, "/by_n");
        assert_eq!(by_n.iter().map(|s| s.n).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(by_n[0].verdicts[0].selection, Selection::Majority);
    }
}

/// A file of a later release has options that this one lacks.
#[test]
fn options_of_later_releases_are_ignored() {
    let mut search = lines(MAJORITY)[0]["settings"]["search"].clone();
    search["temperature_schedule"] = "cosine".into();
    search["sampling"]["top_n_sigma"] = 1.into();
    let config: Config = serde_json::from_value(search).expect("a configuration");
    assert_eq!(config.n, 4);
}
