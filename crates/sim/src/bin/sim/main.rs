//! `sim run SCENARIO.toml`: simulates a scenario; `sim list`: says which there are; `sim compare`: policies
//! against scenarios.

mod compare;
mod figures;
mod file;
mod flow;
mod keys;
mod one;
mod plot;
mod sweep;
mod table;
mod units;

use std::{
    ffi::c_char,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use pantala_sim::{Report, Scenario};

use crate::{figures::Figures, file::File, one::Switch, plot::Line};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A large swarm is gigabytes read at random, by one thread: in huge pages where they are to be had,
/// and nothing is given back before the end.
// SAFETY: jemalloc looks for a pointer to a C string under this name, and never writes to it.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: Option<&'static c_char> = Some(
    // SAFETY: the bytes are static, and end with a zero.
    unsafe {
        &*c"narenas:1,thp:always,metadata_thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1".as_ptr()
    },
);

/// A virtual network around the unchanged brains of peers and supernode.
///
/// The brains are the daemons' own. What a daemon decides outside of them is imitated or left out:
/// docs/simulation.md has the list, and every report says it in a line.
#[derive(Debug, Parser)]
#[command(name = "sim", version)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Simulates a scenario and says what came of it; fails where a goal is not met.
    Run {
        /// A scenario's file, or its name among those in `scenarios`.
        scenario: String,
        /// Draws everything that is drawn by lot; instead of the file's.
        #[arg(long)]
        seed: Option<u64>,
        /// Where to write figures.json and the plots.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Simulates without a part of the model, to see what it is there for; repeatable.
        #[arg(long)]
        without: Vec<Switch>,
    },
    /// Draws swarms at random and prints how each did, what repeats it, and how all of them did.
    Sweep {
        /// Which swarms; swarm K of seed N is the same whatever the count is.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
        /// The one with this number alone.
        #[arg(long)]
        only: Option<u64>,
        /// Where to write them, a line of JSON each, with what came of it.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Simulates without a part of the model; repeatable.
        #[arg(long)]
        without: Vec<Switch>,
    },
    /// Simulates one connection alone at several round trips and losses, to be held against a real one.
    Flow {
        /// Mbit/s of the link, headers counted.
        #[arg(long, default_value_t = 50.0)]
        rate: f64,
        /// MiB that are sent.
        #[arg(long, default_value_t = 32)]
        size: u32,
        /// The median of so many seeds.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
    },
    /// Simulates policies in the same scenarios and prints a Markdown table. In each cell: last byte ÷
    /// (S/B), seconds until the last first MiB, longest stall in seconds, bytes from the origin ÷ S, and
    /// between zones ÷ S.
    Compare {
        /// A comparison's file, or its name among those in `scenarios/comparisons`.
        comparison: String,
        /// Only policies with this in their names; repeatable.
        #[arg(long)]
        policy: Vec<String>,
        /// Only scenarios with this in their names; repeatable.
        #[arg(long)]
        scenario: Vec<String>,
        /// Simulate each with so many seeds; the table has the medians.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
    },
    /// Says which scenarios there are.
    List {
        /// Where they are.
        #[arg(long, default_value = "scenarios")]
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().what {
        What::Run {
            scenario,
            seed,
            out,
            without,
        } => run(&scenario, seed, out.as_deref(), &without),
        What::Sweep {
            seed,
            count,
            only,
            json,
            without,
        } => sweep::run(&sweep::Sweep {
            seed,
            count,
            only,
            json,
            without,
        }),
        What::Flow { rate, size, seeds } => flow::table(rate, size, seeds).map(|()| true),
        What::Compare {
            comparison,
            policy,
            scenario,
            seeds,
        } => {
            let path = find(&comparison, Path::new("scenarios/comparisons"));
            compare::run(&path, &policy, &scenario, seeds).map(|()| true)
        }
        What::List { dir } => list(&dir).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            eprintln!("sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read(path: &Path) -> Result<File, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| at(&error))?;
    File::read(&text).map_err(|error| at(&error))
}

/// A file by its path, or by its name among those in a directory.
fn find(name: &str, dir: &Path) -> PathBuf {
    let path = PathBuf::from(name);
    if !path.exists() && path.components().count() == 1 {
        return dir.join(name).with_extension("toml");
    }
    path
}

/// Says whether all goals were met.
#[expect(
    clippy::disallowed_methods,
    reason = "how long it takes in the world outside is one of the figures"
)]
fn run(
    name: &str,
    seed: Option<u64>,
    out: Option<&Path>,
    switches: &[Switch],
) -> Result<bool, String> {
    let path = find(name, Path::new("scenarios"));
    if path
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        return run_ones(&path, seed, switches);
    }
    let file = read(&path)?;
    let mut scenario = file.scenario();
    scenario.seed = seed.unwrap_or(scenario.seed);
    one::switch(&mut scenario.network, switches);
    let began = std::time::Instant::now();
    let report = pantala_sim::run(scenario.clone());
    let stem = path.file_stem().map(|stem| stem.to_string_lossy());
    let stem = stem.unwrap_or_default();
    let figures = Figures::new(&stem, &file, &scenario, &report, began.elapsed());
    print!("{}", table::render(&figures));
    if let Some(out) = out {
        write(out, &figures, &scenario, &report, &file.classes())
            .map_err(|error| format!("{}: {error}", out.display()))?;
    }
    Ok(figures.goals.iter().all(|goal| goal.met))
}

/// Scenarios that sockets run as well.
fn run_ones(path: &Path, seed: Option<u64>, switches: &[Switch]) -> Result<bool, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| at(&error))?;
    let mut ones = sweep::read(&text).map_err(|error| at(&error))?;
    for one in &mut ones {
        one.seed = seed.unwrap_or(one.seed);
        one.without = switches.to_vec();
    }
    sweep::simulate(ones, None)
}

fn write(
    out: &Path,
    figures: &Figures,
    scenario: &Scenario,
    report: &Report,
    names: &[&str],
) -> std::io::Result<()> {
    fs::create_dir_all(out)?;
    let json = serde_json::to_string_pretty(figures).map_err(std::io::Error::other)?;
    fs::write(out.join("figures.json"), json + "\n")?;
    let done = names.iter().enumerate().map(|(class, name)| {
        let peers = report.peers.iter().filter(|peer| peer.class == class);
        let times = figures::times(peers, |peer| peer.last_byte);
        let all = times.len() as f64;
        let finite = times.iter().filter(|time| time.is_finite());
        let mut points = vec![(0.0, 0.0)];
        for (number, &time) in finite.enumerate() {
            points.push((time, number as f64 / all));
            points.push((time, (number + 1) as f64 / all));
        }
        Line {
            name: (*name).to_owned(),
            points: thin(points),
        }
    });
    let done: Vec<Line> = done.collect();
    let title = |what: &str| format!("{}: {what}", figures.scenario);
    let text = plot::svg(
        &title("readers that have everything"),
        "seconds",
        "share",
        &done,
    );
    fs::write(out.join("completion.svg"), text)?;
    let mib = f64::from(1 << 20);
    let line = |name: &str, of: &dyn Fn(&pantala_sim::Sample) -> f64| Line {
        name: name.to_owned(),
        points: report.series.iter().map(|s| (s.at, of(s))).collect(),
    };
    let origin = [
        line("sent", &|sample| sample.origin_bytes as f64 / mib),
        Line {
            name: "distinct content".into(),
            points: vec![
                (0.0, scenario.distinct() as f64 / mib),
                (report.ended, scenario.distinct() as f64 / mib),
            ],
        },
    ];
    let text = plot::svg(&title("bytes from the origin"), "seconds", "MiB", &origin);
    fs::write(out.join("origin.svg"), text)?;
    let windows = [
        line("p50", &|sample| f64::from(sample.window_p50)),
        line("p95", &|sample| f64::from(sample.window_p95)),
    ];
    let text = plot::svg(&title("window sizes"), "seconds", "pieces", &windows);
    fs::write(out.join("windows.svg"), text)
}

/// A hundred thousand steps are more than a plot shows.
fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(4000).max(1);
    let last = points.last().copied();
    points.into_iter().step_by(step).chain(last).collect()
}

fn list(dir: &Path) -> Result<(), String> {
    let entries = fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    paths.sort();
    for path in paths {
        let file = read(&path)?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy());
        println!("{:<24} {}", stem.unwrap_or_default(), file.about);
    }
    Ok(())
}
