//! Counters as JSON and as a table.

use super::{LaunchCounts, Totals, Traffic};
use std::collections::BTreeMap;
use std::fmt::Write;

fn escape(s: &str) -> String {
    let mut out = String::new();
    for c in s.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out
}

fn traffic(t: &Traffic) -> String {
    format!(
        "{{\"requests\": {}, \"sectors\": {}, \"bytes_used\": {}}}",
        t.requests, t.sectors, t.bytes
    )
}

fn totals(t: &Totals) -> String {
    let classes: Vec<String> = t
        .instructions
        .iter()
        .map(|(k, v)| format!("\"{k}\": {v}"))
        .collect();
    let mut s = String::new();
    let _ = write!(
        s,
        "\"warp_instructions\": {}, \"by_class\": {{{}}}, ",
        t.warp_instructions(),
        classes.join(", ")
    );
    let _ = write!(
        s,
        "\"lanes\": {}, \"divergent_branches\": {}, \"barriers\": {}, ",
        t.lanes, t.divergent_branches, t.barriers
    );
    let _ = write!(s, "\"global_load\": {}, ", traffic(&t.global_load));
    let _ = write!(s, "\"global_store\": {}, ", traffic(&t.global_store));
    let _ = write!(s, "\"global_atomic\": {}, ", traffic(&t.global_atomic));
    let _ = write!(
        s,
        "\"l2_hit_sectors\": {}, \"l2_miss_sectors\": {}, ",
        t.l2_hit_sectors, t.l2_miss_sectors
    );
    let _ = write!(
        s,
        "\"dram_read_bytes\": {}, \"dram_write_bytes\": {}, ",
        t.dram_read_bytes, t.dram_write_bytes
    );
    let _ = write!(
        s,
        "\"shared_requests\": {}, \"shared_passes\": {}, ",
        t.shared_requests, t.shared_passes
    );
    let _ = write!(s, "\"bank_conflicts\": {}, ", t.bank_conflicts);
    let _ = write!(
        s,
        "\"tensor_products\": {}, \"tensor_useful\": {}, ",
        t.tensor_products, t.tensor_useful
    );
    let ranges: Vec<String> = t
        .ranges
        .iter()
        .map(|(name, r)| {
            format!(
                "\"{}\": {{\"load\": {}, \"store\": {}, \"atomic\": {}, \"l2_hit_sectors\": {}, \
                 \"l2_miss_sectors\": {}, \"dram_read_bytes\": {}}}",
                escape(name),
                traffic(&r.load),
                traffic(&r.store),
                traffic(&r.atomic),
                r.l2_hit_sectors,
                r.l2_miss_sectors,
                r.dram_read_bytes
            )
        })
        .collect();
    let _ = write!(s, "\"ranges\": {{{}}}", ranges.join(", "));
    s
}

fn list(v: &[u64]) -> String {
    v.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

fn by_kernel(launches: &[LaunchCounts]) -> BTreeMap<&str, (u64, Totals)> {
    let mut kernels: BTreeMap<&str, (u64, Totals)> = BTreeMap::new();
    for l in launches {
        let k = kernels.entry(&l.kernel).or_default();
        k.0 += 1;
        k.1.add(&l.totals);
    }
    kernels
}

/// All launches and their sums by kernel.
pub fn json(device: &str, launches: &[LaunchCounts]) -> String {
    let mut s = format!(
        "{{\n  \"device\": \"{}\",\n  \"kernels\": [",
        escape(device)
    );
    for (i, (name, (n, t))) in by_kernel(launches).into_iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(
            s,
            "{comma}\n    {{\"kernel\": \"{}\", \"launches\": {n}, {}}}",
            escape(name),
            totals(&t)
        );
    }
    s.push_str("\n  ],\n  \"launches\": [");
    for (i, l) in launches.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let m = &l.modelled;
        let lines: Vec<String> = l
            .lines
            .iter()
            .map(|(line, n)| format!("[{line}, {n}]"))
            .collect();
        let _ = write!(
            s,
            "{comma}\n    {{\"kernel\": \"{}\", \"grid\": {:?}, \"block\": {:?}, \"shared_bytes\": {}, \"blocks\": {}, \
             \"blocks_per_sm\": {}, \"occupancy_without_registers\": {:.4}, {}, \"sm_blocks\": [{}], \
             \"sm_warp_instructions\": [{}], \"sm_tensor_products\": [{}], \"sm_sectors\": [{}], \
             \"sm_max_over_mean\": {:.4}, \"executions_by_ptx_line\": [{}]}}",
            escape(&l.kernel),
            m.grid,
            m.block,
            m.shared_bytes,
            l.blocks,
            m.blocks_per_sm,
            l.occupancy(),
            totals(&l.totals),
            list(&l.sm_blocks),
            list(&l.sm_instructions),
            list(&l.sm_tensor_products),
            list(&l.sm_sectors),
            l.balance(),
            lines.join(", "),
        );
    }
    s.push_str("\n  ]\n}\n");
    s
}

/// `part` of `whole` in percent.
fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        "-".to_owned()
    } else {
        format!("{:.1}", 100.0 * part as f64 / whole as f64)
    }
}

/// A kernel's row of the table.
fn cells(name: &str, launches: u64, t: &Totals) -> Vec<String> {
    let w = t.warp_instructions();
    vec![
        name.to_owned(),
        launches.to_string(),
        w.to_string(),
        if w == 0 {
            "-".to_owned()
        } else {
            format!("{:.2}", t.lanes as f64 / w as f64)
        },
        t.divergent_branches.to_string(),
        t.global_load.sectors.to_string(),
        percent(t.global_load.bytes, t.global_load.sectors * 32),
        t.global_store.sectors.to_string(),
        percent(t.global_store.bytes, t.global_store.sectors * 32),
        t.dram_read_bytes.to_string(),
        t.dram_write_bytes.to_string(),
        t.bank_conflicts.to_string(),
        t.tensor_products.to_string(),
        percent(t.tensor_useful, t.tensor_products),
        t.barriers.to_string(),
        t.global_atomic.requests.to_string(),
    ]
}

/// Sums by kernel, one row each.
pub fn table(device: &str, launches: &[LaunchCounts]) -> String {
    let head = [
        "kernel",
        "launches",
        "warp instr",
        "lanes/instr",
        "div branches",
        "ld sectors",
        "ld used %",
        "st sectors",
        "st used %",
        "DRAM read B",
        "DRAM write B",
        "bank conflicts",
        "tensor MACs",
        "useful %",
        "barriers",
        "atomics",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (name, (n, t)) in by_kernel(launches) {
        rows.push(cells(name, n, &t));
    }
    let width: Vec<usize> = (0..head.len())
        .map(|c| rows.iter().map(|r| r[c].len()).max().unwrap_or(0))
        .collect();
    let mut s = format!("counted on an emulated {device}; counts, not times\n");
    for r in rows {
        let cells: Vec<String> = r
            .iter()
            .zip(&width)
            .enumerate()
            .map(|(i, (c, w))| {
                if i == 0 {
                    format!("{c:<w$}")
                } else {
                    format!("{c:>w$}")
                }
            })
            .collect();
        let _ = writeln!(s, "{}", cells.join("  "));
    }
    s
}
