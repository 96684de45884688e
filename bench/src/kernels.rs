//! Tree attention counted on the emulated GPU: against a flat kernel and a two-level cascade, which
//! are the same kernel with other plans.
//!
//! Raw results, one JSON file, and a page of tables made from it. No figure is a time.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Done;
use crate::machine::{Machine, root};
use crate::markdown::table;
use crate::offshoot::Offshoot;

/// Flags of `kernels`.
#[derive(Args, Debug)]
pub struct Flags {
    /// The `offshoot` binary; the release build of this workspace unless given. The emulator's
    /// library must lie beside it.
    #[arg(long, value_name = "FILE")]
    offshoot: Option<PathBuf>,
    /// Folder for `kernels.json` and `kernels.md`.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Only the shapes of Llama-3.2-1B.
    #[arg(long)]
    quick: bool,
}

/// Models by their heads: query heads, KV heads, head dimension (their published configs).
const MODELS: [(&str, &str); 3] = [
    ("Llama-3.2-1B", "32/8/64"),
    ("Qwen2.5-1.5B", "12/2/128"),
    ("Llama-3.1-8B", "32/8/128"),
];
const BEAMS: [u32; 3] = [4, 16, 64];
const PROMPTS: [u32; 2] = [512, 2048];
const SHARING: [&str; 3] = ["tree", "cascade", "flat"];

/// One case with what was counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Case {
    model: String,
    n: u32,
    prompt: u32,
    sharing: String,
    arguments: Vec<String>,
    counted: Value,
}

/// The raw results.
#[derive(Serialize, Deserialize)]
struct Results {
    machine: Machine,
    binary: String,
    cases: Vec<Case>,
}

/// Runs the study.
pub fn run(flags: &Flags) -> Done {
    let offshoot = Offshoot::find(flags.offshoot.as_deref())?;
    let folder = flags
        .out
        .clone()
        .unwrap_or_else(|| root().join("bench/results/kernels"));
    let mut cases = Vec::new();
    for (model, heads) in MODELS
        .iter()
        .take(if flags.quick { 1 } else { MODELS.len() })
    {
        for n in BEAMS {
            for prompt in PROMPTS {
                for sharing in SHARING {
                    let arguments: Vec<String> = [
                        "kernels",
                        "profile",
                        "attention",
                        "--json",
                        "--heads",
                        heads,
                        "--n",
                        &n.to_string(),
                        "--prompt",
                        &prompt.to_string(),
                        "--sharing",
                        sharing,
                    ]
                    .map(String::from)
                    .to_vec();
                    eprintln!("offshoot {}", arguments.join(" "));
                    cases.push(Case {
                        model: (*model).into(),
                        n,
                        prompt,
                        sharing: sharing.into(),
                        counted: offshoot.json(&arguments)?,
                        arguments,
                    });
                }
            }
        }
    }
    let results = Results {
        machine: Machine::this(),
        binary: offshoot.hash.clone(),
        cases,
    };
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let json = serde_json::to_string_pretty(&results).map_err(|e| e.to_string())?;
    for (name, text) in [
        ("kernels.json", json + "\n"),
        ("kernels.md", page(&results)),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// A number within a case, by its path; 0 where there is none.
fn number(case: &Case, path: &str) -> f64 {
    case.counted
        .pointer(path)
        .and_then(Value::as_f64)
        .unwrap_or(0.0)
}

/// A counter over all launches of a case.
fn total(case: &Case, path: &str) -> f64 {
    let launches = case.counted["launches"].as_array().into_iter().flatten();
    launches
        .filter_map(|launch| launch.pointer(path).and_then(Value::as_f64))
        .sum()
}

fn page(results: &Results) -> String {
    let mut out = format!(
        "# Tree attention, counted\n\nOne decode step at the end of a beam search of 16 steps x 64 \
         tokens, M = 4, survivors at random (seed 0), one layer, emulated {}. `tree`, `cascade` and \
         `flat` are the same kernel with other plans: every level of the tree read once where it \
         pays; the common prompt read once; every branch for itself. Counts, not times: nothing \
         here was measured on hardware.\n\nMade by `cargo run --release -p offshoot-bench -- \
         kernels` at {} on {}.\n\n",
        results.cases[0].counted["device"].as_str().unwrap_or("GPU"),
        results.machine.commit,
        results.machine.cpu,
    );
    let header = [
        "model",
        "N",
        "P",
        "plan",
        "unique KV MB",
        "DRAM / unique",
        "requested MB",
        "requested / tiled unique",
        "flat requests / these",
        "cost / flat",
        "instructions / flat",
        "useful products %",
        "bank conflicts %",
        "heaviest SM / mean",
        "items",
    ]
    .map(String::from);
    let rows: Vec<Vec<String>> = results
        .cases
        .iter()
        .map(|case| {
            let flat = results
                .cases
                .iter()
                .find(|c| {
                    (&c.model, c.n, c.prompt) == (&case.model, case.n, case.prompt)
                        && c.sharing == "flat"
                })
                .unwrap_or(case);
            let unique = number(case, "/budget/unique_kv_bytes");
            let per_token = unique / number(case, "/budget/unique_tokens");
            let tiled = number(case, "/budget/tiled_tokens") * per_token;
            let requested = number(case, "/budget/item_tokens") * per_token;
            let flat_requested = number(flat, "/budget/item_tokens") * per_token;
            let ratio = |path: &str| total(case, path) / total(flat, path);
            vec![
                case.model.clone(),
                case.n.to_string(),
                case.prompt.to_string(),
                case.sharing.clone(),
                format!("{:.2}", unique / 1e6),
                format!("{:.3}", total(case, "/dram_read_bytes") / unique),
                format!("{:.2}", requested / 1e6),
                format!("{:.2}", requested / tiled),
                format!("{:.2}", flat_requested / requested),
                format!(
                    "{:.2}",
                    number(case, "/budget/cost") / number(flat, "/budget/cost")
                ),
                format!("{:.2}", ratio("/warp_instructions")),
                format!(
                    "{:.1}",
                    100.0 * total(case, "/tensor_useful") / total(case, "/tensor_products")
                ),
                format!(
                    "{:.2}",
                    100.0 * total(case, "/bank_conflicts") / total(case, "/shared_passes")
                ),
                format!("{:.3}", number(case, "/launches/0/sm_heaviest_by_mean")),
                number(case, "/budget/items").to_string(),
            ]
        })
        .collect();
    out += &table(&header, 1, &rows);
    out += "\n- *unique KV*: K and V of the tree's tokens, each once. *DRAM*: bytes read from DRAM by \
            all launches, Q, tables and partial results included, through a modelled L2.\n\
            - *requested*: K and V that thread blocks copy to shared memory. *tiled unique*: each run \
            once per 64 packed rows below it, the least that Q tiles of 64 rows read; more than 1 \
            is what the planner reads twice because an item of its own would cost more.\n\
            - *cost*: the planner's model (`kernels/src/cuda/items.rs`), all workers together. \
            *instructions*: warp instructions, the merge included.\n\
            - *useful products*: tensor-core multiply-adds whose row and column hold something but \
            zeros. A lone row of group 4 fills 4 of 16 rows.\n\
            - *heaviest SM*: by warp instructions of the attention kernel; trees too small for 132 \
            SMs leave some idle.\n";
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_compares_with_the_flat_plan_of_the_same_shape() {
        let case = |sharing: &str, items: u32| Case {
            model: "m".into(),
            n: 4,
            prompt: 512,
            sharing: sharing.into(),
            arguments: Vec::new(),
            counted: json!({
                "device": "card",
                "budget": {"unique_tokens": 10, "unique_kv_bytes": 1000, "tiled_tokens": 10,
                           "item_tokens": items, "items": 3, "cost": items},
                "launches": [{"dram_read_bytes": 1020, "warp_instructions": items,
                              "tensor_useful": 1, "tensor_products": 2, "bank_conflicts": 0,
                              "shared_passes": 5, "sm_heaviest_by_mean": 1.05}],
            }),
        };
        let results = Results {
            machine: Machine::this(),
            binary: String::new(),
            cases: vec![case("tree", 12), case("flat", 60)],
        };
        let page = page(&results);
        let row = "| m | 4 | 512 | tree | 0.00 | 1.020 | 0.00 | 1.20 | 5.00 | 0.20 | 0.20 | 50.0 | \
                   0.00 | 1.050 | 3 |";
        assert!(page.contains(row), "{page}");
    }
}
