//! Sweeps: policies, PRMs, strategies, budgets and seeds over a problem set.
//!
//! [`Grid`] says what is to be run, [`Folder`] keeps it (a file of [`Record`]s a cell), [`Cells`] runs
//! it. Results do not depend on what else runs, on threads or on where a sweep was interrupted.

mod families;
mod folder;
mod grid;
mod learn;
mod record;
mod run;
mod searches;
mod summary;
mod timing;

pub use families::Goal;
pub use folder::{
    CellFile, Folder, Manifest, Pair, Stored, problems_hash, read_cells, read_manifest,
    read_records,
};
pub use grid::{Cell, Grid, NamedPlan, Seeds};
pub use learn::Learnt;
pub use record::{Judged, Rates, Record, SCHEMA};
pub use run::{Cells, Watch};
pub use searches::{Found, Searches, Unit};
pub use summary::{
    Difficulty, Filled, ProblemDifficulty, Row, average, deviation, difficulties, rows,
};
pub use timing::{Timing, read_timings};
