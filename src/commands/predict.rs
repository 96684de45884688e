//! `offshoot kernels predict`: batches on a card by a model with named constants.

use bench::predict::model::Model;
use bench::predict::{self, measured, table};

use super::{print, print_json};
use crate::error::{Done, Failure};
use crate::flags::PredictFlags;

/// Runs the command.
pub fn run(flags: &PredictFlags) -> Done {
    let model =
        |word: &String| Model::find(word).map_err(|why| Failure::new(format!("--model {why}")));
    let models: Vec<Model> = flags.model.iter().map(model).collect::<Done<_>>()?;
    let branches: Vec<usize> = flags.branches.iter().map(|&n| n as usize).collect();
    let prompt = flags.prompt as usize;
    let failed = |why: String| Failure::new(format!("--branches: {why}"));
    let compared = match &flags.measured {
        Some(path) => {
            let found = measured::compare(path, flags.card, &models);
            Some(found.map_err(|why| Failure::new(format!("--measured {why}")))?)
        }
        None => None,
    };
    if flags.json {
        let predicted = predict::predict(flags.card, &models, &branches, prompt);
        let mut predicted = predicted.map_err(failed)?;
        predicted.measured = compared;
        return print_json(&predicted);
    }
    let mut text = String::new();
    for model in &models {
        let rows = predict::batches(flags.card, model, &branches, prompt).map_err(failed)?;
        text += &table::batches(flags.card, &model.name, prompt, &rows);
        text += "\n";
    }
    if let Some(found) = &compared {
        text += &table::comparison(found);
        text += "\n";
    }
    text += &table::assumptions(flags.card);
    print(&text)
}
