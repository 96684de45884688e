//! Serves two callers from a channel while a third is cancelled:
//! `cargo run --release -p offshoot-session --example serve`.

use std::sync::mpsc;
use std::thread;

use offshoot_session::{Config, Error, Options, Problem, Session, Strategy};

/// Runs the example.
pub fn main() -> Result<(), Error> {
    let session = Session::open(&Options::default())?;
    let (requests, inbox) = mpsc::channel();
    let mut callers = Vec::new();
    for text in [
        "A crew has 509 stamps. They make 322 more. How many stamps are there?",
        "A bill is 40 dollars. A coupon takes off 12 dollars. How many dollars is the bill?",
    ] {
        let requests = requests.clone();
        callers.push(thread::spawn(move || {
            let (reply, answer) = mpsc::channel();
            requests.send((text, reply)).ok()?;
            answer.recv().ok()
        }));
    }
    drop(requests);

    let long = Problem::new("3", "A shop has 3 shelves. How many are there?");
    let third = session.solve(
        long,
        Config {
            n: 64,
            ..Config::new(Strategy::Majority)
        },
    );
    for (text, reply) in inbox {
        // One thread a caller here; a server awaits the outcomes on its runtime instead.
        let job = session.solve(Problem::new("1", text), Config::new(Strategy::Beam));
        thread::spawn(move || reply.send(job.wait().map(|outcome| outcome.prediction)));
    }
    drop(third); // cancelled: its branches are freed after the batch under way
    for caller in callers {
        println!("{:?}", caller.join().ok().flatten());
    }
    Ok(())
}
