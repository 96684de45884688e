//! How long the configurations of a sweep take, each alone on the machine.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::folder::{Folder, problem};
use super::grid::Cell;
use crate::Error;

/// The file beside the results. It holds times, so no two runs give the same.
const FILE: &str = "timings.jsonl";

/// How long a configuration took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The policy.
    pub policy: String,
    /// The PRM, if any.
    pub prm: Option<String>,
    /// The strategy with its options.
    pub configuration: String,
    /// N.
    pub n: usize,
    /// The seed.
    pub seed: u64,
    /// The first problems of the set, so many.
    pub problems: usize,
    /// Seconds for all of them, with models loaded.
    pub seconds: f64,
    /// The most bytes of KV cache that branches held at once, policy and PRM together.
    pub kv_peak_bytes: u64,
    /// The device.
    pub machine: String,
}

impl Timing {
    /// Whether it is that of a cell's search with some N.
    pub fn is_of(&self, cell: &Cell, n: usize, problems: usize) -> bool {
        let named = (&self.policy, &self.prm, &self.configuration);
        named == (&cell.policy, &cell.prm, &cell.configuration)
            && (self.n, self.seed, self.problems) == (n, cell.search.seed, problems)
    }
}

/// The times that a sweep's folder has.
///
/// # Errors
/// A file that cannot be read or holds something else.
pub fn read_timings(folder: &Path) -> Result<Vec<Timing>, Error> {
    let path = folder.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(problem(&path, None, e.to_string())),
    };
    let line = |(number, line)| {
        let timing: Result<Timing, _> = serde_json::from_str(line);
        timing.map_err(|e| problem(&path, Some(number), format!("not a time of a sweep: {e}")))
    };
    (1..).zip(text.lines()).map(line).collect()
}

impl Folder {
    /// The times that are there.
    ///
    /// # Errors
    /// As [`read_timings`].
    pub fn timings(&self) -> Result<Vec<Timing>, Error> {
        read_timings(&self.file(""))
    }

    /// Puts times there, in place of those that are.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write_timings(&self, timings: &[Timing]) -> Result<(), Error> {
        let mut bytes = Vec::new();
        for timing in timings {
            serde_json::to_writer(&mut bytes, timing).map_err(|e| self.failed(e.into()))?;
            bytes.push(b'\n');
        }
        self.write(FILE, &bytes)
    }
}
