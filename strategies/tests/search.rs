//! Searches on scripted models: the exact tree and the answers.

mod scripted;

use offshoot_strategies::{
    Aggregation, BeamMode, Config, Error, Isotonic, Path, Search, Selection, StopRule, Strategy,
    Subsample, smaller_budgets,
};
use scripted::{Script, tree};

/// One search and everything it must do.
struct Case {
    name: &'static str,
    config: Config,
    /// See [`Script`].
    script: &'static str,
    /// See [`tree`].
    tree: &'static str,
    /// `answer(score score)ending` for each solution, in order.
    solutions: &'static str,
}

/// The same search must come out of every order of completion.
const DELAYS: [fn(usize) -> usize; 4] = [
    |_| 0,
    |call| 5 - call % 6,
    |call| (call * 7919) % 11,
    |call| 40usize.saturating_sub(call),
];

fn check(cases: &[Case]) {
    let mut failures = Vec::new();
    for case in cases {
        for (which, delay) in DELAYS.into_iter().enumerate() {
            let mut script = Script::new(case.script);
            script.delay = delay;
            let (found_tree, solutions) = match script.solve(&case.config) {
                Ok(outcome) => {
                    assert_eq!(outcome.policy_tokens, outcome.trace.num_tokens());
                    // One token for the problem, one for every step scored.
                    let read = if case.config.strategy.needs_prm() {
                        1 + script.scored.borrow().len()
                    } else {
                        0
                    };
                    assert_eq!(outcome.prm_tokens, read, "{}", case.name);
                    let mut once = script.scored.borrow().clone();
                    once.sort();
                    once.dedup();
                    let looked_ahead = case.config.lookahead > 0;
                    let verified_late = case.config.verify_every > 1;
                    let best_of_n = case.config.strategy == Strategy::BestOfN;
                    if !looked_ahead
                        && !verified_late
                        && !best_of_n
                        && case.config.strategy != Strategy::Dvts
                    {
                        assert_eq!(once.len(), script.scored.borrow().len(), "{}", case.name);
                    }
                    (tree(&outcome), brief(&outcome))
                }
                Err(error) => (error.to_string(), String::new()),
            };
            let want: Vec<&str> = case.tree.lines().map(str::trim).collect();
            if found_tree != want.join("\n").trim() || solutions != case.solutions {
                failures.push(format!(
                    "{} (order {which}):\n{found_tree}\nsolutions: {solutions}",
                    case.name
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn brief(outcome: &offshoot_strategies::Outcome) -> String {
    use offshoot_strategies::Ending::*;
    let solutions = outcome.solutions.iter().map(|s| {
        let scores: Vec<String> = s.scores.iter().map(f64::to_string).collect();
        let ending = match s.ending {
            Finished => "!",
            LengthCut => "~",
            StepLimit => ".",
            DeadEnd => "x",
            LowConfidence => "?",
        };
        format!(
            "{}({}){ending}",
            s.answer.as_deref().unwrap_or("-"),
            scores.join(" ")
        )
    });
    solutions.collect::<Vec<_>>().join(" ")
}

fn beam(n: usize, m: usize) -> Config {
    Config {
        n,
        beam_width: m,
        ..Config::new(Strategy::Beam)
    }
}

fn search_and_learn(n: usize, m: usize) -> Config {
    Config {
        beam_mode: BeamMode::SearchAndLearn,
        ..beam(n, m)
    }
}

fn dvts(n: usize, m: usize) -> Config {
    Config {
        n,
        beam_width: m,
        ..Config::new(Strategy::Dvts)
    }
}

#[test]
fn beam_search() {
    check(&[
        Case {
            name: "N candidates at the stem, N/M kept, M children each",
            config: beam(4, 2),
            script: "-: a:.1 b:.4 c:.3 d:.2
                     b: e:.5 [1]:.1
                     c: f:.2 [2]:.6
                     b.e: [7]:.9 [3]:.2",
            tree: "-: a- b+* c+ d-
                   b: e+* [1]-
                   c: f- [2]!
                   b.e: [7]!* [3]-",
            solutions: "2(0.3 0.6)! 7(0.4 0.5 0.9)!",
        },
        Case {
            name: "a finished path holds its slot, even when later ones are better",
            config: beam(4, 2),
            script: "-: [1]:.9 a:.8 b:.1 c:.1
                     a: d:.7 e:.95
                     a.e: f:.99 [7]:.5
                     a.e.f: [8]:.1 [9]!:.2",
            tree: "-: [1]!* a+ b- c-
                   a: d- e+
                   a.e: f+ [7]-
                   a.e.f: [8]- [9]!",
            // e's path ends with .2, so last-vote chooses 1
            solutions: "1(0.9)! 9(0.8 0.95 0.99 0.2)!",
        },
        Case {
            name: "duplicates of one parent go, spaces or not; the lowest index stands",
            config: beam(4, 4),
            script: "-: a:.1 b:.9 b a
                     b: b:.5 [7]:.6 b [7]!",
            tree: "-: a- b+* b= a=
                   b: b- [7]!* b= [7]=",
            solutions: "7(0.9 0.6)!",
        },
        Case {
            name: "the same step below two parents is no duplicate",
            config: beam(4, 2),
            script: "-: a:.9 b:.8 c:.1 d:.1
                     a: x:.7 [1]:.1
                     b: x:.6 [1]:.1
                     a.x: [7]:.5 y:.1
                     b.x: [7]:.4 y:.1",
            tree: "-: a+* b+ c- d-
                   a: x+* [1]-
                   b: x+ [1]-
                   a.x: [7]!* y-
                   b.x: [7]! y-",
            solutions: "7(0.9 0.7 0.5)! 7(0.8 0.6 0.4)!",
        },
        Case {
            name: "cut steps are dropped unscored, empty ones too",
            config: beam(4, 2),
            script: "-: a~ b:.2 _ c:.1
                     b: [7]:.5 d~
                     c: [8]:.6 _",
            tree: "-: a~ b+ _ c+*
                   b: [7]! d~
                   c: [8]!* _",
            solutions: "7(0.2 0.5)! 8(0.1 0.6)!",
        },
        Case {
            name: "a node is tried again while no step is valid",
            config: beam(2, 2),
            script: "-: a:.2 b:.1
                     a: x~ _ y~ z~ [7]:.5 w~",
            tree: "-: a+* b-
                   a: x~ _ y~ z~ [7]!* w~",
            solutions: "7(0.2 0.5)!",
        },
        Case {
            name: "after all tries it ends there and holds its slot",
            config: beam(4, 2),
            script: "-: a:.4 b:.3 c:.1 d:.1
                     a: x~ y~ z~ x~ y~ z~
                     b: e:.9 f:.8
                     b.e: [7]:.1 [1]:.05",
            tree: "-: a. b+* c- d-
                   a: x~ y~ z~ x~ y~ z~
                   b: e+* f-
                   b.e: [7]!* [1]-",
            solutions: "-(0.4)x 7(0.3 0.9 0.1)!",
        },
        Case {
            name: "cut first steps are kept when there is nothing else",
            config: beam(2, 1),
            script: "-: a~:.1 b~:.2 a~ c~:.3 d~:.4 _",
            tree: "-: a- b- a= c~ d~ _",
            solutions: "-(0.3)~ -(0.4)~",
        },
        Case {
            name: "equal values: the better parent, then the lower index",
            config: beam(6, 2),
            script: "-: a:.5 b:.6 c:.5 d:.5 e:.1 f:.1
                     a: g:.5 [1]!:.5
                     b: h:.5 [2]!:.5
                     c: i:.5 [3]!:.5
                     a.g: [4]:.5 [5]:.5
                     b.h: [6]:.5 [7]:.5",
            tree: "-: a+ b+* c+ d- e- f-
                   a: g+ [1]-
                   b: h+ [2]!*
                   c: i- [3]-
                   a.g: [4]! [5]!
                   b.h: [6]- [7]-",
            solutions: "2(0.6 0.5)! 4(0.5 0.5 0.5)! 5(0.5 0.5 0.5)!",
        },
        Case {
            name: "end of sequence with no text ends the path where it is",
            config: beam(2, 2),
            script: "-: a:.2 b:.1
                     a: _! _!",
            tree: "-: a+ b-
                   a: ! =",
            solutions: "-(0.2)!",
        },
        Case {
            name: "the step limit",
            config: Config {
                max_steps: 2,
                ..beam(2, 2)
            },
            script: "-: a:.2 b:.1
                     a: c:.3 d:.4",
            tree: "-: a+ b-
                   a: c- d.",
            solutions: "-(0.2 0.4).",
        },
        Case {
            name: "the token limit of a solution",
            config: Config {
                max_tokens: 2,
                ..beam(2, 2)
            },
            script: "-: a:.2 b:.1
                     a: c:.3 d:.4",
            tree: "-: a+ b-
                   a: c- d~",
            solutions: "-(0.2 0.4)~",
        },
        Case {
            name: "ranked by the least score: a weak step weighs on its path to the end",
            config: Config {
                aggregation: Aggregation::Min,
                ..beam(4, 2)
            },
            script: "-: a:.2 b:.4 c:.1 d:.1
                     a: e:.9 f:.8
                     b: g:.3 h:.35
                     b.g: [7]:.9 [1]:.1
                     b.h: [8]:.2 [2]:.9",
            tree: "-: a+ b+* c- d-
                   a: e- f-
                   b: g+* h+
                   b.g: [7]!* [1]-
                   b.h: [8]- [2]!",
            solutions: "7(0.4 0.3 0.9)! 2(0.4 0.35 0.9)!",
        },
    ]);
}

#[test]
fn search_and_learn_beam_search() {
    check(&[
        Case {
            name: "finished paths leave, survivors are duplicated to N",
            config: search_and_learn(4, 2),
            script: "-: [1]:.9 a:.8 b:.7 c:.6
                     a: d:.5 e:.4
                     b: f:.3 [2]:.2
                     a.d: [7]:.9 [3]:.1
                     a.e: [4]:.3 [5]:.2",
            tree: "-: [1]!* a+ b+ c-
                   a: d+ e+
                   b: f- [2]!
                   a.d: [7]! [3]!
                   a.e: [4]! [5]!",
            // six finished; the four best, the best first
            solutions: "1(0.9)! 7(0.8 0.5 0.9)! 4(0.8 0.4 0.3)! 2(0.7 0.2)!",
        },
        Case {
            name: "one survivor gets all N children",
            config: search_and_learn(4, 4),
            script: "-: a:.8 [1]:.1 [2]:.2 [3]:.3
                     a: [7]:.4 [8]:.5 [9]:.6 [7]!",
            tree: "-: a+* [1]! [2]! [3]!
                   a: [7]! [8]! [9]!* [7]=",
            solutions: "9(0.8 0.6)! 8(0.8 0.5)! 7(0.8 0.4)! 3(0.3)!",
        },
        Case {
            name: "three survivors share four children: 2, 1, 1",
            config: search_and_learn(4, 1),
            script: "-: a:.8 [1]:.1 b:.7 c:.6
                     a: [2]:.2 [3]:.3
                     b: [4]:.4
                     c: [7]:.95",
            tree: "-: a+ [1]! b+ c+*
                   a: [2]! [3]!
                   b: [4]!
                   c: [7]!*",
            solutions: "7(0.6 0.95)! 4(0.7 0.4)! 3(0.8 0.3)! 2(0.8 0.2)!",
        },
        Case {
            name: "a dead end leaves without an answer",
            config: search_and_learn(2, 1),
            script: "-: a:.8 b:.7
                     a: x~ y~ z~
                     b: [7]:.1",
            tree: "-: a. b+*
                   a: x~ y~ z~
                   b: [7]!*",
            solutions: "-(0.8)x 7(0.7 0.1)!",
        },
    ]);
}

#[test]
fn diverse_verifier_tree_search() {
    check(&[
        Case {
            name: "independent trees, each keeps its best child",
            config: dvts(4, 2),
            script: "-/0: a:.9 b:.8
                     -/1: b:.2 c:.1
                     -/0.a: d:.3 e:.4
                     -/1.b: [7]:.9 [8]:.1
                     -/0.a.e: [1]!:.5 [2]:.5",
            tree: "-: a+ b- b+* c-
                   a: d- e+
                   a.e: [1]! [2]-
                   b: [7]!* [8]-",
            solutions: "1(0.9 0.4 0.5)! 7(0.2 0.9)!",
        },
        Case {
            name: "trees do not share duplicates, siblings do; a dead end stays in its tree",
            config: dvts(4, 2),
            script: "-/0: a:.9 a
                     -/1: a:.9 b:.1
                     -/0.a: x~ _ x~ _ x~ _
                     -/1.a: [7]:.2 [8]:.1",
            tree: "-: a. a= a+* b-
                   a: x~ _ x~ _ x~ _
                   a: [7]!* [8]-",
            solutions: "-(0.9)x 7(0.9 0.2)!",
        },
    ]);
}

#[test]
fn reward_balanced_search() {
    let rebase = |n| Config {
        n,
        ..Config::new(Strategy::Rebase)
    };
    check(&[
        Case {
            name: "the best path takes the whole budget, solutions lower it",
            config: rebase(4),
            // 3 are left for .9, .5, .1: the softmax at 0.2 gives a ceil(3 * .87).
            script: "-: a:.9 b:.5 [1]:.4 c:.1
                     a: x:.9 [7]:.6 y:.2
                     a.x: [7]:.5 [8]!:.3",
            tree: "-: a+* b- [1]! c-
                   a: x+ [7]!* y-
                   a.x: [7]! [8]!",
            solutions: "1(0.4)! 7(0.9 0.6)! 7(0.9 0.9 0.5)! 8(0.9 0.9 0.3)!",
        },
        Case {
            name: "equal values share the budget; a dead end takes its place",
            config: Config {
                max_retries: 1,
                ..rebase(4)
            },
            script: "-: a:.5 b:.5 a a
                     a: x~ _
                     b: [7]:.9 [8]:.2",
            tree: "-: a. b+* a= a=
                   a: x~ _
                   b: [7]!* [8]!",
            solutions: "-(0.5)x 7(0.5 0.9)! 8(0.5 0.2)!",
        },
    ]);
}

#[test]
fn directions_share_the_budget() {
    let dora = |n| Config {
        n,
        ..Config::new(Strategy::Dora)
    };
    check(&[
        Case {
            name: "two paths of one direction have half of the budget together",
            config: dora(4),
            script: "-: ab:.5 ac:.5 b:.5 [1]:.4
                     ab: x:.9
                     ac: [7]:.8
                     b: y:.7 [8]:.6
                     ab.x: [7]:.5 [7]!:.4 [9]:.3 [9]!:.2
                     b.y: [6]:.5",
            // Weights 1/4, 1/4 and 1/2: 1, 1 and 2 children. Then .9 against .7 at a temperature of
            // 0.1: 3.5 and 0.5 of 4, rounded 4 and 0. Four have ended: the fifth is one too many.
            tree: "-: ab+ ac+* b+ [1]!
                   ab: x+
                   ac: [7]!*
                   b: y- [8]!
                   ab.x: [7]! [7]= [9]! [9]=",
            solutions: "1(0.4)! 7(0.5 0.8)! 8(0.5 0.6)! 7(0.5 0.9 0.4)!",
        },
        Case {
            name: "what rounds to no share by its value alone is dropped",
            config: dora(2),
            script: "-: a:.9 b:.1
                     a: [7]:.9 [8]:.2",
            tree: "-: a+* b-
                   a: [7]!* [8]!",
            solutions: "7(0.9 0.9)! 8(0.9 0.2)!",
        },
    ]);
}

#[test]
fn verification_every_two_steps() {
    let every_two = |config| Config {
        verify_every: 2,
        ..config
    };
    check(&[
        Case {
            name: "two steps are compared by the second; a path that ends earlier as it is",
            config: every_two(beam(4, 2)),
            script: "-: a:.1 b:.9 c:.5 [1]:.2
                     a: d:.3
                     b: e:.4
                     c: f:.8
                     b.e: x:.1 y:.2
                     c.f: [8]:.7 z:.3
                     b.e.x: [7]:.6
                     b.e.y: g~
                     c.f.z: _",
            tree: "-: a- b+ c+* [1]-
                   a: d-
                   b: e+
                   b.e: x+ y-
                   c: f+*
                   c.f: [8]!* z-
                   b.e.x: [7]!
                   b.e.y: g~
                   c.f.z: _",
            solutions: "7(0.9 0.4 0.1 0.6)! 8(0.5 0.8 0.7)!",
        },
        Case {
            name: "a path goes on before a second step that is not valid; both steps make a duplicate",
            config: every_two(beam(3, 3)),
            script: "-: a:.5 b:.4 b
                     a: x~ [7]:.8 [8]:.6 [8]
                     b: y:.1",
            tree: "-: a+* b- b=
                   a: x~ [7]!* [8]- [8]=
                   b: y-
                   b: y=",
            solutions: "7(0.5 0.8)!",
        },
        Case {
            name: "the step limit counts steps",
            config: Config {
                max_steps: 3,
                ..every_two(dvts(1, 1))
            },
            script: "-/0: a:.5
                     -/0.a: b:.6
                     -/0.a.b: c:.4",
            tree: "-: a+
                   a: b+
                   a.b: c.",
            solutions: "-(0.5 0.6 0.4).",
        },
        Case {
            name: "particles write two steps each",
            config: Config {
                n: 2,
                ..every_two(Config::new(Strategy::ParticleFiltering))
            },
            script: "-/0: a:.5
                     -/1: b:.5
                     -/0.a: [7]:.9
                     -/1.b: [7]:.9",
            // Both have even odds; the draws of seed 0 are of the first.
            tree: "-: a+* b-
                   a: [7]!*
                   b: [7]-",
            solutions: "7(0.5 0.9)! 7(0.5 0.9)!",
        },
    ]);
}

#[test]
fn steps_are_rejected_early() {
    let after_one_token = |config| Config {
        early_rejection: 1,
        ..config
    };
    check(&[
        Case {
            name: "the best 1/M of a round are completed, whole ones among them",
            config: after_one_token(beam(6, 2)),
            script: "-: a+b:.1+.9 c+d:.7+.2 e+f:.6+.3 [1]:.55 g:.5 g
                     cd: h+i:.5+.9 j+k:.5+.1
                     ef: l+m:.5+.2 [2]:.4
                     cd.hi: [7]:.8 [7]
                     ef.lm: n+o:.6+.5 p+q:.9+.6
                     ef.lm.pq: r+s~:.9+ t+u:.1+.2 [8]:.3",
            // Three of six, then two of four: of equal scores l of the better parent, then h. What was kept and
            // is cut is tried again, whole.
            tree: "-: a/ cd+* ef+ [1]! g/ g=
                   cd: hi+* j/
                   ef: lm+ [2]/
                   cd.hi: [7]!* [7]=
                   ef.lm: n/ pq+
                   ef.lm.pq: rs~ t/ [8]!",
            solutions: "1(0.55)! 7(0.2 0.9 0.8)! 8(0.3 0.2 0.6 0.3)!",
        },
        Case {
            name: "a path whose steps are all rejected is no dead end",
            config: after_one_token(beam(4, 2)),
            script: "-: a:.9 b:.8 c:.1 d:.1
                     a: e+f:.7+.5 g+h:.6+.4
                     b: i+j:.5+.9 k+l:.5+.9
                     a.ef: [7]!:.6 m:.1
                     a.gh: [8]:.2 _",
            tree: "-: a+* b+ c/ d/
                   a: ef+* gh+
                   b: i/ k/
                   a.ef: [7]!* m/
                   a.gh: [8]! _",
            solutions: "7(0.9 0.5 0.6)! 8(0.9 0.4 0.2)!",
        },
        Case {
            name: "each tree completes one",
            config: Config {
                max_step_tokens: 2,
                ..after_one_token(dvts(4, 2))
            },
            script: "-/0: a+b:.5+.5 c+d:.5+.9
                     -/0.ab: [7]:.3 !
                     -/1: e+f~:.9+ g+h~:.1+ i+j:.2+.1
                     -/1.ij: [8]:.1 k+l:.6+.2
                     -/1.ij.kl: [9]:.2 m:.1",
            // Of equal scores the first. An end without a text has the value of its path.
            tree: "-: ab+ c/ ef~ g/ ij+*
                   ab: [7]/ !
                   ij: [8]/ kl+*
                   ij.kl: [9]!* m/",
            solutions: "-(0.5)! 9(0.1 0.2 0.2)!",
        },
    ]);
}

#[test]
fn paths_branch_where_their_steps_disagree() {
    let chains = |chain_threshold, config| Config {
        chain_threshold,
        ..config
    };
    // Words that begin with the same letter say the same.
    check(&[
        Case {
            name: "one step of those that agree goes on, alone and in the same round",
            config: chains(0.5, beam(4, 2)),
            script: "-: ba aa:.5 ab ca
                     aa: b c~ d:.6 da
                     aa.d: e:.1 f:.3 g:.2 [7]:.4
                     aa.d.f: [5]:.7 [6]",
            tree: "-: ba- aa+* ab= ca-
                   aa: b- c~ d+* da=
                   aa.d: e- f+* g- [7]!
                   aa.d.f: [5]!* [6]=",
            solutions: "7(0.5 0.6 0.4)! 5(0.5 0.6 0.3 0.7)!",
        },
        Case {
            name: "a chain that ends is one candidate among others",
            config: chains(0.6, beam(4, 2)),
            script: "-: a:.9 b:.8 c:.1 d:.2
                     a: e:.3 ea
                     a.e: [7]:.1 [8]
                     b: f:.6 g:.5
                     b.f: h:.5 ha
                     b.f.h: [7]:.9 _
                     b.g: [9]:.3 x:.2",
            tree: "-: a+ b+* c- d-
                   a: e- ea=
                   b: f+* g+
                   a.e: [7]- [8]=
                   b.f: h+* ha=
                   b.g: [9]! x-
                   b.f.h: [7]!* _",
            solutions: "7(0.8 0.6 0.5 0.9)! 9(0.8 0.5 0.3)!",
        },
        Case {
            name: "steps that disagree are children, tried again if none is valid; one child is no chain",
            config: chains(
                0.6,
                Config {
                    n: 3,
                    ..Config::new(Strategy::Rebase)
                },
            ),
            script: "-: a~ b~ _ c:.5 c d:.5
                     c: e:.1 ea
                     c.e: f:.9 g:.1
                     d: [7]:.2
                     c.e.f: [8]:.3 x:.1
                     c.e.f.x: [9]:.2",
            tree: "-: a~ b~ _ c+* c= d+
                   c: e+* ea=
                   d: [7]!
                   c.e: f+* g-
                   c.e.f: [8]!* x+
                   c.e.f.x: [9]!",
            solutions: "7(0.5 0.2)! 8(0.5 0.1 0.9 0.3)! 9(0.5 0.1 0.9 0.1 0.2)!",
        },
    ]);
}

#[test]
fn a_calibration_says_how_many() {
    // The scores are the probabilities; one of two is right with 0.75 if each is with 0.5.
    let adaptive = |config| Config {
        calibration: Some(Isotonic {
            scores: vec![0.0, 1.0],
            probabilities: vec![0.0, 1.0],
        }),
        confidence: 0.75,
        ..config
    };
    let best_of_n = Config {
        n: 8,
        ..Config::new(Strategy::BestOfN)
    };
    check(&[
        Case {
            name: "first steps of 0.5 ask for 2, of 0.3 on average for 4, and of 0.5 then for no more",
            config: adaptive(best_of_n),
            script: "-: a|[7]!:.5|.9 b|[8]!:.1|.2 c|[7]!:.6|.3 d|[6]!:.8|.1",
            tree: "-: a+* b+ c+ d+
                   a: [7]!*
                   b: [8]!
                   c: [7]!
                   d: [6]!",
            solutions: "7(0.5 0.9)! 8(0.1 0.2)! 7(0.6 0.3)! 6(0.8 0.1)!",
        },
        Case {
            name: "a path of 0.5 suffices with two children, one of 0.9 with one",
            config: adaptive(beam(8, 4)),
            script: "-: a:.1 b:.5 c:.1 d:.1 e:.1 f:.1 g:.1 h:.1
                     b: i:.9 [7]:.2
                     b.i: [8]:.3",
            tree: "-: a- b+* c- d- e- f- g- h-
                   b: i+* [7]-
                   b.i: [8]!*",
            solutions: "8(0.5 0.9 0.3)!",
        },
        Case {
            name: "of search-and-learn's open candidates as well",
            config: adaptive(search_and_learn(8, 4)),
            script: "-: a:.1 b:.2 c:.3 [7]:.9 e:.1 f:.1 g:.1 h:.1
                     c: i:.7 [8]:.2 j:.1 k:.1
                     c.i: [9]:.6 [7]:.5",
            // 0.3 asks for 4, 0.7 for 2.
            tree: "-: a- b- c+ [7]!* e- f- g- h-
                   c: i+ [8]! j- k-
                   c.i: [9]! [7]!",
            solutions: "7(0.9)! 9(0.3 0.7 0.6)! 7(0.3 0.7 0.5)! 8(0.3 0.2)!",
        },
    ]);
}

#[test]
fn uncertain_steps_are_chosen_among_several() {
    let mur = |scaling_rate| Config {
        n: 2,
        momentum_rate: 0.5,
        scaling_rate,
        ..Config::new(Strategy::Mur)
    };
    // A path's fork 0 waits for the case that its next step, on fork 1, is scaled.
    check(&[
        Case {
            name: "steps above the average by more than ln 2 are",
            config: mur(0.5),
            script: "-: x a%2:.5
                     a: x b%1.6:.5
                     a.b: x c%2.1:.9
                     a.b/0: d%1:.2 e%1.5:.7
                     a.b/0.e: x f%2.2:.9
                     a.b/0.e/0: g%2:.1 g%2
                     a.b/0.e/0.g: x [7]%1:.3",
            // Averages of 1, 1.3, 1.4 (of e, not c) and 1.7.
            tree: "-: a+*
                   a: b+*
                   a.b: c- d- e+*
                   a.b.e: f- g+* g=
                   a.b.e.g: [7]!*",
            solutions: "7(0.5 0.5 0.7 0.1 0.3)!",
        },
        Case {
            name: "an end without a text is not",
            config: mur(0.9),
            script: "-: x a:.5
                     a: x %3!",
            tree: "-: a+
                   a: !",
            solutions: "-(0.5)!",
        },
        Case {
            name: "a path ends where no candidate is valid",
            config: Config {
                max_retries: 1,
                ..mur(0.9)
            },
            script: "-: x a:.5
                     a: x b%2:.4
                     a/0: c~ d~",
            tree: "-: a.
                   a: b- c~ d~",
            solutions: "-(0.5)x",
        },
    ]);
}

#[test]
fn paths_share_nodes_and_cover_directions() {
    check(&[Case {
        name: "of two paths of one direction one is kept where a node is dear",
        config: Config {
            n: 4,
            kv_weight: 2.0,
            ..Config::new(Strategy::Ets)
        },
        script: "-: ab:.8 ac:.8 b:.8 [1]:.4
                 ab: x:.9 y:.2
                 b: [7]:.7
                 ab.x: [7]:.9 [8]:.1",
        // Three are left of the budget, and REBASE gives each path one: a share of 1/3, where its node
        // costs 2/4. A cluster gives 3/4: ab and b. Of x and y, REBASE gives y nothing.
        tree: "-: ab+ ac- b+* [1]!
               ab: x+ y-
               b: [7]!*
               ab.x: [7]! [8]!",
        solutions: "1(0.4)! 7(0.8 0.7)! 7(0.8 0.9 0.9)! 8(0.8 0.9 0.1)!",
    }]);
}

#[test]
fn a_settled_vote_stops() {
    let majority = |stop_rule, n| Config {
        n,
        stop_rule,
        ..Config::new(Strategy::Majority)
    };
    // Looked at after 1, 2, 4 and 8 solutions.
    let script = "-: [7]! [7]! [1]! [7]! [7]! [7]! [7]! [1]! [7]! [7]! [7]! [7]!";
    for (rule, n, written) in [
        (StopRule::None, 12, 12),
        // After 8 the 7 has 6, the 1 has 2.
        (StopRule::Unbeatable, 12, 12),
        (StopRule::Unbeatable, 11, 8),
        (StopRule::Unbeatable, 3, 2),
        (StopRule::Unbeatable, 1, 1),
        // P = 0.91 after 8, 0.98 after 12.
        (StopRule::Beta, 12, 12),
        // Factors of 9.5 after 4 and more than 10 after 8.
        (StopRule::BayesFactor, 12, 8),
        (StopRule::BayesFactor, 4, 4),
    ] {
        let config = majority(rule, n);
        let outcome = Script::new(script).solve(&config).expect("scripted");
        assert_eq!(outcome.solutions.len(), written, "{rule:?} {n}");
        assert_eq!(outcome.prediction.as_deref(), Some("7"));
        assert_eq!(outcome.by_n.is_empty(), rule != StopRule::None || n == 1);
    }
    let config = majority(StopRule::Beta, 16);
    let outcome = Script::new("-: [7]! [7]! [7]! [7]!").solve(&config);
    assert_eq!(outcome.expect("scripted").solutions.len(), 4);
    let error = Config {
        stop_rule: StopRule::Beta,
        ..Config::new(Strategy::Beam)
    }
    .validate()
    .expect_err("beam search has no vote to settle");
    assert!(error.to_string().contains("`stop_rule` is beta"), "{error}");
}

#[test]
fn a_settled_best_of_n_stops() {
    let chosen = |text: &str| Some(text.parse::<Selection>().expect("a selection"));
    // Looked at after 1, 2, 4 and 8 solutions.
    // Letters behind the answers: each solution has a score of its own.
    let even = "-: [7]a!:.9 [7]b!:.8 [1]c!:.1 [7]d!:.9 [7]e!:.7 [1]f!:.3 [7]g!:.9 [7]h!:.9 [2]i!:.5 [2]j!:.5";
    let sure = "-: [1]a!:.9 b!:1 [7]c!:1 [1]d!:.5 [1]e!:1 [1]f!:1 [1]g!:1 [1]h!:1";
    let odd = "-: [7]a!:9 [7]b!:.9 [7]c!:.9 [7]d!:.9 [1]e!:.1";
    for (name, script, selection, rule, n, written, answer) in [
        ("every one", even, "last-vote", StopRule::None, 8, 8, "7"),
        // After 4 the 7 has 2.6, the 1 has 0.1; after 8 5.1 and 0.4.
        (
            "2.5 ahead of 2 left",
            even,
            "last-vote",
            StopRule::Unbeatable,
            6,
            4,
            "7",
        ),
        (
            "2.5 ahead of 3 left",
            even,
            "last-vote",
            StopRule::Unbeatable,
            7,
            7,
            "7",
        ),
        (
            "4.7 ahead of 2 left",
            even,
            "min-vote",
            StopRule::Unbeatable,
            10,
            8,
            "7",
        ),
        // By counts: 3 and 1 after 4, 6 and 2 after 8.
        (
            "majority: 2 left",
            even,
            "majority",
            StopRule::Unbeatable,
            6,
            6,
            "7",
        ),
        (
            "majority: 3 of 5",
            even,
            "majority",
            StopRule::Unbeatable,
            5,
            4,
            "7",
        ),
        (
            "beta: 0.91 after 8",
            even,
            "last-vote",
            StopRule::Beta,
            10,
            10,
            "7",
        ),
        (
            "factors 9.5 and 24",
            even,
            "last-vote",
            StopRule::BayesFactor,
            10,
            8,
            "7",
        ),
        // The score of a solution without an answer does not count; then the third has the best.
        (
            "no better score",
            sure,
            "last-max",
            StopRule::Unbeatable,
            8,
            4,
            "7",
        ),
        (
            "no score of 1",
            even,
            "last-max",
            StopRule::Unbeatable,
            8,
            8,
            "7",
        ),
        (
            "scores beyond 1",
            odd,
            "last-vote",
            StopRule::Unbeatable,
            5,
            5,
            "7",
        ),
        (
            "scores beyond 1",
            odd,
            "last-max",
            StopRule::Unbeatable,
            5,
            5,
            "7",
        ),
    ] {
        let config = Config {
            n,
            stop_rule: rule,
            selection: chosen(selection),
            ..Config::new(Strategy::BestOfN)
        };
        let outcome = Script::new(script).solve(&config).expect("scripted");
        assert_eq!(outcome.solutions.len(), written, "{name}, {selection}");
        assert_eq!(outcome.prediction.as_deref(), Some(answer), "{name}");
        assert_eq!(outcome.by_n.is_empty(), rule != StopRule::None, "{name}");
    }
    let error = Config {
        stop_rule: StopRule::Beta,
        selection: chosen("min-max"),
        ..Config::new(Strategy::BestOfN)
    };
    assert_eq!(
        error
            .validate()
            .expect_err("counts say nothing")
            .to_string(),
        "`stop_rule` is beta; expected none or unbeatable: it counts answers, and the selection min-max does not"
    );
}

#[test]
fn votes_by_confidence() {
    let config = |selection: &str| Config {
        n: 4,
        selection: Some(selection.parse().expect("a selection")),
        confidence_window: 2,
        ..Config::new(Strategy::Majority)
    };
    // Means over all 3, 4, 2, 2; over the last two 3.5, 1, 2, 2. Ranks 2, 1, 3, 4.
    let script = "-: a@2|b@3|[1]@4! a@9|b@1|[2]@1! [7]@2! b@2|[7]@2~";
    for (selection, answer) in [
        ("majority", "7"),
        ("self-certainty-max", "2"),
        // 1.73 and 2 against 1.41 + 1.
        ("self-certainty-vote", "7"),
        ("tail-confidence-max", "1"),
        // 3.5 and 1 against 2 + 2.
        ("tail-confidence-vote", "7"),
    ] {
        let outcome = Script::new(script)
            .solve(&config(selection))
            .expect("scripted");
        assert_eq!(outcome.prediction.as_deref(), Some(answer), "{selection}");
        // The confidences are there only where the selection that counts needs them.
        let recorded = selection != "majority";
        let verdicts = outcome.verdicts.len();
        assert_eq!(verdicts, if recorded { 5 } else { 1 }, "{selection}");
        for solution in &outcome.solutions {
            assert_eq!(solution.confidence.is_some(), recorded, "{selection}");
        }
        let written = serde_json::to_string(&outcome).expect("JSON");
        assert_eq!(written.contains("confidence\":{"), recorded, "{written}");
        let read: offshoot_strategies::Outcome = serde_json::from_str(&written).expect("its own");
        assert_eq!(read, outcome);
    }
    let outcome = Script::new(script).solve(&config("tail-confidence-vote"));
    let solutions = outcome.expect("scripted").solutions.into_iter();
    let found = solutions.map(|s| s.confidence.expect("recorded"));
    let found: Vec<_> = found
        .map(|c| (c.self_certainty, c.tail, c.lowest_window))
        .collect();
    let expected = [
        (6.0, 3.5, 2.5),
        (22.0 / 3.0, 1.0, 1.0),
        (4.0, 2.0, 2.0),
        (4.0, 2.0, 2.0),
    ];
    assert_eq!(found, expected);
}

#[test]
fn solutions_below_the_bar_end_and_do_not_vote() {
    let config = |bar, n| Config {
        n,
        confidence_bar: Some(bar),
        confidence_warmup: 3,
        confidence_window: 2,
        ..Config::new(Strategy::Majority)
    };
    // Lowest windows of the warm-up: 1, 3, 5. The bar is 1.4 with 90, 4.6 with 10.
    let script = "-: [1]@1! a@4|b@2|[7]@4! [7]@5! a@9|b@1|c@1|d@9|[1]! [1]@1! a@3|[1]@2! [7]@9~ a@5|b@4|c@9|[2]!";
    for (bar, n, solutions, tokens, answer) in [
        // Of a@9|b@1|c@1 the second window is 1; [1]@1 is shorter than a window, but below.
        (90.0, 8, "1()? 7()! 7()! -()? 1()? 1()! 7()~ 2()!", 16, "7"),
        // In the warm-up only the third is not below 4.6. a@5|b@4 is below at once.
        (10.0, 8, "1()? 7()? 7()! -()? 1()? 1()? 7()~ -()?", 14, "7"),
        // The bar is the lowest, 1, and the fourth has a window of 1: that is not below.
        (100.0, 4, "1()! 7()! 7()! 1()!", 10, "1"),
        // The bar is 3, the lowest window of the second.
        (50.0, 6, "1()? 7()! 7()! -()? 1()? 1()?", 11, "7"),
    ] {
        for delay in DELAYS {
            let mut scripted = Script::new(script);
            scripted.delay = delay;
            let outcome = scripted.solve(&config(bar, n)).expect("scripted");
            assert_eq!(brief(&outcome), solutions, "{bar} of {n}");
            assert_eq!(outcome.policy_tokens, tokens, "{bar} of {n}");
            assert_eq!(outcome.prediction.as_deref(), Some(answer), "{bar} of {n}");
            assert!(outcome.by_n.is_empty());
        }
    }
}

#[test]
fn confidences_that_nothing_computes_are_refused() {
    let selection = |name: &str| Some(name.parse().expect("a selection"));
    for (config, sentence) in [
        (
            Config {
                selection: selection("tail-confidence-vote"),
                ..beam(4, 2)
            },
            "`selection` is tail-confidence-vote; expected majority or a selection by scores: the \
             strategy beam does not write whole solutions",
        ),
        (
            Config {
                selection: selection("tail-confidence-vote"),
                stop_rule: StopRule::Unbeatable,
                ..Config::new(Strategy::Majority)
            },
            "`stop_rule` is unbeatable; expected none: a solution has no bound on its weight in \
             tail-confidence-vote",
        ),
        (
            Config {
                confidence_bar: Some(0.0),
                n: 32,
                ..Config::new(Strategy::Majority)
            },
            "`confidence_bar` is 0; expected a percentage above 0 and at most 100",
        ),
        (
            Config {
                confidence_bar: Some(90.0),
                ..Config::new(Strategy::Majority)
            },
            "`n` is 16; expected more than `confidence_warmup` (16), or no `confidence_bar`",
        ),
        (
            Config {
                confidence_bar: Some(90.0),
                n: 32,
                ..Config::new(Strategy::BestOfN)
            },
            "`confidence_bar` is 90; expected none: the strategy best-of-n has no bar, majority has",
        ),
        (
            Config {
                confidence_window: 0,
                ..Config::new(Strategy::Majority)
            },
            "`confidence_window` is 0; expected at least 1",
        ),
    ] {
        assert_eq!(config.validate().expect_err(sentence).to_string(), sentence);
    }
}

#[test]
fn particle_filtering() {
    let config = Config {
        n: 2,
        ..Config::new(Strategy::ParticleFiltering)
    };
    check(&[Case {
        name: "paths are drawn by their odds, ended ones as well; a path that is drawn twice goes on twice",
        config,
        // Odds of 10^-7 and 10^7: every draw takes the second. Its copy is its first fork.
        script: "-/0: a:0.
                 -/1: b:1.
                 -/1.b: [8]:0. [7]:1.
                 -/1.b/0: [8]",
        tree: "-: a- b+*
               b: [7]!* [8]-",
        solutions: "7(1 1)! 7(1 1)!",
    }]);
}

#[test]
fn a_searchs_own_random_numbers_are_its_seeds() {
    let script = Script::new("-: [7]");
    let (policy, prm) = script.models();
    let problem = Script::problem();
    let numbers = |seed| {
        let config = Config {
            seed,
            ..Config::new(Strategy::ParticleFiltering)
        };
        let search = Search::new(&policy, Some(&prm), &problem, &config).expect("valid options");
        let all = (0..20).flat_map(|round| (0..50).map(move |index| (round, index)));
        all.map(|(round, index)| search.uniform(round, index))
            .collect::<Vec<f64>>()
    };
    let mut found = numbers(0);
    assert_eq!(found, numbers(0));
    assert_ne!(found, numbers(1));
    assert!(found.iter().all(|u| (0.0..1.0).contains(u)));
    let mean = found.iter().sum::<f64>() / 1000.0;
    assert!((mean - 0.5).abs() < 0.05, "{mean}");
    found.sort_by(f64::total_cmp);
    found.dedup();
    assert_eq!(found.len(), 1000);
}

#[test]
fn lookahead() {
    let ahead = |k, config| Config {
        lookahead: k,
        ..config
    };
    check(&[
        Case {
            // the greedy fork of a child is its fork 0, so its children are words 1 and 2
            name: "a child is worth where it leads; its own scores stay",
            config: ahead(1, dvts(2, 2)),
            script: "-/0: a:.9 b:.1
                     -/0.a?: x:.2
                     -/0.b?: y:.8
                     -/0.b: . [7]:.3 [8]:.4",
            tree: "-: a- b+*
                   b: [7]- [8]!*",
            solutions: "8(0.1 0.4)!",
        },
        Case {
            name: "two steps ahead, fewer where the path ends before; finished ones as they are",
            config: ahead(2, beam(3, 3)),
            script: "-: a:.1 b:.2 [1]:.3
                     a?: x:.9
                     a.x?: y:.4
                     b?: [7]!:.5
                     b.c?: z!:.3
                     b: . c:.1 [7]:.9 [7]",
            tree: "-: a- b+* [1]-
                   b: c- [7]!* [7]=",
            solutions: "7(0.2 0.9)!",
        },
        Case {
            name: "the steps ahead are aggregated with the path's own",
            config: Config {
                aggregation: Aggregation::Min,
                ..ahead(1, dvts(2, 2))
            },
            script: "-/0: a:.1 b:.3
                     -/0.a?: x:.9
                     -/0.b?: y:.4
                     -/0.b: . [7]:.3 [8]:.2",
            tree: "-: a- b+*
                   b: [7]!* [8]-",
            solutions: "7(0.3 0.3)!",
        },
        Case {
            name: "beam search too",
            config: ahead(1, beam(2, 1)),
            script: "-: a:.1 b:.2
                     a?: x:.9
                     b?: y:.9
                     a: . [7]:.5
                     b: . [8]:.6",
            tree: "-: a+ b+*
                   a: [7]!
                   b: [8]!*",
            solutions: "7(0.1 0.5)! 8(0.2 0.6)!",
        },
    ]);
}

#[test]
fn whole_solutions() {
    let whole = |strategy, n| Config {
        n,
        ..Config::new(strategy)
    };
    check(&[
        Case {
            name: "best-of-n: duplicates and cut ones stay, empty pieces go",
            config: whole(Strategy::BestOfN, 4),
            script: "-: a|[7]!:.2|.3 a|_|[7]! b|[8]!:.9|.5 c|[9]|d~:.1|.2|.5",
            tree: "-: a+* a+ b+ c+
                   a: [7]!*
                   a: [7]!
                   b: [8]!
                   c: [9]+
                   c.[9]: d~",
            solutions: "7(0.2 0.3)! 7(0.2 0.3)! 8(0.9 0.5)! 9(0.1 0.2 0.5)~",
        },
        Case {
            name: "majority needs no scores",
            config: whole(Strategy::Majority, 3),
            script: "-: a|[8]! [7]! b|[7.0]!",
            tree: "-: a+ [7]!* b+
                   a: [8]!
                   b: [7.0]!",
            solutions: "8()! 7()! 7.0()!",
        },
        Case {
            name: "cot is greedy",
            config: whole(Strategy::Cot, 1),
            script: "-?: a|[7]!",
            tree: "-: a+*
                   a: [7]!*",
            solutions: "7()!",
        },
        Case {
            name: "nothing at all",
            config: whole(Strategy::Majority, 1),
            script: "-: _!",
            tree: "-: !",
            solutions: "-()!",
        },
    ]);
}

/// The first N' solutions of a run are the run with budget N', and its verdicts are the
/// subsample's.
#[test]
fn a_subsample_is_the_smaller_run() {
    let best_of_n = "-: [7]!:.1 [8]!:.9 [7]!:.2 a|[9]!:.3|.4 [7]!:.5 [1]!:.6 [2]!:.7 [3]!:.8";
    let trees = "-/0: [8]:.3 x:.1\n -/1: [7]:.2 x:.1\n -/2: [7]:.2 x:.1\n -/3: [1]:.9 x:.1";
    for (strategy, text) in [
        (Strategy::BestOfN, best_of_n),
        (Strategy::Majority, best_of_n),
        (Strategy::Dvts, trees),
    ] {
        let config = Config {
            n: 8,
            beam_width: 2,
            ..Config::new(strategy)
        };
        let large = Script::new(text).solve(&config).expect("a run");
        let budgets: Vec<usize> = smaller_budgets(&config)
            .into_iter()
            .map(|(n, _)| n)
            .collect();
        assert_eq!(large.by_n.iter().map(|s| s.n).collect::<Vec<_>>(), budgets);
        for sample in &large.by_n {
            let config = Config {
                n: sample.n,
                ..config.clone()
            };
            let small = Script::new(text).solve(&config).expect("a run");
            let own = Subsample {
                n: sample.n,
                cost: small.cost,
                verdicts: small.verdicts,
            };
            assert_eq!(*sample, own, "{} at {}", strategy.name(), sample.n);
        }
    }
}

#[test]
fn the_selection_that_counts() {
    let text = "-: a|[7]!:.1|.4 b|[8]!:.9|.2 b|[8]!:.9|.2 c|[9]!:.3|.5";
    let cases = [
        ("min-max", "9", false),
        ("min-vote", "8", false),
        ("last-max", "9", false),
        ("mean-max", "8", false),
        ("product-max", "8", false),
        ("majority", "8", false),
    ];
    for (word, prediction, correct) in cases {
        let selection: Option<Selection> = Some(word.parse().expect("a selection"));
        let config = Config {
            n: 4,
            selection,
            ..Config::new(Strategy::BestOfN)
        };
        let outcome = Script::new(text).solve(&config).expect("a run");
        assert_eq!(outcome.prediction.as_deref(), Some(prediction), "{word}");
        assert_eq!(outcome.correct, Some(correct), "{word}");
        assert_eq!(outcome.verdicts.len(), 9);
        let json = serde_json::to_string(&outcome).expect("JSON");
        assert_eq!(
            serde_json::from_str::<offshoot_strategies::Outcome>(&json).expect("back"),
            outcome
        );
    }
}

/// A program outside of the crate writes a strategy with the same means: the best child, step by
/// step, is beam search with N = M.
#[test]
fn a_strategy_can_be_written_outside() {
    let text = "-: a:.1 b:.9 b a
                b: b:.5 [7]:.6 b [7]!";
    let config = beam(4, 4);
    let expected = Script::new(text).solve(&config).expect("a run");
    let script = Script::new(text);
    let (policy, prm) = script.models();
    let problem = Script::problem();
    let outcome = futures::executor::block_on(async {
        let search = Search::new(&policy, Some(&prm), &problem, &config)?;
        let mut paths = vec![search.root().await?];
        while paths.iter().any(|path| !path.has_ended()) {
            let expansion = search.expand(paths, config.beam_width).await?;
            paths = search.keep_best(expansion.candidates, 1);
            paths.extend(expansion.dead_ends);
        }
        let solutions = paths.into_iter().map(Path::into_solution).collect();
        Ok::<_, Error>(search.outcome(solutions))
    });
    assert_eq!(outcome.expect("a run"), expected);
}

/// Ended and dropped paths hold no branch: while one path of N/M goes on, only its stem, its
/// parent and its children live.
#[test]
fn only_live_paths_hold_branches() {
    let script = Script::new(
        "-: [1]:.9 a:.8 b:.1 c:.1
         a: d:.9 e:.1
         a.d: f:.9 g:.1
         a.d.f: [7]:.9 h:.1",
    );
    script.solve(&beam(4, 2)).expect("a run");
    // the first round is the largest: stem and four children, for both models
    assert_eq!(script.peak.get(), 2 * 5);
}

#[test]
fn settings_that_cannot_run_are_one_sentence() {
    let whole = Config::new(Strategy::BestOfN);
    let majority: Config = Config::new(Strategy::Majority);
    let cases: Vec<(Config, &str)> = vec![
        (
            Config {
                n: 0,
                ..whole.clone()
            },
            "`n` is 0; expected at least 1",
        ),
        (
            Config {
                n: 4,
                ..Config::new(Strategy::Cot)
            },
            "`n` is 4; expected 1: the strategy cot writes one solution",
        ),
        (
            beam(10, 4),
            "`n` is 10; expected a multiple of `beam_width` (4): the strategy beam keeps n / 4 branches",
        ),
        (
            dvts(2, 4),
            "`n` is 2; expected a multiple of `beam_width` (4): the strategy dvts keeps n / 4 branches",
        ),
        (beam(4, 0), "`beam_width` is 0; expected at least 1"),
        (
            Config {
                lookahead: 1,
                ..whole.clone()
            },
            "`lookahead` is 1; expected 0: the strategy best-of-n writes whole solutions, not steps",
        ),
        (
            Config {
                verify_every: 2,
                ..whole.clone()
            },
            "`verify_every` is 2; expected 1: the strategy best-of-n writes whole solutions, not steps",
        ),
        (
            Config {
                early_rejection: 64,
                ..Config::new(Strategy::Rebase)
            },
            "`early_rejection` is 64; expected 0: the strategy rebase does not keep one of M children",
        ),
        (
            Config {
                early_rejection: 64,
                verify_every: 2,
                ..beam(4, 2)
            },
            "`early_rejection` is 64; expected 0 with `verify_every` 2",
        ),
        (
            Config {
                chain_threshold: 1.5,
                ..beam(4, 2)
            },
            "`chain_threshold` is 1.5; expected a share, from 0 to 1",
        ),
        (
            Config {
                chain_threshold: 0.5,
                ..Config::new(Strategy::Mur)
            },
            "`chain_threshold` is 0.5; expected 0: the strategy mur does not have several children of every path",
        ),
        (
            Config {
                chain_threshold: 0.5,
                early_rejection: 9,
                ..beam(4, 2)
            },
            "`chain_threshold` is 0.5; expected 0 with `early_rejection` 9",
        ),
        (
            Config {
                verify_every: 0,
                ..beam(4, 2)
            },
            "`verify_every` is 0; expected at least 1",
        ),
        (
            Config {
                calibration: Some(Isotonic {
                    scores: vec![0.5],
                    probabilities: vec![0.5],
                }),
                ..Config::new(Strategy::Dvts)
            },
            "`calibration` is a map; expected none: the strategy dvts does not adapt N or M",
        ),
        (
            Config {
                calibration: Some(Isotonic {
                    scores: vec![0.5, 0.7],
                    probabilities: vec![0.5],
                }),
                ..beam(4, 2)
            },
            "`calibration` is a map; expected as many probabilities as scores, one at least, both ascending",
        ),
        (
            Config {
                confidence: 1.0,
                ..beam(4, 2)
            },
            "`confidence` is 1; expected a number above 0 and below 1",
        ),
        (
            Config {
                momentum_rate: 1.0,
                ..Config::new(Strategy::Mur)
            },
            "`momentum_rate` is 1; expected a number from 0, below 1",
        ),
        (
            Config {
                scaling_rate: 0.0,
                ..Config::new(Strategy::Mur)
            },
            "`scaling_rate` is 0; expected a number above 0",
        ),
        (
            Config {
                kv_weight: f64::NAN,
                ..Config::new(Strategy::Ets)
            },
            "`kv_weight` is NaN; expected a number from 0 up",
        ),
        (
            Config {
                cluster_distance: 3.0,
                ..Config::new(Strategy::Ets)
            },
            "`cluster_distance` is 3; expected a cosine distance, from 0 to 2",
        ),
        (
            Config {
                selection: Some(Selection::Max(Aggregation::Min)),
                ..majority
            },
            "`selection` is min-max; expected majority: the strategy majority uses no PRM and so has no scores",
        ),
        (
            Config {
                max_steps: 0,
                ..beam(4, 2)
            },
            "`max_steps` is 0; expected at least 1",
        ),
        (
            Config {
                delimiter: String::new(),
                ..whole.clone()
            },
            "`delimiter` is empty; expected the text that ends a step",
        ),
    ];
    for (config, want) in cases {
        let error = config.validate().expect_err(want);
        assert_eq!(error.to_string(), want);
    }
    let mut hot = whole;
    hot.sampling.temperature = f32::NAN;
    assert_eq!(
        hot.validate().expect_err("NaN").to_string(),
        "`temperature` is NaN; expected a number from 0 up"
    );
}

#[test]
fn a_model_failure_ends_the_search_with_its_sentence() {
    let cases = [
        ("-: a:.1", "nothing scripted at - fork 1"),
        ("-: a:.1 b", "no score at b"),
        (
            "-: a:.1 b:NaN",
            "the PRM returned NaN for the step \"b\": scores must be finite numbers",
        ),
    ];
    for (text, want) in cases {
        let error = Script::new(text).solve(&beam(2, 2)).expect_err(want);
        assert_eq!(error.to_string(), want);
    }
}
