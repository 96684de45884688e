//! A card's run beside the predictions, line by line.

use std::path::Path;

use serde::Serialize;

use super::cards::Card;
use super::case::Case;
use super::lines::Line;
use super::model::Model;
use crate::figures;

/// A measured figure beside its prediction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// The prediction.
    #[serde(flatten)]
    pub predicted: Line,
    /// What the card's run says, in the same unit.
    pub measured: f64,
}

/// A card's run beside the predictions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Measured figures with a prediction, in the order of the run.
    pub lines: Vec<Compared>,
    /// Measured figures without one.
    pub without: usize,
}

/// Reads the lines of a card's run and predicts each.
///
/// # Errors
/// A file that cannot be read; a line that is not of a run, or in another unit than the prediction, by its
/// number.
pub fn compare(path: &Path, card: &'static Card, models: &[Model]) -> Result<Comparison, String> {
    let file = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| format!("{file}: {e}"))?;
    let mut comparison = Comparison::default();
    let mut last: Option<(Case, Vec<Line>)> = None;
    for (number, measured) in figures::parse(&file.to_string(), &text)? {
        if measured.emulated {
            return Err(format!(
                "{file} line {number}: a figure of the emulator; expected those of a card"
            ));
        }
        let case = Case::parse(&measured.section, &measured.case);
        // A case's figures stand together.
        let lines = match (case, last) {
            (Some(case), Some((same, lines))) if case == same => Some((same, lines)),
            (Some(case), _) => match case.lines(card, models) {
                Ok(lines) => Some((case, lines)),
                // A model that only the run knows, or a batch that is no single pass.
                Err(_) => None,
            },
            (None, _) => None,
        };
        let mut all = lines.iter().flat_map(|(_, lines)| lines);
        match all.find(|line| line.figure == measured.figure) {
            None => comparison.without += 1,
            Some(line) if line.unit != measured.unit => {
                let (found, expected) = (measured.unit, line.unit);
                return Err(format!(
                    "{file} line {number}: unit {found}, expected {expected}"
                ));
            }
            Some(line) => comparison.lines.push(Compared {
                predicted: line.clone(),
                measured: measured.value,
            }),
        }
        last = lines;
    }
    Ok(comparison)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(text: &str) -> Result<Comparison, String> {
        let name = format!("offshoot-predict-{}-{}", std::process::id(), text.len());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("a temporary file");
        let card = Card::parse("h200").expect("a card");
        let found = compare(&path, card, &[Model::find("nano").expect("a shape")]);
        std::fs::remove_file(&path).expect("the file");
        found
    }

    #[test]
    fn figures_stand_beside_their_predictions() {
        let found = compared(concat!(
            "{\"section\": \"linear\", \"case\": \"24/3072/2048\", \"figure\": \"kernel\", \"unit\": \"us\", ",
            "\"value\": 7.5, \"more\": 1}\n",
            "{\"section\": \"linear\", \"case\": \"24/3072/2048\", \"figure\": \"torch\", \"unit\": \"us\", ",
            "\"value\": 7.5}\n\n",
            "{\"section\": \"decode\", \"case\": \"gpt-5 branches=4 prompt=16\", \"figure\": \"batch\", ",
            "\"unit\": \"ms\", \"value\": 1}\n",
            "{\"section\": \"decode\", \"case\": \"nano branches=4 prompt=16\", \"figure\": \"batch\", ",
            "\"unit\": \"ms\", \"value\": 1}\n",
            "{\"section\": \"devices\", \"case\": \"\", \"figure\": \"sms\", \"unit\": \"\", \"value\": 132}\n",
        ));
        let found = found.expect("a run");
        assert_eq!(found.without, 3);
        let figures: Vec<_> = (found.lines.iter())
            .map(|line| (line.predicted.case.as_str(), line.measured))
            .collect();
        assert_eq!(
            figures,
            [("24/3072/2048", 7.5), ("nano branches=4 prompt=16", 1.0)]
        );
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let good = "{\"section\":\"linear\",\"case\":\"1/64/64\",\"figure\":\"kernel\",\"unit\":\"us\",\"value\":1}\n";
        for (bad, words) in [
            ("{\"section\": \"linear\"", "line 2: "),
            (
                "{\"section\":\"linear\",\"case\":\"1/64/64\",\"figure\":\"kernel\",\"unit\":\"us\"}",
                "missing field `value`",
            ),
            (
                "{\"section\":\"linear\",\"case\":\"1/64/64\",\"figure\":\"kernel\",\"unit\":\"us\",\"value\":null}",
                "line 2: ",
            ),
            (
                "{\"section\":\"linear\",\"case\":\"1/64/64\",\"figure\":\"kernel\",\"unit\":\"ms\",\"value\":1}",
                "line 2: unit ms, expected us",
            ),
            (
                "{\"section\":\"linear\",\"case\":\"1/64/64\",\"figure\":\"kernel\",\"unit\":\"us\",\"value\":1,\"emulated\":true}",
                "line 2: a figure of the emulator",
            ),
            ("null", "line 2: "),
        ] {
            let error = compared(&format!("{good}{bad}\n")).expect_err(bad);
            assert!(error.contains(words), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let card = Card::parse("h200").expect("a card");
        let error = compare(Path::new("/no/such/file"), card, &[]).expect_err("no file");
        assert!(error.starts_with("/no/such/file: "), "{error}");
    }
}
