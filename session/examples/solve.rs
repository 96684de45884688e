//! Solves one problem with the embedded models: `cargo run --release -p offshoot-session --example solve`.

use offshoot_session::{Config, Error, Options, Problem, Session, Strategy};

/// Runs the example.
pub fn main() -> Result<(), Error> {
    // Any word, directory or hub name stands in place of these: `policy: Some("org/name".into())`.
    let session = Session::open(&Options::default())?;
    println!("{}", session.info().machine.name);

    let text = "A crew has 509 stamps. They make 322 more. How many stamps are there?";
    let config = Config {
        n: 16,
        beam_width: 4,
        ..Config::new(Strategy::Beam)
    };
    let job = session.solve(Problem::new("stamps", text), config);
    let outcome = job.wait()?;
    for solution in &outcome.solutions {
        for (step, score) in solution.steps.iter().zip(&solution.scores) {
            println!("{score:.3}  {step}");
        }
        println!();
    }
    println!("answer: {}", outcome.prediction.unwrap_or_default());
    Ok(())
}
