//! The results of a measurement: one JSON object, a table, pictures.

use std::path::{Path, PathBuf};

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::Done;
use crate::limits::Limits;
use crate::machine::{Machine, today};
use crate::markdown;

/// Where results go.
#[derive(Args, Clone, Debug, Default)]
pub struct Output {
    /// Print one JSON object on standard output instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Write the JSON object, the table in Markdown and the plots in SVG into FOLDER.
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
}

/// The machine a figure was taken on, and how busy it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Processor, cores, system, commit.
    #[serde(flatten)]
    pub machine: Machine,
    /// Bytes of memory; 0 where it is not known.
    pub memory_bytes: u64,
    /// Bytes of the processor's caches by level, as the first core sees them; empty where it is not
    /// known.
    pub cache_bytes: Vec<u64>,
    /// The load average of the last minute when the measurement began; `None` where it is not
    /// known. Above 0 before a run means that the machine was shared.
    pub load_before: Option<f64>,
}

impl Host {
    /// This machine, now.
    pub fn this() -> Host {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let memory = read("/proc/meminfo");
        let total = memory.lines().find_map(|l| l.strip_prefix("MemTotal:"));
        let caches = (0..8).filter_map(|index| {
            let folder = format!("/sys/devices/system/cpu/cpu0/cache/index{index}");
            let kind = read(&format!("{folder}/type"));
            let wanted = matches!(kind.trim(), "Data" | "Unified");
            wanted.then(|| size(read(&format!("{folder}/size")).trim()))?
        });
        Host {
            machine: Machine::this(),
            memory_bytes: total.and_then(size).unwrap_or(0),
            cache_bytes: caches.collect(),
            load_before: (read("/proc/loadavg").split(' ').next())
                .and_then(|word| word.parse().ok()),
        }
    }
}

/// Bytes of a size such as `32768K` or `16 kB`.
fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim_start().chars().next() {
        None => 1,
        Some('k' | 'K') => 1 << 10,
        Some('m' | 'M') => 1 << 20,
        Some('g' | 'G') => 1 << 30,
        Some(_) => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Peak memory of this process, in bytes; `None` where the system does not report it.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    size(status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?)
}

/// A measurement, with the command, machine and limits that are needed to judge it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report<S, R> {
    /// The measurement's name.
    pub study: String,
    /// The command line.
    pub command: String,
    /// The day, in UTC.
    pub date: String,
    /// The machine.
    pub host: Host,
    /// The device in words.
    pub device: String,
    /// The machine's limits, measured in this run, by number of threads.
    pub limits: Vec<Limits>,
    /// The settings of all rows.
    pub settings: S,
    /// The figures.
    pub rows: Vec<R>,
}

impl<S: Serialize, R: Serialize> Report<S, R> {
    /// A report without rows.
    pub fn new(study: &str, device: String, limits: Vec<Limits>, settings: S) -> Report<S, R> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        Report {
            study: study.into(),
            command: format!("offshoot {}", words.join(" ")),
            date: today(),
            host: Host::this(),
            device,
            limits,
            settings,
            rows: Vec::new(),
        }
    }

    /// Machine and limits, a line each.
    fn head(&self) -> String {
        let host = &self.host;
        let load = host.load_before.map_or(String::new(), |load| {
            format!(", load {load:.2} before the run")
        });
        let mut head = format!("{}; {}{load}\n", self.device, host.machine.words());
        for limits in &self.limits {
            head += &format!("{}\n", limits.words());
        }
        head
    }

    /// Writes the files of `output` and returns the text to print. The table is its header, the
    /// number of its first columns that hold text, and its rows. The name of a plot becomes part of
    /// its file's name.
    ///
    /// # Errors
    /// A folder or file that cannot be written.
    pub fn give(
        &self,
        output: &Output,
        (header, words, rows): (&[&str], usize, &[Vec<String>]),
        plots: &[(String, String)],
    ) -> Done<String> {
        if let Some(folder) = &output.out {
            self.write(folder, (header, words, rows), plots)?;
        }
        if output.json {
            let text = serde_json::to_string(self).map_err(|e| e.to_string())?;
            return Ok(text + "\n");
        }
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_header(header.to_vec());
        for row in rows {
            table.add_row(row.clone());
        }
        for column in table.column_iter_mut().skip(words) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        Ok(format!("{}\n{table}\n", self.head()))
    }

    /// Writes JSON, Markdown and plots into a folder.
    fn write(
        &self,
        folder: &Path,
        (header, words, rows): (&[&str], usize, &[Vec<String>]),
        plots: &[(String, String)],
    ) -> Done {
        let io = |path: &Path, e: std::io::Error| format!("--out {}: {e}", path.display());
        std::fs::create_dir_all(folder).map_err(|e| io(folder, e))?;
        let write = |name: String, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|e| io(&path, e))
        };
        let json = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        write(format!("{}.json", self.study), &(json + "\n"))?;
        let mut page = format!("# {}\n\n", self.study);
        for line in self.head().lines() {
            page += &format!("{line}\n\n");
        }
        page += &format!(
            "Made by `{}` at commit {}.\n\n",
            self.command, self.host.machine.commit
        );
        let header: Vec<String> = header.iter().map(|h| h.to_string()).collect();
        page += &markdown::table(&header, words, rows);
        for (name, svg) in plots {
            let file = format!("{}-{name}.svg", self.study);
            page += &format!("\n![{name}]({file})\n");
            write(file, svg)?;
        }
        write(format!("{}.md", self.study), &page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("512K", Some(512 << 10)),
            ("  24000000 kB", Some(24_000_000 << 10)),
            ("3M", Some(3 << 20)),
            ("17", Some(17)),
            ("", None),
            ("K", None),
            ("7 apples", None),
            ("99999999999999999999", None),
            ("18446744073709551615K", None),
        ] {
            assert_eq!(size(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn a_report_is_written_and_printed() {
        let folder = std::env::temp_dir().join(format!("offshoot-report-{}", std::process::id()));
        let mut report = Report::new("sums", "CPU".into(), Vec::new(), "settings".to_string());
        report.rows = vec![1, 2];
        let output = |json| Output {
            json,
            out: Some(folder.join("new")),
        };
        let rows = [vec!["a".to_string(), "1".into()]];
        let plots = [("by-size".to_string(), "<svg/>".to_string())];
        let table = (&["name", "value"][..], 1, &rows[..]);
        let text = report.give(&output(false), table, &plots).expect("written");
        assert!(
            text.contains("name") && text.contains('a') && text.contains("CPU"),
            "{text}"
        );
        let text = report.give(&output(true), table, &plots).expect("written");
        let printed: Report<String, i32> = serde_json::from_str(&text).expect("JSON");
        let kept = std::fs::read_to_string(folder.join("new/sums.json")).expect("a file");
        let kept: Report<String, i32> = serde_json::from_str(&kept).expect("JSON");
        assert_eq!((&printed, &kept), (&report, &report));
        let page = std::fs::read_to_string(folder.join("new/sums.md")).expect("a file");
        assert!(
            page.contains("| a | 1 |") && page.contains("(sums-by-size.svg)"),
            "{page}"
        );
        assert!(folder.join("new/sums-by-size.svg").exists());
        let blocked = Output {
            json: false,
            out: Some(folder.join("new/sums.md")),
        };
        let error = report.give(&blocked, table, &[]).expect_err("a file");
        assert!(
            error.starts_with("--out ") && error.contains("sums.md"),
            "{error}"
        );
        std::fs::remove_dir_all(&folder).expect("a folder");
    }
}
