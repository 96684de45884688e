//! Tree attention counted on the emulated GPU, against a flat kernel and a two-level cascade: the
//! same kernel with other plans.
//!
//! The raw results are one JSON file; pictures and a page are generated from it. All figures are
//! counts, none is a time.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Done;
use crate::machine::{Machine, root};
use crate::markdown::table;
use crate::offshoot::Offshoot;
use crate::plot::{Lines, Series, add_point};

/// Flags of `kernels`.
#[derive(Args, Debug)]
pub struct Flags {
    /// The `offshoot` binary; the release build of this workspace unless given. The emulator's
    /// library must lie beside it.
    #[arg(long, value_name = "FILE")]
    offshoot: Option<PathBuf>,
    /// Folder for `kernels.json`, `kernels.md` and its pictures.
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
    let models = if flags.quick { &MODELS[..1] } else { &MODELS };
    let mut cases = Vec::new();
    for &(model, heads) in models {
        for n in BEAMS {
            for prompt in PROMPTS {
                for sharing in SHARING {
                    cases.push(case(&offshoot, (model, heads), n, prompt, sharing)?);
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
    let mut files = vec![
        ("kernels.json", json + "\n"),
        ("kernels.md", page(&results)),
    ];
    for picture in &PICTURES {
        files.push((picture.file, picture.lines(&results).svg()?));
    }
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// Runs one case.
fn case(
    offshoot: &Offshoot,
    (model, heads): (&str, &str),
    n: u32,
    prompt: u32,
    sharing: &str,
) -> Done<Case> {
    let words = format!(
        "kernels profile attention --json --heads {heads} --n {n} --prompt {prompt} \
         --sharing {sharing}"
    );
    eprintln!("offshoot {words}");
    let arguments: Vec<String> = words.split(' ').map(String::from).collect();
    Ok(Case {
        model: model.into(),
        n,
        prompt,
        sharing: sharing.into(),
        counted: offshoot.json(&arguments)?,
        arguments,
    })
}

/// A question of the study, and the figure that answers it.
struct Picture {
    file: &'static str,
    question: &'static str,
    /// Which plans it shows.
    sharing: &'static [&'static str],
    y: &'static str,
    limit: Option<(&'static str, f64)>,
    figure: fn(&Results, &Case) -> f64,
}

const PICTURES: [Picture; 5] = [
    Picture {
        file: "bytes.svg",
        question: "How many times is every KV byte of the tree read from DRAM?",
        sharing: &SHARING,
        y: "DRAM bytes / unique KV bytes",
        limit: Some(("target: 1.05", 1.05)),
        figure: |_, case| total(case, "/dram_read_bytes") / number(case, "/budget/unique_kv_bytes"),
    },
    Picture {
        file: "requests.svg",
        question: "How many times fewer KV bytes do SMs request than with the flat plan?",
        sharing: &["tree", "cascade"],
        y: "flat plan's requests / these",
        limit: Some(("target at N = 64, P = 512: 8", 8.0)),
        figure: |all, case| {
            number(all.flat(case), "/budget/item_tokens") / number(case, "/budget/item_tokens")
        },
    },
    Picture {
        file: "cost.svg",
        question: "What does a batch cost, relative to the flat plan?",
        sharing: &["tree", "cascade"],
        y: "warp instructions / the flat plan's",
        limit: Some(("never more than flat", 1.0)),
        figure: |all, case| {
            total(case, "/warp_instructions") / total(all.flat(case), "/warp_instructions")
        },
    },
    Picture {
        file: "balance.svg",
        question: "How evenly is the work spread over 132 SMs?",
        sharing: &["tree"],
        y: "heaviest SM / mean, warp instructions",
        limit: Some(("target: 1.10", 1.10)),
        figure: |_, case| number(case, "/launches/0/sm_heaviest_by_mean"),
    },
    Picture {
        file: "products.svg",
        question: "Which share of tensor-core multiply-adds is useful?",
        sharing: &SHARING,
        y: "useful / issued multiply-adds",
        limit: Some(("target from 16 packed rows up: 0.5", 0.5)),
        figure: |_, case| total(case, "/tensor_useful") / total(case, "/tensor_products"),
    },
];

impl Picture {
    /// The question, the range of the figure with the tree's plan, and the picture.
    fn paragraph(&self, results: &Results) -> String {
        let models = match self.sharing.len() {
            1 => "all models",
            _ => &results.cases[0].model,
        };
        let cases = results.cases.iter().filter(|c| c.sharing == "tree");
        let figures = cases.map(|case| (self.figure)(results, case));
        let (min, max) = figures.fold((f64::INFINITY, 0.0f64), |(min, max), figure| {
            (min.min(figure), max.max(figure))
        });
        format!(
            "**{question}** With the tree's plan, over all models, N and P: {y} {min:.2} to \
             {max:.2}. The picture: {models}.\n\n![{question}]({file})\n\n",
            question = self.question,
            y = self.y,
            file = self.file,
        )
    }

    fn lines(&self, results: &Results) -> Lines {
        let mut series: Vec<Series> = Vec::new();
        // All models where one plan is shown, else the first: the other models' curves are close.
        for case in &results.cases {
            let shown = self.sharing.contains(&case.sharing.as_str());
            let first = case.model == results.cases[0].model;
            if !shown || !(first || self.sharing.len() == 1) {
                continue;
            }
            let words = match self.sharing.len() {
                1 => &case.model,
                _ => &case.sharing,
            };
            let name = format!("{words}, P = {}", case.prompt);
            let point = (f64::from(case.n), (self.figure)(results, case));
            add_point(&mut series, name, point);
        }
        Lines {
            title: self.question.into(),
            x: "N, branches of the beam search".into(),
            y: self.y.into(),
            series,
            limits: (self.limit.iter())
                .map(|&(name, height)| (name.into(), height))
                .collect(),
        }
    }
}

impl Case {
    /// Bytes of K and V of a number of tokens, named by its path.
    fn kv_bytes(&self, path: &str) -> f64 {
        let unique = number(self, "/budget/unique_kv_bytes");
        number(self, path) * unique / number(self, "/budget/unique_tokens")
    }
}

impl Results {
    /// The flat plan's case of the same shape.
    fn flat<'a>(&'a self, case: &'a Case) -> &'a Case {
        let same = |c: &&Case| {
            (&c.model, c.n, c.prompt) == (&case.model, case.n, case.prompt) && c.sharing == "flat"
        };
        self.cases.iter().find(same).unwrap_or(case)
    }
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
        "# Tree attention, counted\n\nOne decode batch at the end of a beam search of 16 steps x 64 \
         tokens, M = 4, survivors at random (seed 0), one layer, emulated {}. `tree`, `cascade` and \
         `flat` are the same kernel with other plans: every level of the tree read once where it \
         pays; the common prompt read once; every branch for itself. Counts, not times: nothing \
         here was measured on hardware.\n\nMade by `cargo run --release -p offshoot-bench -- \
         kernels` at {} on {}.\n\n",
        results.cases[0].counted["device"].as_str().unwrap_or("GPU"),
        results.machine.commit,
        results.machine.cpu,
    );
    for picture in &PICTURES {
        out += &picture.paragraph(results);
    }
    let header: Vec<String> = COLUMNS.map(|(name, _)| name.to_string()).to_vec();
    let cells = |case: &Case| COLUMNS.map(|(_, cell)| cell(results, case)).to_vec();
    let rows: Vec<Vec<String>> = results.cases.iter().map(cells).collect();
    out += &table(&header, 1, &rows);
    out + LEGEND
}

/// The cell of a case in a column.
type Cell = fn(&Results, &Case) -> String;

/// The table's columns.
const COLUMNS: [(&str, Cell); 15] = [
    ("model", |_, case| case.model.clone()),
    ("N", |_, case| case.n.to_string()),
    ("P", |_, case| case.prompt.to_string()),
    ("plan", |_, case| case.sharing.clone()),
    ("unique KV MB", |_, case| {
        format!("{:.2}", number(case, "/budget/unique_kv_bytes") / 1e6)
    }),
    ("DRAM / unique", |_, case| {
        let unique = number(case, "/budget/unique_kv_bytes");
        format!("{:.3}", total(case, "/dram_read_bytes") / unique)
    }),
    ("requested MB", |_, case| {
        format!("{:.2}", case.kv_bytes("/budget/item_tokens") / 1e6)
    }),
    ("requested / tiled unique", |_, case| {
        let tiled = case.kv_bytes("/budget/tiled_tokens");
        format!("{:.2}", case.kv_bytes("/budget/item_tokens") / tiled)
    }),
    ("flat requests / these", |all, case| {
        let flat = number(all.flat(case), "/budget/item_tokens");
        format!("{:.2}", flat / number(case, "/budget/item_tokens"))
    }),
    ("cost / flat", |all, case| {
        let flat = number(all.flat(case), "/budget/cost");
        format!("{:.2}", number(case, "/budget/cost") / flat)
    }),
    ("instructions / flat", |all, case| {
        let flat = total(all.flat(case), "/warp_instructions");
        format!("{:.2}", total(case, "/warp_instructions") / flat)
    }),
    ("useful multiply-adds %", |_, case| {
        let issued = total(case, "/tensor_products");
        format!("{:.1}", 100.0 * total(case, "/tensor_useful") / issued)
    }),
    ("bank conflicts %", |_, case| {
        let passes = total(case, "/shared_passes");
        format!("{:.2}", 100.0 * total(case, "/bank_conflicts") / passes)
    }),
    ("heaviest SM / mean", |_, case| {
        format!("{:.3}", number(case, "/launches/0/sm_heaviest_by_mean"))
    }),
    ("items", |_, case| number(case, "/budget/items").to_string()),
];

const LEGEND: &str = "\n- *unique KV*: K and V of the tree's tokens, each once. *DRAM*: bytes read from DRAM by all \
     launches, Q, tables and partial results included, through a modelled L2.\n\
     - *requested*: K and V that thread blocks copy to shared memory. *tiled unique*: each run once \
     per 128 packed rows below it (64 where D >= 128), the minimum that Q tiles read; above 1, the \
     planner reads tokens twice because an item of their own would cost more.\n\
     - *cost*: the planner's model (`kernels/src/cuda/items.rs`), all workers together. \
     *instructions*: warp instructions, the merge included.\n\
     - *useful multiply-adds*: those of tensor cores whose row and column are not padding. A single \
     row of group 4 fills 4 of 16 rows.\n\
     - *heaviest SM*: by warp instructions of the attention kernel; trees too small for 132 SMs leave \
     some idle.\n";

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
        for picture in &PICTURES {
            let svg = picture.lines(&results).svg().expect("a picture");
            assert!(svg.contains(picture.question), "{}", picture.file);
            assert!(page.contains(picture.file), "{}", picture.file);
        }
    }
}
