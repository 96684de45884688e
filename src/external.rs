//! A grader of somebody else's: a process that is given pairs on its standard input and answers
//! on its standard output, a JSON object a line each way.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Done, Failure};

/// A running grader. It is ended when this is dropped.
pub struct External {
    child: Child,
    command: String,
    timeout: Duration,
    /// To a thread that writes, because a process that does not read would block us.
    questions: Sender<String>,
    /// From a thread that reads.
    answers: Receiver<std::io::Result<String>>,
}

impl External {
    /// Starts `command`, split at spaces outside of quotes; no shell is involved.
    pub fn start(command: &str, timeout: Duration) -> Done<External> {
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
        Ok(External {
            child,
            command: command.into(),
            timeout,
            questions,
            answers,
        })
    }

    /// Its verdict; `None` if it gives none (`{"correct": null}`). A process that dies, says
    /// nothing in time or something else is an error.
    pub fn grade(&mut self, answer: &str, prediction: &str) -> Done<Option<bool>> {
        let question = json!({"answer": answer, "prediction": prediction});
        let sent = self.questions.send(format!("{question}\n"));
        let line = match sent {
            Ok(()) => self.answers.recv_timeout(self.timeout),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        };
        let what = match line {
            Ok(Ok(line)) => {
                let value: Option<Value> = serde_json::from_str(&line).ok();
                match value.as_ref().and_then(|value| value.get("correct")) {
                    Some(Value::Bool(correct)) => return Ok(Some(*correct)),
                    Some(Value::Null) => return Ok(None),
                    _ => {
                        let start: String = line.chars().take(80).collect();
                        format!("answered {start:?}, expected {{\"correct\": true}} or false")
                    }
                }
            }
            Ok(Err(error)) => format!("its output cannot be read: {error}"),
            Err(RecvTimeoutError::Timeout) => {
                format!("no answer within {} s", self.timeout.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => match self.child.wait() {
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

impl Drop for External {
    fn drop(&mut self) {
        // It may be gone already, or hang: there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
