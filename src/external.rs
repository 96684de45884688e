//! A grader of somebody else's: a process that is given pairs on its standard input and answers
//! on its standard output, a JSON object a line each way.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Done, Failure};

/// A grader and its command. Its process is ended when this is dropped.
pub struct External {
    command: String,
    timeout: Duration,
    process: Process,
    /// Whether it has ever answered: one that has not is no grader.
    answered: bool,
    /// Answers that took too long.
    timed_out: usize,
}

/// A running process.
struct Process {
    child: Child,
    /// To a thread that writes, because a process that does not read would block us.
    questions: Sender<String>,
    /// From a thread that reads.
    answers: Receiver<std::io::Result<String>>,
}

impl Process {
    /// Starts `command`, split at spaces outside of quotes; no shell is involved.
    fn start(command: &str) -> Done<Process> {
        let failed = |what: String| Failure::new(format!("--external {command:?}: {what}"));
        let words = words(command).ok_or_else(|| failed("a quote is not closed".into()))?;
        let (program, arguments) =
            (words.split_first()).ok_or_else(|| failed("expected a command".into()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| failed(e.to_string()))?;
        let (questions, to_write) = channel::<String>();
        let (to_us, answers) = channel();
        if let Some(mut stdin) = child.stdin.take() {
            thread::spawn(move || {
                for line in to_write {
                    if stdin
                        .write_all(line.as_bytes())
                        .and_then(|()| stdin.flush())
                        .is_err()
                    {
                        return; // it died: the reader says so
                    }
                }
            });
        }
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines() {
                    if to_us.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Process {
            child,
            questions,
            answers,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already, or hang: there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl External {
    /// Starts `command`, split at spaces outside of quotes; no shell is involved.
    pub fn start(command: &str, timeout: Duration) -> Done<External> {
        Ok(External {
            command: command.into(),
            timeout,
            process: Process::start(command)?,
            answered: false,
            timed_out: 0,
        })
    }

    /// Answers that took too long.
    pub fn timed_out(&self) -> usize {
        self.timed_out
    }

    /// Its verdict; `None` if it gives none (`{"correct": null}`), or not in time: then it is ended
    /// and started anew, so that one hard pair does not cost the others. A process that dies, says
    /// nothing in time at its first pair or something else is an error.
    pub fn grade(&mut self, answer: &str, prediction: &str) -> Done<Option<bool>> {
        let question = json!({"answer": answer, "prediction": prediction});
        let sent = self.process.questions.send(format!("{question}\n"));
        let line = match sent {
            Ok(()) => self.process.answers.recv_timeout(self.timeout),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        };
        let what = match line {
            Ok(Ok(line)) => {
                let value: Option<Value> = serde_json::from_str(&line).ok();
                let verdict = match value.as_ref().and_then(|value| value.get("correct")) {
                    Some(Value::Bool(correct)) => Some(Some(*correct)),
                    Some(Value::Null) => Some(None),
                    _ => None,
                };
                if let Some(verdict) = verdict {
                    self.answered = true;
                    return Ok(verdict);
                }
                let start: String = line.chars().take(80).collect();
                format!("answered {start:?}, expected {{\"correct\": true}} or false")
            }
            Ok(Err(error)) => format!("its output cannot be read: {error}"),
            Err(RecvTimeoutError::Timeout) if self.answered => {
                self.timed_out += 1;
                self.process = Process::start(&self.command)?;
                return Ok(None);
            }
            Err(RecvTimeoutError::Timeout) => {
                format!("no answer within {} s", self.timeout.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => match self.process.child.wait() {
                Ok(status) => format!("ended without an answer ({status})"),
                Err(error) => format!("ended without an answer ({error})"),
            },
        };
        Err(Failure::new(format!(
            "--external {:?}: {what}",
            self.command
        )))
    }
}

/// The words of a command line, with '...' and "..." as a shell has them; `None` if a quote is
/// not closed.
fn words(command: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn commands_are_split_as_in_a_shell() {
        for (command, want) in [
            ("python3 grader.py", Some(vec!["python3", "grader.py"])),
            ("  a   b ", Some(vec!["a", "b"])),
            (
                "sh -c 'read x; echo \"$x\"'",
                Some(vec!["sh", "-c", "read x; echo \"$x\""]),
            ),
            ("a \"b c\"d ''", Some(vec!["a", "b cd", ""])),
            ("", Some(vec![])),
            ("a 'b", None),
        ] {
            let want = want.map(|w| w.into_iter().map(String::from).collect::<Vec<_>>());
            assert_eq!(words(command), want, "{command}");
        }
    }
}
