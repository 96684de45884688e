//! What `offshoot kernels predict` prints.

use std::path::PathBuf;

use super::cards::Card;
use super::model::Model;
use super::{batches, measured, predict, table};
use crate::Done;

/// What to predict.
#[derive(Clone, Debug)]
pub struct Request {
    /// The card.
    pub card: &'static Card,
    /// Shapes' words, configs or their folders.
    pub models: Vec<String>,
    /// Branches of the decode batches.
    pub branches: Vec<usize>,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// A card's run to put beside the predictions.
    pub measured: Option<PathBuf>,
    /// Whether to print one JSON object.
    pub json: bool,
}

/// The predictions as text or as one JSON object, with a line feed at the end.
///
/// # Errors
/// A model, a number of branches or a run that cannot be used: one sentence that begins with the flag.
pub fn report(request: &Request) -> Done<String> {
    let Request {
        card,
        ref branches,
        prompt,
        ..
    } = *request;
    let model = |word: &String| Model::find(word).map_err(|why| format!("--model {why}"));
    let models: Vec<Model> = request.models.iter().map(model).collect::<Done<_>>()?;
    let failed = |why: String| format!("--branches: {why}");
    let compared = match &request.measured {
        Some(path) => {
            let found = measured::compare(path, card, &models);
            Some(found.map_err(|why| format!("--measured {why}"))?)
        }
        None => None,
    };
    if request.json {
        let mut predicted = predict(card, &models, branches, prompt).map_err(failed)?;
        predicted.measured = compared;
        let text = serde_json::to_string(&predicted).map_err(|e| e.to_string())?;
        return Ok(text + "\n");
    }
    let mut text = String::new();
    for model in &models {
        let rows = batches(card, model, branches, prompt).map_err(failed)?;
        text += &table::batches(card, &model.name, prompt, &rows);
        text += "\n";
    }
    if let Some(found) = &compared {
        text += &table::comparison(found);
        text += "\n";
    }
    Ok(text + &table::assumptions(card))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn request() -> Request {
        Request {
            card: Card::parse("h200").expect("a card"),
            models: vec!["nano".into(), "qwen2.5-0.5b".into()],
            branches: vec![1, 4],
            prompt: 64,
            measured: None,
            json: false,
        }
    }

    /// A file of a card's run.
    fn run(name: &str, text: &str) -> PathBuf {
        let name = format!("offshoot-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("a temporary file");
        path
    }

    const LINE: &str = "{\"section\": \"ceilings\", \"case\": \"read\", \"figure\": \"bandwidth\", \
                        \"unit\": \"TB/s\", \"value\": 4.9}\n";

    #[test]
    fn a_report_is_text_or_json_with_every_assumption() {
        let text = report(&request()).expect("a report");
        for words in [
            "nano on H200, prompt 64: predicted, not measured",
            "qwen2.5-0.5b on H200",
            "decode, 4 branches",
        ] {
            assert!(text.contains(words), "{text}");
        }
        let json = report(&Request {
            json: true,
            ..request()
        });
        let json: Value = serde_json::from_str(&json.expect("a report")).expect("JSON");
        assert_eq!(json["card"], "h200");
        assert_eq!(json.get("measured"), None);
        let assumptions = json["assumptions"].as_array().expect("assumptions");
        assert_eq!(assumptions.len(), request().card.assumptions().count());
        for assumption in assumptions {
            let name = assumption["name"].as_str().expect("a name");
            assert!(text.contains(name), "{name}");
        }
        let lines = json["lines"].as_array().expect("lines");
        let batch = |line: &&Value| line["case"] == "qwen2.5-0.5b branches=4 prompt=64";
        let figures: Vec<_> = lines
            .iter()
            .filter(batch)
            .map(|line| &line["figure"])
            .collect();
        assert_eq!(figures.len(), 7, "{figures:?}");
    }

    #[test]
    fn a_run_stands_beside_the_predictions() {
        let path = run("beside.jsonl", LINE);
        let text = report(&Request {
            measured: Some(path.clone()),
            ..request()
        });
        std::fs::remove_file(path).expect("the file");
        let text = text.expect("a report");
        let row = text
            .lines()
            .find(|line| line.contains("4.20-4.40") && line.contains("4.90"));
        assert!(row.is_some_and(|row| row.contains("above")), "{text}");
        assert!(
            text.contains("0 measured figures have no prediction"),
            "{text}"
        );
    }

    #[test]
    fn errors_begin_with_their_flag() {
        let path = run("bad.jsonl", &format!("{LINE}hello\n"));
        let cases = [
            (
                Request {
                    models: vec!["gpt-5".into()],
                    ..request()
                },
                "--model gpt-5: expected one of",
            ),
            (
                Request {
                    branches: vec![4096],
                    ..request()
                },
                "--branches: 4096 branches of nano",
            ),
            (
                Request {
                    branches: vec![4096],
                    json: true,
                    ..request()
                },
                "--branches: 4096 branches of nano",
            ),
            (
                Request {
                    measured: Some(path.clone()),
                    ..request()
                },
                "--measured ",
            ),
        ];
        for (request, words) in cases {
            let error = report(&request).expect_err(words);
            assert!(error.starts_with(words), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        std::fs::remove_file(path).expect("the file");
    }
}
