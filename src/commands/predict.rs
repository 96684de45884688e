//! `offshoot kernels predict`: batches on a card by a model with named constants.

use bench::predict::report::{Request, report};

use super::print;
use crate::error::{Done, Failure};
use crate::flags::PredictFlags;

/// Runs the command.
pub fn run(flags: &PredictFlags) -> Done {
    let request = Request {
        card: flags.card,
        models: flags.model.clone(),
        branches: flags.branches.iter().map(|&n| n as usize).collect(),
        prompt: flags.prompt as usize,
        measured: flags.measured.clone(),
        json: flags.json,
    };
    print(&report(&request).map_err(Failure::new)?)
}
