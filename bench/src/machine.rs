//! The machine that a figure was measured on.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The machine and the state of the sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its processor's name.
    pub cpu: String,
    /// Threads it runs at once.
    pub cores: usize,
    /// Operating system and instruction set.
    pub system: String,
    /// The commit of the sources, with `+` if files differ from it.
    pub commit: String,
}

impl Machine {
    /// This machine.
    pub fn this() -> Machine {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let named = info.lines().find(|line| line.starts_with("model name"));
        let cpu = named.and_then(|line| line.split_once(':'));
        let output = |arguments: &[&str]| {
            let mut git = Command::new("git");
            let ran = git.args(arguments).current_dir(root()).output().ok()?;
            ran.status.success().then_some(())?;
            Some(String::from_utf8_lossy(&ran.stdout).trim().to_string())
        };
        let commit = match output(&["rev-parse", "--short=10", "HEAD"]) {
            None => "unknown".into(),
            Some(commit) => match output(&["status", "--porcelain", "--untracked-files=no"]) {
                Some(changes) if changes.is_empty() => commit,
                _ => commit + "+",
            },
        };
        Machine {
            cpu: cpu.map_or("unknown CPU".into(), |(_, name)| name.trim().to_string()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            commit,
        }
    }

    /// In a few words for a sentence.
    pub fn words(&self) -> String {
        format!("{}, {} cores, {}", self.cpu, self.cores, self.system)
    }

    /// In one word for a folder.
    pub fn slug(&self) -> String {
        let mut slug = String::new();
        for c in format!("{} {} cores", self.cpu, self.cores).chars() {
            if c.is_ascii_alphanumeric() {
                slug.push(c.to_ascii_lowercase());
            } else if !slug.is_empty() && !slug.ends_with('-') {
                slug.push('-');
            }
        }
        slug.trim_end_matches('-').to_string()
    }
}

/// The repository's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Today, as `year-month-day`, in UTC.
pub fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let days = since.map_or(0, |d| d.as_secs() / 86_400) as i64;
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The date `days` after 1 January 1970 (Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`, for days from there on).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_781, (2026, 11, 24)),
        ] {
            assert_eq!(civil(days), date, "day {days}");
        }
    }

    #[test]
    fn a_machine_is_one_word() {
        let machine = Machine {
            cpu: "AMD EPYC (TM) 7".into(),
            cores: 2,
            system: String::new(),
            commit: String::new(),
        };
        assert_eq!(machine.slug(), "amd-epyc-tm-7-2-cores");
    }
}
