//! `sim flow`: one connection alone at several round trips and losses.

use std::time::Duration;

use pantala_sim::{Congestion, Flow};

use crate::{figures::quantile, one};

/// Milliseconds one way, and parts of the packets that are lost.
const WAYS: [f64; 4] = [0.1, 10.0, 20.0, 40.0];
const LOSSES: [f64; 3] = [0.0, 0.001, 0.01];

/// Seconds ÷ what the bytes take over the link: the median over the seeds.
pub fn ratio(congestion: Congestion, mbit: f64, mib: u32, way: f64, loss: f64, seeds: u64) -> f64 {
    let (rate, size) = (mbit * 1e6 * one::CONTENT, mib << 20);
    let floor = f64::from(size) * 8.0 / rate;
    let took = |seed| {
        pantala_sim::flow(&Flow {
            congestion,
            size,
            rate,
            latency: Duration::from_secs_f64(way / 1e3),
            loss,
            queue: one::QUEUE,
            burst: one::BURST,
            seed,
        }) / floor
    };
    let mut ratios: Vec<f64> = (1..=seeds).map(took).collect();
    ratios.sort_by(f64::total_cmp);
    quantile(&ratios, 0.5)
}

/// Prints a Markdown table of both congestion controls.
pub fn table(mbit: f64, mib: u32, seeds: u64) -> Result<(), String> {
    if mbit <= 0.0 || mib == 0 || mib >= 4096 {
        return Err("flow: give a rate above 0 and 1 to 4095 MiB".into());
    }
    println!("{mib} MiB at {mbit} Mbit/s, time ÷ (S/B):\n");
    let losses = LOSSES.map(|loss| format!("{} % lost", loss * 100.0));
    println!(
        "| | {} |\n|{}",
        losses.join(" | "),
        " --- |".repeat(LOSSES.len() + 1)
    );
    for congestion in [Congestion::Bbr, Congestion::Cubic] {
        for way in WAYS {
            let cells =
                LOSSES.map(|loss| format!("{:.2}", ratio(congestion, mbit, mib, way, loss, seeds)));
            println!(
                "| {congestion:?}, {way} ms one way | {} |",
                cells.join(" | ")
            );
        }
    }
    Ok(())
}
