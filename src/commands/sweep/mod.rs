//! `offshoot sweep`: policies, PRMs, strategies, N and seeds over a problem set.

mod parquet;
mod pilot;
mod progress;
mod report;
mod timed;

use session::Session;
use session::results::Settings;
use session::sweep::{
    Cell, CellFile, Cells, Folder, Grid, Manifest, Pair, Rates, SCHEMA, Stored, problems_hash,
};
use strategies::Problem;

use self::progress::Progress;
pub use self::report::short;
use super::{read_problems, say_notes};
use crate::downloads::Downloads;
use crate::error::{Done, Failure};
use crate::flags::SweepFlags;

/// Runs the command.
pub fn run(flags: &SweepFlags) -> Done {
    let (grid, cells) = grid(flags)?;
    let (problems, malformed) = read_problems(grid.problems.as_deref(), grid.limit, true)?;
    debug_assert_eq!(malformed, 0, "the first one ends the command");
    let groups = groups(cells);
    let Some(out) = flags.out.as_deref().filter(|_| !flags.dry_run) else {
        return pilot::run(flags, &groups, &problems);
    };
    let folder = Folder::open(out)?;
    let mut manifest = manifest(&folder, &groups, &problems)?;
    let mut stored = Vec::new();
    for group in &groups {
        let stored_of = |cell| folder.stored(cell, &problems);
        let of_group: Result<Vec<Stored>, _> = group.cells.iter().map(stored_of).collect();
        stored.push(of_group?);
    }
    let mut progress = Progress::new(&groups, &stored, out, problems.len());
    let mut failed = 0;
    for (group, stored) in groups.iter().zip(&mut stored) {
        if stored.iter().all(|cell| cell.finished) && group.pair(&manifest).is_some() {
            progress.next_group(group);
            continue;
        }
        let session = open(flags, group)?;
        grid.plans_must_fit(&group.cells, session.info())?;
        let rates = join(&folder, &mut manifest, group, flags, &session)?;
        let mut cells = Cells {
            cells: &group.cells,
            stored,
            rates,
        };
        let ran = cells.run(&session, &folder, &problems, &mut progress);
        failed += futures::executor::block_on(ran)?;
        progress.next_group(group);
    }
    progress.end();
    if failed > 0 {
        let searches = if failed == 1 { "search" } else { "searches" };
        return Err(Failure::new(format!(
            "{failed} {searches} failed; {} has the others, and the same command runs what is missing",
            out.display()
        )));
    }
    timed::run(flags, &folder, &groups, &problems)?;
    report::run(flags, &folder, &manifest)
}

/// The grid and its cells.
fn grid(flags: &SweepFlags) -> Done<(Grid, Vec<Cell>)> {
    let grid = flags.grid()?;
    let cells = grid.cells().map_err(|error| match &flags.config {
        // The settings stand in the file, not on the command line.
        Some(path) => Failure::new(format!("--config {}: {error}", path.display())),
        None => error.into(),
    })?;
    Ok((grid, cells))
}

/// The cells of one session: a policy and a PRM, or a policy alone.
struct Group {
    policy: String,
    prm: Option<String>,
    cells: Vec<CellFile>,
}

impl Group {
    /// Its pair in a manifest.
    fn pair<'a>(&self, manifest: &'a Manifest) -> Option<&'a Pair> {
        let is_it =
            |pair: &&Pair| pair.settings.policy == self.policy && (pair.settings.prm == self.prm);
        manifest.pairs.iter().find(is_it)
    }
}

/// The cells by the session that runs them. Cells without a PRM run beside those of their policy's first
/// PRM.
fn groups(cells: Vec<Cell>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let (with, without): (Vec<Cell>, Vec<Cell>) = cells.into_iter().partition(|c| c.prm.is_some());
    for cell in with.into_iter().chain(without) {
        let fits = |group: &Group| {
            group.policy == cell.policy && (cell.prm.is_none() || group.prm == cell.prm)
        };
        let at = groups.iter().position(fits).unwrap_or_else(|| {
            groups.push(Group {
                policy: cell.policy.clone(),
                prm: cell.prm.clone(),
                cells: Vec::new(),
            });
            groups.len() - 1
        });
        let file = cell.file_stem() + ".jsonl";
        groups[at].cells.push(CellFile { file, cell });
    }
    groups
}

/// The folder's manifest with the new cells.
fn manifest(folder: &Folder, groups: &[Group], problems: &[Problem]) -> Done<Manifest> {
    let here = Manifest {
        schema: SCHEMA,
        problems: problems.len(),
        problems_hash: problems_hash(problems),
        pairs: Vec::new(),
        cells: groups
            .iter()
            .flat_map(|group| group.cells.clone())
            .collect(),
    };
    let Some(mut there) = folder.manifest()? else {
        return Ok(here);
    };
    folder.must_fit(&there, &here)?;
    let new = here.cells.into_iter();
    let new: Vec<CellFile> = new.filter(|cell| !there.cells.contains(cell)).collect();
    there.cells.extend(new);
    Ok(there)
}

fn open(flags: &SweepFlags, group: &Group) -> Done<Session> {
    let options = flags.session(&group.policy, group.prm.as_deref());
    let session = Session::open_watched(&options, &mut Downloads::default())?;
    session.info().must_take_problems()?;
    say_notes(session.info());
    Ok(session)
}

/// Puts a session's models into the manifest, or checks that they are those that are there; what their
/// rows cost.
fn join(
    folder: &Folder,
    manifest: &mut Manifest,
    group: &Group,
    flags: &SweepFlags,
    session: &Session,
) -> Done<Rates> {
    let usages = futures::executor::block_on(session.usage())?;
    let rates = |usage: Option<session::ModelUsage>| usage.map(|usage| usage.rates);
    let rates = Rates {
        policy: rates(usages.policy).unwrap_or_default(),
        prm: rates(usages.prm).unwrap_or_default(),
    };
    let options = flags.session(&group.policy, group.prm.as_deref());
    let scored = (group.cells.iter()).find(|cell| cell.cell.prm == group.prm);
    let Some(cell) = scored.or(group.cells.first()) else {
        return Ok(rates);
    };
    let here = Pair {
        settings: Settings::new(&options, session.info(), &cell.cell.search),
        rates,
    };
    match group.pair(manifest) {
        Some(there) => folder.must_be(there, &here)?,
        None => manifest.pairs.push(here),
    }
    folder.write_manifest(manifest)?;
    Ok(rates)
}

/// `nano-small + nano-prm, beam N = 16`.
fn label(cell: &Cell, n: usize) -> String {
    let prm = cell.prm.as_deref().map(|prm| format!(" + {prm}"));
    let (policy, prm) = (&cell.policy, prm.unwrap_or_default());
    format!("{policy}{prm}, {} N = {n}", cell.configuration)
}

/// A file's name as errors say it.
fn shown(folder: &Folder, name: &str) -> String {
    format!("--out {}", folder.file(name).display())
}
