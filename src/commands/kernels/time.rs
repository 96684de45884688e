//! `offshoot kernels time`: times on a card, each printed as soon as it is known.

use ::kernels::cuda::Which;
use ::kernels::cuda::items::Sharing;
use ::kernels::cuda::study::Beam;
use ::kernels::cuda::study::time::Stopwatch;
use ::kernels::sampling::Sampling;
use bench::figures::Figure;
use session::Device;

use crate::commands::print;
use crate::error::{Done, Failure};
use crate::flags::{TimeFlags, TimedTopic};

/// Runs the command.
pub fn run(flags: &TimeFlags) -> Done {
    let which = match flags.device {
        Device::Cuda(index) => Which::Card(index),
        Device::Emulated => Which::Emulated,
        _ => {
            return Err(Failure::new(
                "--device: expected cuda, cuda:INDEX or emulated",
            ));
        }
    };
    let mut timer = Timer {
        stopwatch: Stopwatch::open(which)?,
        flags,
    };
    if timer.stopwatch.emulated() && !flags.figures {
        print("emulated: seconds of this machine, which say nothing about a card\n")?;
    }
    match flags.topic {
        TimedTopic::Ceilings => timer.ceilings(),
        TimedTopic::Occupancy => timer.occupancy(),
        TimedTopic::Linear => timer.linear(),
        TimedTopic::Gated => timer.gated(),
        TimedTopic::Sampling => timer.sampling(),
        TimedTopic::Attention => timer.attention(),
    }
}

/// A card, and what to measure on it.
struct Timer<'a> {
    stopwatch: Stopwatch,
    flags: &'a TimeFlags,
}

impl Timer<'_> {
    /// Prints one figure.
    fn give(&self, case: &str, figure: &str, value: (f64, &str)) -> Done {
        let topic = self.flags.topic;
        let figure = Figure {
            emulated: self.stopwatch.emulated(),
            ..Figure::new(topic.word(), case, figure, value)
        };
        if self.flags.figures {
            figure.print().map_err(Failure::new)
        } else {
            print(&(figure.words() + "\n"))
        }
    }

    /// What the card reaches: bandwidths of DRAM and L2, the gap between two launches of a graph, and
    /// bf16 GEMMs of cuBLASLt where it is installed.
    fn ceilings(&mut self) -> Done {
        // On the emulator sizes that end soon.
        let (large, in_l2, rounds) = match self.stopwatch.emulated() {
            true => (1 << 18, 1 << 16, 2),
            false => {
                // A copy takes two of the large buffers.
                let free = self.stopwatch.backend().free_memory()?;
                ((free / 4).min(4 << 30) & !0xff, 16 << 20, 64)
            }
        };
        let read = self.stopwatch.read(large, 1)?;
        self.give("read", "bandwidth", (read / 1e12, "TB/s"))?;
        let copy = self.stopwatch.copy(large)?;
        self.give("copy", "bandwidth", (copy / 1e12, "TB/s"))?;
        let l2 = self.stopwatch.read(in_l2, rounds)?;
        self.give("l2-read", "bandwidth", (l2 / 1e12, "TB/s"))?;
        let gap = self.stopwatch.graph_launch()?;
        self.give("graph-launch", "gap", (gap * 1e6, "us"))?;
        let side = if self.stopwatch.emulated() { 64 } else { 8192 };
        let times = self.stopwatch.linear((side / 2, side, side))?;
        match times.iter().find(|(name, _)| *name == "cublaslt") {
            Some((_, seconds)) => {
                let flops = 2.0 * (side / 2 * side * side) as f64;
                self.give("gemm", "compute", (flops / seconds / 1e12, "TFLOP/s"))
            }
            None => Ok(()),
        }
    }

    /// The resident blocks of every kernel against the catalogue's, and where the card puts blocks.
    fn occupancy(&mut self) -> Done {
        let placed = self.stopwatch.placement()?;
        let sms = placed.len() / 2;
        let paired = (0..sms).filter(|&w| placed[w] == placed[w + sms]).count();
        let share = paired as f64 / sms as f64;
        self.give("blocks w and w + SMs", "same SM", (share, "share"))?;
        let dims: Vec<usize> = self.flags.heads.iter().map(|heads| heads.2).collect();
        for kernel in self.stopwatch.occupancy(&dims)? {
            let case = format!("{} {}", kernel.module, kernel.kernel);
            self.give(&case, "resident", (kernel.resident as f64, "blocks"))?;
            self.give(&case, "wanted", (kernel.wanted as f64, "blocks"))?;
        }
        Ok(())
    }

    fn linear(&mut self) -> Done {
        for &shape in &self.flags.shapes {
            for (name, seconds) in self.stopwatch.linear(shape)? {
                self.give(&shape_words(shape), name, (seconds * 1e6, "us"))?;
            }
        }
        Ok(())
    }

    fn gated(&mut self) -> Done {
        for &shape in &self.flags.shapes {
            for (name, seconds) in self.stopwatch.gated(shape)? {
                self.give(&shape_words(shape), name, (seconds * 1e6, "us"))?;
            }
        }
        Ok(())
    }

    fn sampling(&mut self) -> Done {
        let plain = Sampling {
            temperature: 0.8,
            ..Sampling::default()
        };
        let filtered = Sampling {
            top_k: 20,
            top_p: 0.8,
            ..plain
        };
        let settings = [("temperature", &plain), ("top-k=20 top-p=0.8", &filtered)];
        for &vocab in &self.flags.vocab {
            for &draws in &self.flags.draws {
                for (name, sampling) in settings {
                    for (logits, peaked) in [("", false), (" peaked", true)] {
                        let (draws, vocab) = (draws as usize, vocab as usize);
                        let case = format!("draws={draws} vocab={vocab} {name}{logits}");
                        let seconds = self.stopwatch.sampling(draws, vocab, sampling, peaked)?;
                        self.give(&case, "sample", (seconds * 1e6, "us"))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn attention(&mut self) -> Done {
        let flags = self.flags;
        for &heads in &flags.heads {
            for (&n, &prompt) in flags
                .n
                .iter()
                .flat_map(|n| flags.prompt.iter().map(move |p| (n, p)))
            {
                self.attention_over(heads, n, prompt)?;
            }
        }
        Ok(())
    }

    /// Attention over one tree by every plan.
    fn attention_over(&mut self, heads: (usize, usize, usize), n: u32, prompt: u32) -> Done {
        let (steps, step_tokens) = (self.flags.steps, self.flags.step_tokens);
        let beam = Beam {
            beams: n as usize,
            width: 4.min(n as usize),
            prompt: prompt as usize,
            steps: steps as usize,
            step_tokens: step_tokens as usize,
            seed: 0,
        };
        let tree = match (steps, step_tokens) {
            (16, 64) => String::new(),
            _ => format!(" steps={steps}x{step_tokens}"),
        };
        for (plan, sharing) in [
            ("tree", Sharing::Tree),
            ("cascade", Sharing::Cascade),
            ("flat", Sharing::Flat),
        ] {
            let heads_words = shape_words(heads);
            let case = format!("heads={heads_words} n={n} prompt={prompt} plan={plan}{tree}");
            let seconds = self.stopwatch.attention(&beam, heads, sharing)?;
            self.give(&case, "attention", (seconds * 1e6, "us"))?;
        }
        Ok(())
    }
}

fn shape_words((a, b, c): (usize, usize, usize)) -> String {
    format!("{a}/{b}/{c}")
}
