//! `sim sweep`: swarms drawn at random from a wide world, simulated one after the other; and the same of files that a sweep
//! on sockets has written, beside what was measured there.

use std::{fs, path::PathBuf, time::Instant};

use crate::{
    figures::quantile,
    one::{Control, One, Outcome, Switch},
};

/// Hosts, and Mbit/s of their links: from thin edges to data centres.
const PEERS: (f64, f64) = (2.0, 10_000.0);
const RATE: (f64, f64) = (5.0, 1000.0);
const CONTENTS: u64 = 20;
/// MiB of each content.
const CONTENT: (f64, f64) = (0.1, 200.0);
/// Seconds that all contents together take on the quickest link.
const SECONDS: (f64, f64) = (3.0, 8.0);
/// Bytes that all hosts together read, at most: what takes seconds to simulate.
const CARRIED: f64 = 24e9;
/// Seconds within which those come who come one after the other, at most.
const ARRIVALS: (f64, f64) = (2.0, 7200.0);
/// Milliseconds one way.
const DELAY: (f64, f64) = (0.1, 100.0);

/// SplitMix64: the same scenario for the same seed and number.
struct Dice(u64);

impl Dice {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// As often between 10 and 20 as between 100 and 200.
    fn between(&mut self, (low, high): (f64, f64)) -> f64 {
        low * (high / low).powf(self.unit())
    }

    fn among<T: Copy>(&mut self, of: &[T]) -> T {
        of[(self.unit() * of.len() as f64) as usize]
    }
}

/// Scenario `number` of a seed.
pub fn draw(seed: u64, number: u64) -> One {
    let mut dice = Dice(seed.wrapping_mul(1_000_003).wrapping_add(number));
    dice.unit();
    // Small ones more often than large ones: of seven one has more than a thousand.
    let size = dice.unit().powi(2);
    let peers = (PEERS.0 * (PEERS.1 / PEERS.0).powf(size)).round() as usize;
    let seconds = dice.between(SECONDS);
    // What carries so many hosts' bytes.
    let widest = CARRIED * 8.0 / peers as f64 / seconds / 1e6;
    let rate = dice.between((RATE.0, RATE.1.min(widest.max(2.0 * RATE.0))));
    // Links alike; every other one at a quarter; or anything down to a twentieth.
    let kind = dice.among(&[0, 0, 0, 1, 2]);
    let rates_mbit: Vec<f64> = (0..peers)
        .map(|peer| match kind {
            1 if peer % 2 == 1 => rate / 4.0,
            2 => dice.between((rate / 20.0, rate)),
            _ => rate,
        })
        .collect();
    let total = seconds * rate * 1e6 / 8.0 * crate::one::CONTENT;
    let contents = contents(&mut dice, total);
    let own = dice.unit() < 0.5;
    let orders = (0..peers).map(|_| order(&mut dice, contents.len(), own));
    let orders = orders.collect();
    let arrivals_s = arrivals(&mut dice, peers);
    let near = dice.unit() < 0.4;
    let delay_ms = if near { 0.0 } else { dice.between(DELAY) };
    One {
        scenario: format!("{seed}/{number}"),
        command: format!("sim sweep --seed {seed} --only {number}"),
        peers,
        rates_mbit,
        origin_mbit: rate,
        contents,
        parallel: dice.among(&[1, 3, 3, 3, 9]),
        orders,
        arrivals_s,
        delay_ms: (delay_ms * 10.0).round() / 10.0,
        jitter_ms: 0.0,
        loss_percent: dice.among(&[0.0, 0.0, 0.1]),
        cc: Some(dice.among(&[Control::Bbr, Control::Bbr, Control::Bbr, Control::Cubic])),
        memory_bytes: 512 << 20,
        seed: seed.wrapping_mul(1000) + number,
        without: Vec::new(),
        result: None,
    }
}

/// Some are many times as large as others, as layers are.
fn contents(dice: &mut Dice, total: f64) -> Vec<u64> {
    let mib = f64::from(1 << 20);
    let most = (total / mib / CONTENT.0).max(1.0);
    let least = (total / mib / CONTENT.1).ceil();
    let count = dice
        .between((1.0, CONTENTS as f64))
        .round()
        .clamp(least, most.max(least));
    let weights: Vec<f64> = (0..count as usize)
        .map(|_| dice.between((1.0, 30.0)))
        .collect();
    let sum: f64 = weights.iter().sum();
    let sizes = weights.iter().map(|weight| total * weight / sum);
    sizes
        .map(|size| size.clamp(CONTENT.0 * mib, CONTENT.1 * mib) as u64)
        .collect()
}

fn order(dice: &mut Dice, contents: usize, own: bool) -> Vec<u32> {
    let mut order: Vec<u32> = (0..contents as u32).collect();
    if own {
        for at in (1..contents).rev() {
            order.swap(at, (dice.unit() * (at + 1) as f64) as usize);
        }
    }
    order
}

/// All at once, one after the other, or at random within up to two hours.
fn arrivals(dice: &mut Dice, peers: usize) -> Vec<f64> {
    let kind = dice.among(&[0, 1, 2]);
    let within = dice.between(ARRIVALS);
    let every = dice.among(&[0.2, 0.5]);
    let mut arrivals: Vec<f64> = (0..peers)
        .map(|peer| match kind {
            0 => 0.0,
            1 => peer as f64 * every,
            _ => dice.unit() * within,
        })
        .collect();
    arrivals.sort_by(f64::total_cmp);
    arrivals
}

/// What a sweep is asked for.
pub struct Sweep {
    pub seed: u64,
    pub count: u64,
    pub only: Option<u64>,
    pub json: Option<PathBuf>,
    pub without: Vec<Switch>,
}

/// Draws and simulates, prints each as soon as it is done, and how all of them did.
pub fn run(sweep: &Sweep) -> Result<bool, String> {
    let numbers = match sweep.only {
        Some(number) => number..number + 1,
        None => 1..sweep.count + 1,
    };
    let drawn = numbers.map(|number| One {
        without: sweep.without.clone(),
        ..draw(sweep.seed, number)
    });
    simulate(drawn, sweep.json.as_ref())
}

/// The scenarios of a file, a line each, beside what was measured of them.
pub fn read(text: &str) -> Result<Vec<One>, String> {
    let one = |(number, line): (usize, &str)| {
        One::read(line).map_err(|error| format!("line {}: {error}", number + 1))
    };
    // A file may as well be one scenario over several lines.
    match One::read(text) {
        Ok(alone) => Ok(vec![alone]),
        Err(error) if text.lines().filter(|line| !line.trim().is_empty()).count() < 2 => Err(error),
        Err(error) if text.lines().next().is_some_and(|line| line.trim() == "{") => Err(error),
        Err(_) => {
            let lines = text.lines().enumerate();
            lines
                .filter(|(_, line)| !line.trim().is_empty())
                .map(one)
                .collect()
        }
    }
}

/// Whether all were done.
#[expect(
    clippy::disallowed_methods,
    reason = "how long it takes in the world outside is one of the figures"
)]
pub fn simulate(
    scenarios: impl IntoIterator<Item = One>,
    json: Option<&PathBuf>,
) -> Result<bool, String> {
    println!("{}\n", crate::one::IMITATED);
    println!(
        "{:>9} {:>7} {:>7} {:>7} {:>7} {:>6} {:>7} {:>6}  scenario",
        "", "worst", "median", "origin", "sent", "first", "measured", "s"
    );
    let (mut outcomes, mut lines, mut agreed, mut measured) = (Vec::new(), String::new(), 0, 0);
    for one in scenarios {
        let began = Instant::now();
        let report = pantala_sim::run(one.scenario());
        let outcome = one.outcome(&report);
        let real = one.result.as_ref().and_then(|result| result.ratio);
        if let Some(real) = real {
            measured += 1;
            agreed += u32::from((outcome.ratio / real - 1.0).abs() <= 0.1);
        }
        let shown = real.map_or("–".into(), |real| format!("{real:.3}"));
        println!(
            "{:>9} {:>7.3} {:>7.3} {:>7.3} {:>7.2} {:>6.2} {:>7} {:>6.1}  {}",
            one.scenario,
            outcome.ratio,
            outcome.median,
            outcome.origin,
            outcome.sent,
            outcome.first,
            shown,
            began.elapsed().as_secs_f64(),
            one.words(),
        );
        println!("{:>9} {}", "", one.command);
        let mut line = serde_json::to_value(&one).map_err(|error| error.to_string())?;
        line["simulated"] = serde_json::to_value(&outcome).map_err(|error| error.to_string())?;
        lines += &format!("{line}\n");
        outcomes.push(outcome);
    }
    if let Some(path) = json {
        fs::write(path, lines).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    distribution(&outcomes);
    if measured > 0 {
        println!("within 10 % of what was measured: {agreed} of {measured}");
    }
    Ok(outcomes.iter().all(|outcome| outcome.ratio.is_finite()))
}

fn distribution(outcomes: &[Outcome]) {
    println!(
        "\n{:>28} {:>8} {:>8} {:>8} {:>8}",
        "", "p50", "p90", "p99", "worst"
    );
    let row = |name: &str, of: fn(&Outcome) -> f64| {
        let mut figures: Vec<f64> = outcomes.iter().map(of).collect();
        figures.sort_by(f64::total_cmp);
        let at = |part| quantile(&figures, part);
        println!(
            "{name:>28} {:>8.3} {:>8.3} {:>8.3} {:>8.3}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        );
    };
    row("worst peer ÷ its own floor", |of| of.ratio);
    row("origin bytes ÷ S", |of| of.origin);
    row("sent by one ÷ what it read", |of| of.sent);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swarm_has_its_seed_and_number_alone() {
        let words = |seed, number| {
            serde_json::to_string(&draw(seed, number)).unwrap_or_else(|error| panic!("{error}"))
        };
        assert_eq!(words(3, 5), words(3, 5));
        assert_ne!(words(3, 5), words(3, 6));
        assert_ne!(words(3, 5), words(4, 5));
    }

    /// What is drawn can be read again, alone and among others, and is within the world that it is drawn from.
    #[test]
    fn what_is_drawn_makes_sense() {
        let mut lines = String::new();
        for number in 1..200 {
            let one = draw(1, number);
            assert!((2..=10_000).contains(&one.peers), "{}", one.words());
            assert!(one.contents.len() <= CONTENTS as usize, "{}", one.words());
            let line = serde_json::to_string(&one).unwrap_or_else(|error| panic!("{error}"));
            assert!(One::read(&line).is_ok(), "{line:.300}");
            lines += &format!("{line}\n");
        }
        let read = read(&lines).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read.len(), 199);
    }
}
