//! An idle engine uses no processor time. In a process of its own: the whole process is measured.
#![cfg(target_os = "linux")]

use std::time::Duration;

use offshoot_session::{Config, Device, Options, Problem, Session, Strategy};

/// Clock ticks that this process has spent, in user and kernel mode: fields 14 and 15 of proc(5)'s stat.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(')').expect("a command in brackets");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |n: usize| fields[n - 3].parse::<u64>().expect("a number");
    field(14) + field(15)
}

#[test]
fn an_idle_engine_uses_no_processor_time() {
    let mut options = Options::default();
    options.engine.device = Device::Cpu;
    let session = Session::open(&options).expect("the embedded models");
    let problem = Problem::new(
        "1",
        "A crew has 509 stamps. They make 322 more. How many are there?",
    );
    let config = Config::new(Strategy::Beam);
    session
        .solve(problem.clone(), config.clone())
        .wait()
        .expect("a solved problem");
    // The workers spin for a moment before they park.
    std::thread::sleep(Duration::from_millis(200));
    let before = ticks();
    std::thread::sleep(Duration::from_secs(2));
    // A tick is 10 ms: a loop that polls would spend 200 of them.
    assert!(ticks() - before <= 2, "{} ticks", ticks() - before);
    session
        .solve(problem, config)
        .wait()
        .expect("awake at once");
}
