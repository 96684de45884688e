//! The folder of a sweep: a file of records for each cell, and `sweep.json`, which says what they are.
//!
//! A record is appended as soon as its problem ends, to a file that ends in `.part`. Once every problem
//! is there, the records are put into the order of the problems and the file gets its final name, so
//! that an interrupted sweep ends in the same bytes as an uninterrupted one. What a crash cut short is
//! run again. No file holds a time.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use strategies::Problem;

use super::grid::Cell;
use super::record::{Record, SCHEMA};
use crate::Error;
use crate::results::Settings;

/// What is in a sweep's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// How many problems.
    pub problems: usize,
    /// A hash of their ids, texts and answers (FNV-1a, 64 bits).
    pub problems_hash: String,
    /// What decides the results of each pair of models but the search, in the order of their cells.
    pub pairs: Vec<Pair>,
    /// The cells in their order, with the names of their files.
    pub cells: Vec<CellFile>,
}

/// Two models as they ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Names, sizes, device and all else that decides results; its search is the first cell's.
    pub settings: Settings,
    /// What their rows cost.
    pub rates: super::record::Rates,
}

/// A cell and its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellFile {
    /// The file's name in the folder.
    pub file: String,
    /// The cell.
    #[serde(flatten)]
    pub cell: Cell,
}

/// A sweep's folder, locked.
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

/// A cell's records as far as they are there.
pub struct Stored {
    /// By the problem's place: whether it is done.
    pub done: Vec<bool>,
    /// Whether the cell has its final file.
    pub finished: bool,
}

impl Stored {
    /// Problems that are there.
    pub fn count(&self) -> usize {
        self.done.iter().filter(|&&done| done).count()
    }
}

impl Folder {
    /// Opens or makes a folder; no other process may have it open.
    ///
    /// # Errors
    /// A folder that cannot be made or that another sweep is writing.
    pub fn open(path: &Path) -> Result<Folder, Error> {
        let failed = |e: io::Error| problem(path, None, e.to_string());
        std::fs::create_dir_all(path).map_err(failed)?;
        let lock = (OpenOptions::new().write(true).create(true).truncate(false))
            .open(path.join(".lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                Err(problem(path, None, "another sweep is writing this folder"))
            }
            // ENOLCK and the like: a network file system without locks.
            Err(TryLockError::Error(_)) | Ok(()) => Ok(Folder {
                path: path.into(),
                _lock: lock,
            }),
        }
    }

    /// What is there; `None` in a new folder.
    ///
    /// # Errors
    /// A file that is no manifest, or one of a newer version.
    pub fn manifest(&self) -> Result<Option<Manifest>, Error> {
        let path = self.path.join("sweep.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(problem(&path, None, e.to_string())),
        };
        read_manifest(&path, &bytes).map(Some)
    }

    /// Refuses a folder of other problems, or with a cell of this sweep's name and other options.
    ///
    /// # Errors
    /// What differs.
    pub fn must_fit(&self, there: &Manifest, here: &Manifest) -> Result<(), Error> {
        let refuse = |why: String| Err(problem(&self.path, None, why + "; name another folder"));
        if (there.problems, &there.problems_hash) != (here.problems, &here.problems_hash) {
            return refuse(format!(
                "made with other problems ({} there, {} here)",
                there.problems, here.problems
            ));
        }
        let known: HashMap<&str, &Cell> = (there.cells.iter())
            .map(|there| (there.file.as_str(), &there.cell))
            .collect();
        for CellFile { file, cell } in &here.cells {
            if let Some(there) = known.get(file.as_str())
                && *there != cell
            {
                return refuse(format!("{file} was made with other options"));
            }
        }
        Ok(())
    }

    /// Refuses models that are not those of the folder.
    ///
    /// # Errors
    /// The setting that differs.
    pub fn must_be(&self, there: &Pair, here: &Pair) -> Result<(), Error> {
        // The search of a pair is that of its first cell, which another grid changes.
        let there = Settings {
            search: here.settings.search.clone(),
            ..there.settings.clone()
        };
        match crate::results::difference(&there, &here.settings) {
            None => Ok(()),
            Some(difference) => Err(problem(
                &self.path,
                None,
                format!("made with other settings ({difference}); name another folder"),
            )),
        }
    }

    /// Puts `sweep.json` there.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(manifest).map_err(|e| self.failed(e.into()))?;
        self.write("sweep.json", &[json, b"\n".to_vec()].concat())
    }

    /// Puts a file there, in one piece.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let temporary = self.path.join(format!(".{name}.new"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            std::fs::rename(&temporary, self.path.join(name))
        };
        write().map_err(|e| problem(&self.path.join(name), None, e.to_string()))
    }

    /// The path of a file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What is there of a cell. What a crash left half written is cut off.
    ///
    /// # Errors
    /// A file that cannot be read or holds something else.
    pub fn stored(&self, cell: &CellFile, problems: &[Problem]) -> Result<Stored, Error> {
        let finished = self.path.join(&cell.file).exists();
        let path = match finished {
            true => {
                // A crash may have left it there; the final file has all of it.
                let _ = std::fs::remove_file(self.part(cell));
                self.path.join(&cell.file)
            }
            false => self.part(cell),
        };
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(problem(&path, None, e.to_string())),
        };
        let budgets = cell.cell.budgets();
        let (records, end) = whole_records(&path, &bytes, &budgets)?;
        if end < bytes.len() {
            let cut = OpenOptions::new().write(true).open(&path);
            cut.and_then(|file| file.set_len(end as u64))
                .map_err(|e| problem(&path, None, e.to_string()))?;
        }
        let there: HashSet<&str> = records.iter().map(|record| record.id.as_str()).collect();
        let done = problems.iter().map(|p| there.contains(p.id.as_str()));
        Ok(Stored {
            done: done.collect(),
            finished,
        })
    }

    /// Appends a problem's records to a cell that is not whole.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn append(&self, cell: &CellFile, records: &[Record]) -> Result<(), Error> {
        let path = self.part(cell);
        let mut bytes = Vec::new();
        for record in records {
            serde_json::to_writer(&mut bytes, record).map_err(|e| self.failed(e.into()))?;
            bytes.push(b'\n');
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(&bytes))
            .map_err(|e| problem(&path, None, e.to_string()))
    }

    /// Gives a cell whose every problem is there its final file.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn finish(&self, cell: &CellFile, problems: &[Problem]) -> Result<(), Error> {
        let part = self.part(cell);
        let bytes = std::fs::read(&part).map_err(|e| problem(&part, None, e.to_string()))?;
        let rank: HashMap<&str, usize> = (problems.iter().enumerate())
            .map(|(place, problem)| (problem.id.as_str(), place))
            .collect();
        let mut lines: Vec<(usize, &[u8])> = Vec::new();
        for (record, line) in lines_of(&bytes) {
            let record = record.map_err(|why| problem(&part, None, why))?;
            if let Some(&place) = rank.get(record.id.as_str()) {
                lines.push((place, line));
            }
        }
        // Stable: the budgets of a problem stay in their order.
        lines.sort_by_key(|(place, _)| *place);
        let sorted: Vec<u8> = (lines.iter())
            .flat_map(|(_, line)| line.iter().copied().chain([b'\n']))
            .collect();
        self.write(&cell.file, &sorted)?;
        std::fs::remove_file(&part).map_err(|e| problem(&part, None, e.to_string()))
    }

    fn part(&self, cell: &CellFile) -> PathBuf {
        self.path.join(format!("{}.part", cell.file))
    }

    pub(super) fn failed(&self, error: io::Error) -> Error {
        problem(&self.path, None, error.to_string())
    }
}

/// The records of a cell's file.
///
/// # Errors
/// A line that is no record.
pub fn read_records(path: &Path) -> Result<Vec<Record>, Error> {
    let bytes = std::fs::read(path).map_err(|e| problem(path, None, e.to_string()))?;
    (1..)
        .zip(lines_of(&bytes))
        .map(|(line, (record, _))| record.map_err(|why| problem(path, Some(line), why)))
        .collect()
}

/// The cells of a manifest's folder that are whole, with their records.
///
/// # Errors
/// As [`read_records`].
pub fn read_cells(folder: &Path, manifest: &Manifest) -> Result<Vec<(Cell, Vec<Record>)>, Error> {
    let whole = (manifest.cells.iter()).filter(|cell| folder.join(&cell.file).exists());
    whole
        .map(|cell| Ok((cell.cell.clone(), read_records(&folder.join(&cell.file))?)))
        .collect()
}

/// Reads a manifest.
///
/// # Errors
/// A file that is none, or one of a newer version.
pub fn read_manifest(path: &Path, bytes: &[u8]) -> Result<Manifest, Error> {
    #[derive(Deserialize)]
    struct Version {
        schema: u32,
    }
    let other = |e: serde_json::Error| problem(path, None, format!("not a sweep's manifest: {e}"));
    let Version { schema } = serde_json::from_slice(bytes).map_err(other)?;
    if schema > SCHEMA {
        let why = format!("written by a newer offshoot (schema {schema}, this one reads {SCHEMA})");
        return Err(problem(path, None, why));
    }
    serde_json::from_slice(bytes).map_err(other)
}

/// The lines of a file: each as a record, or why it is none.
fn lines_of(bytes: &[u8]) -> impl Iterator<Item = (Result<Record, String>, &[u8])> {
    let lines = bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| {
        let record: Result<Record, _> = serde_json::from_slice(line);
        let record = record.map_err(|e| format!("not a record of a sweep: {e}"));
        let record = record.and_then(|record| match record.schema {
            SCHEMA => Ok(record),
            other => Err(format!("a record of schema {other}, expected {SCHEMA}")),
        });
        (record, line)
    })
}

/// The last records of the problems that are there with all budgets, and the bytes up to the end of the
/// last of them.
fn whole_records(
    path: &Path,
    bytes: &[u8],
    budgets: &[usize],
) -> Result<(Vec<Record>, usize), Error> {
    let (mut whole, mut end, mut at) = (Vec::new(), 0, 0);
    let mut expected = budgets.iter().cycle();
    for (number, line) in (1..).zip(bytes.split_inclusive(|&b| b == b'\n')) {
        at += line.len();
        let record = match lines_of(line).next() {
            Some((Ok(record), _)) if line.ends_with(b"\n") => record,
            // The end of the last write.
            _ if at == bytes.len() => break,
            Some((Err(why), _)) => return Err(problem(path, Some(number), why)),
            _ => continue,
        };
        if expected.next() != Some(&record.n) {
            let why = format!("a record of N = {}, which is not its turn", record.n);
            return Err(problem(path, Some(number), why));
        }
        if Some(&record.n) == budgets.last() {
            whole.push(record);
            end = at;
        }
    }
    Ok((whole, end))
}

pub(super) fn problem(path: &Path, line: Option<usize>, problem: impl Into<String>) -> Error {
    Error::File {
        setting: "out",
        file: path.display().to_string(),
        line,
        problem: problem.into(),
    }
}

/// A hash of the problems' ids, texts and answers.
pub fn problems_hash(problems: &[Problem]) -> String {
    let mut hash = 0;
    for problem in problems {
        let answer = problem.answer.as_deref().unwrap_or_default();
        for text in [&problem.id, &problem.problem, answer] {
            hash = strategies::stream(hash, text);
        }
    }
    format!("{hash:016x}")
}
