//! Philox4x32-10, the counter-based generator of sampling.
//!
//! Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). A
//! random number is a pure function of a key and a counter, so a branch's draws do not depend on
//! what else is in the batch, on preemption, or on the device.
//!
//! Keys form a tree: [`root_key`] derives a stream's key from a seed, and [`fork_key`] a child's
//! key from its parent's; [`uniform_u64`] draws. The three use different values of the third
//! counter word, so that a fork and a draw of the same key use different counters.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// The use of a counter, its third word.
#[derive(Clone, Copy)]
enum Domain {
    Draw = 0,
    Fork = 1,
    Root = 2,
}

/// The Philox4x32-10 bijection of `counter` under `key`.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..ROUNDS {
        if round > 0 {
            key[0] = key[0].wrapping_add(WEYL[0]);
            key[1] = key[1].wrapping_add(WEYL[1]);
        }
        let product0 = u64::from(counter[0]) * u64::from(MULTIPLIERS[0]);
        let product1 = u64::from(counter[2]) * u64::from(MULTIPLIERS[1]);
        counter = [
            (product1 >> 32) as u32 ^ counter[1] ^ key[0],
            product1 as u32,
            (product0 >> 32) as u32 ^ counter[3] ^ key[1],
            product0 as u32,
        ];
    }
    counter
}

fn words(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

fn keyed(key: u64, counter: u64, domain: Domain) -> u64 {
    let [low, high] = words(counter);
    let out = philox4x32_10([low, high, domain as u32, 0], words(key));
    u64::from(out[0]) | u64::from(out[1]) << 32
}

/// 64 uniform random bits: draw number `counter` of `key`.
pub fn uniform_u64(key: u64, counter: u64) -> u64 {
    keyed(key, counter, Domain::Draw)
}

/// The key of child number `child` of a branch with key `parent`.
pub fn fork_key(parent: u64, child: u64) -> u64 {
    keyed(parent, child, Domain::Fork)
}

/// The key of stream `stream` (a problem's index, say) under a user's `seed`.
pub fn root_key(seed: u64, stream: u64) -> u64 {
    keyed(seed, stream, Domain::Root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// The `philox4x32 10` lines of Random123's `kat_vectors`: counter, key, output.
    const KNOWN_ANSWERS: [([u32; 4], [u32; 2], [u32; 4]); 3] = [
        (
            [0; 4],
            [0; 2],
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
        ),
        (
            [0xffff_ffff; 4],
            [0xffff_ffff; 2],
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
        ),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ];

    #[test]
    fn known_answers_of_random123() {
        for (counter, key, expected) in KNOWN_ANSWERS {
            assert_eq!(
                philox4x32_10(counter, key),
                expected,
                "counter {counter:x?} key {key:x?}"
            );
        }
    }

    #[test]
    fn keys_and_draws_of_a_small_tree_are_distinct() {
        let mut seen = HashSet::new();
        let mut new = |value: u64, what: String| assert!(seen.insert(value), "{what} is not new");
        for stream in 0..20 {
            let root = root_key(7, stream);
            new(root, format!("root {stream}"));
            for child in 0..20 {
                let key = fork_key(root, child);
                new(key, format!("child {child} of root {stream}"));
                for position in 0..20 {
                    new(
                        uniform_u64(key, position),
                        format!("draw {position} of child {child} of root {stream}"),
                    );
                }
            }
        }
    }

    #[test]
    fn every_bit_of_key_and_counter_matters() {
        let base = uniform_u64(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
        for bit in 0..64 {
            let key = uniform_u64(0x0123_4567_89ab_cdef ^ 1 << bit, 0xfedc_ba98_7654_3210);
            let counter = uniform_u64(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210 ^ 1 << bit);
            for changed in [key, counter] {
                let flipped = (changed ^ base).count_ones();
                assert!((12..=52).contains(&flipped), "bit {bit}: {flipped} flipped");
            }
        }
    }
}
