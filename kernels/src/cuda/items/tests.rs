//! Every (row, visible token) pair is in exactly one item, whatever the tree, and sharing never
//! costs more than the model says it saves.

use super::assignment::first_fit;
use super::*;
use crate::cuda::study::Beam;
use crate::plan::random::{Random, random_plan};
use std::collections::HashMap;

fn random_shape(random: &mut Random, block_tokens: usize) -> AttentionShape {
    AttentionShape {
        head_dim: [64, 256][random.below(2)],
        group: [1, 2, 3, 4, 5, 7, 8, 16][random.below(8)],
        kv_heads: 1 + random.below(4),
        block_tokens,
        window: (random.below(3) == 0).then(|| 1 + random.below(100) as u32),
        sms: 1 + random.below(20),
        resident: 1 + random.below(3),
    }
}

/// The place of every token of a row's path, by position: (block, offset).
fn path(plan: &BatchPlan, row: usize, block_tokens: usize) -> Vec<(u32, u32)> {
    let mut path = Vec::new();
    for run in plan.runs.iter().filter(|run| run.rows.contains(&row)) {
        for i in 0..run.num_tokens {
            let block = run.blocks.start + i as usize / block_tokens;
            path.push((plan.blocks[block].0, i % block_tokens as u32));
        }
    }
    path
}

fn check(plan: &BatchPlan, shape: &AttentionShape, sharing: Sharing) {
    let work = build(plan, shape, sharing);
    let (group, block_tokens) = (shape.group, shape.block_tokens);
    let paths: Vec<Vec<(u32, u32)>> = (0..plan.rows.len())
        .map(|row| path(plan, row, block_tokens))
        .collect();
    // How often every packed row is shown the token at a position.
    let mut seen: Vec<Vec<u8>> = (0..plan.rows.len() * group)
        .map(|packed| vec![0; plan.rows[packed / group].position as usize + 1])
        .collect();
    for item in &work.items {
        assert!((1..=shape.max_rows()).contains(&(item.rows as usize)));
        for packed in item.first_row..item.first_row + item.rows {
            let row = packed as usize / group;
            let position = plan.rows[row].position;
            assert!(item.min_position <= position && position <= item.max_position);
            // As the kernel walks: slots of `block_tokens` each, those beyond `valid` skipped.
            for first in (0..item.slots as usize).step_by(block_tokens) {
                let entry = work.entries[item.first_entry as usize + first / block_tokens];
                let slots = (item.slots as usize - first).min(block_tokens) as u32;
                for offset in 0..slots.min(entry[2]) {
                    let at = entry[1] + offset;
                    if at <= position && shape.window.is_none_or(|w| at + w > position) {
                        seen[packed as usize][at as usize] += 1;
                        assert_eq!(paths[row][at as usize], (entry[0], offset));
                    }
                }
            }
        }
    }
    // Every visible token once, and nothing else.
    for (packed, seen) in seen.iter().enumerate() {
        let position = plan.rows[packed / group].position as usize;
        let hidden = shape
            .window
            .map_or(0, |w| (position + 1).saturating_sub(w as usize));
        let right =
            seen[..hidden].iter().all(|&n| n == 0) && seen[hidden..].iter().all(|&n| n == 1);
        assert!(
            right,
            "packed row {packed} at {position}, {shape:?}: {seen:?}"
        );
    }
    // Every unit of every item once.
    let mut units = work.units.clone();
    units.sort_unstable();
    let all = (0..work.items.len() as u32)
        .flat_map(|i| (0..shape.kv_heads as u32).map(move |head| [i, head]));
    assert_eq!(units, all.collect::<Vec<_>>());
    assert_eq!(work.lists.len(), shape.workers() + 1);
    assert_eq!(work.lists.last(), Some(&(work.units.len() as u32)));
    // A row with one item is final; else each of its slots is merged once.
    let mut slots: HashMap<u32, Vec<i32>> = HashMap::new();
    for item in &work.items {
        for i in 0..item.rows {
            let dest = work.dests[(item.first_dest + i) as usize];
            slots.entry(item.first_row + i).or_default().push(dest);
        }
    }
    let mut used = Vec::new();
    let mut merges = work.merges.iter();
    for packed in 0..seen.len() as u32 {
        let dests = &slots[&packed];
        if let [only] = dests[..] {
            assert_eq!(only, -1, "packed row {packed}");
            continue;
        }
        let merge = merges.next().expect("a merge per row with several items");
        assert_eq!((merge[0], merge[2]), (packed, dests.len() as u32));
        let merged = &work.merge_slots[merge[1] as usize..][..merge[2] as usize];
        let merged: Vec<i32> = merged.iter().map(|&s| s as i32).collect();
        assert_eq!(&merged, dests);
        used.extend(merged);
    }
    assert_eq!(merges.next(), None);
    used.sort_unstable();
    assert_eq!(used, (0..work.partials as i32).collect::<Vec<_>>());
}

#[test]
fn every_visible_token_is_in_exactly_one_item() {
    for seed in 0..400 {
        let mut random = Random { seed, count: 0 };
        let block_tokens = [1, 2, 4, 16, 32, 48, 100][random.below(7)];
        let plan = random_plan(&mut random, block_tokens);
        let shape = random_shape(&mut random, block_tokens);
        for sharing in [Sharing::Tree, Sharing::Flat, Sharing::Cascade] {
            check(&plan, &shape, sharing);
        }
    }
}

/// The model's cost of a plan before splits.
fn cost(plan: &BatchPlan, shape: &AttentionShape, rule: SharingRule) -> (u64, usize) {
    let builder = Builder {
        plan,
        shape,
        min_tile: shape.tile_transfer(),
    };
    let (nodes, roots) = builder.forest();
    let mut pieces = Vec::new();
    for root in roots {
        builder.cut(&nodes, root, Vec::new(), rule, &mut pieces);
    }
    (builder.cost(&pieces), pieces.len())
}

#[test]
fn work_is_bounded_by_what_is_unique() {
    for seed in 1000..1400 {
        let mut random = Random { seed, count: 0 };
        let block_tokens = [4, 16, 32][random.below(3)];
        let plan = random_plan(&mut random, block_tokens);
        let mut shape = random_shape(&mut random, block_tokens);
        shape.window = None;
        let work = build(&plan, &shape, Sharing::Tree);
        let least = shape.tile_transfer();

        // Unique work: each run once per tile of the rows below it. To it comes, per run, one item
        // and its rows' partial results, a tile's padding, and what balance splits off: an item
        // and partial results more for each of the at most five even parts a worker has.
        let unique: u64 = plan
            .runs
            .iter()
            .filter(|run| !run.rows.is_empty())
            .map(|run| {
                let rows = run.rows.len() * shape.group;
                let padded = run.num_tokens as usize + TILE + block_tokens;
                shape.cost(rows, padded, least) + shape.partials(rows as u64, least)
            })
            .sum();
        let heads = shape.kv_heads as u64;
        let splits = 6 * shape.workers() as u64 * shape.cost(shape.max_rows(), 2 * TILE, least);
        assert!(
            work.total <= unique * heads + splits,
            "seed {seed}: {} of {unique} x {heads} + {splits}",
            work.total
        );
        // Sharing never loses, and the assignment is within one item of even.
        for rule in [SharingRule::Never, SharingRule::Always] {
            let (other, _) = cost(&plan, &shape, rule);
            let best = [
                SharingRule::Cheaper,
                SharingRule::Always,
                SharingRule::Never,
            ]
            .map(|r| cost(&plan, &shape, r).0);
            assert!(*best.iter().min().expect("three") <= other, "seed {seed}");
        }
        let largest = work
            .items
            .iter()
            .map(|i| shape.cost(i.rows as usize, i.slots as usize, 0));
        let even = work.total / shape.workers() as u64;
        assert!(
            work.heaviest <= even + largest.max().unwrap_or(0),
            "seed {seed}"
        );
    }
}

#[test]
fn beam_search_reads_shared_steps_once() {
    // The heads of Llama-3.2-1B and those of Qwen2.5-1.5B, at both prompts of the study.
    for (head_dim, group, kv_heads, prompt, fewer) in [
        (64, 4, 8, 512, 8),
        (64, 4, 8, 2048, 8),
        (128, 6, 2, 512, 6),
        (128, 6, 2, 2048, 6),
    ] {
        let beam = Beam {
            beams: 64,
            width: 4,
            prompt,
            steps: 16,
            step_tokens: 64,
            seed: 0,
        };
        let (plan, _) = beam.plan();
        let shape = AttentionShape {
            head_dim,
            group,
            kv_heads,
            block_tokens: 16,
            window: None,
            sms: 132,
            resident: 2,
        };
        let read =
            |work: &AttentionWork| -> usize { work.items.iter().map(|i| i.slots as usize).sum() };
        let work = build(&plan, &shape, Sharing::Tree);
        let (tree, flat) = (read(&work), read(&build(&plan, &shape, Sharing::Flat)));
        assert!(fewer * tree <= flat, "{tree} tokens read, flat {flat}");
        let even = work.total as f64 / 132.0;
        assert!(
            work.heaviest_sm as f64 <= 1.10 * even,
            "{} of {even}",
            work.heaviest_sm
        );
    }
}

#[test]
fn first_fit_is_more_even_where_the_least_loaded_is_not() {
    // The textbook case: LPT ends at 7, 6 is possible.
    let shape = AttentionShape {
        head_dim: 64,
        group: 1,
        kv_heads: 1,
        block_tokens: 16,
        window: None,
        sms: 2,
        resident: 1,
    };
    let costs = [3, 3, 2, 2, 2];
    let assignment = Assignment::new(&shape, &costs);
    assert_eq!(
        (
            assignment.heaviest,
            assignment.heaviest_sm,
            assignment.total
        ),
        (6, 6, 12)
    );
    // Nothing fits into less than the largest, and what fits keeps to the capacity.
    assert_eq!(first_fit(&costs, 2, 5), None);
    assert_eq!(first_fit(&costs, 2, 6), Some(vec![0, 0, 1, 1, 1]));
}
