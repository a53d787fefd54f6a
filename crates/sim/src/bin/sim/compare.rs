//! Policies against scenarios: what a swarm makes of the same conditions under other settings.

use std::{fs, path::Path};

use pantala_sim::{PeerReport, Report, Scenario};
use serde::Deserialize;
use toml::{Table, Value};

use crate::{figures::quantile, figures::times, file::File, units::Rate};

/// A comparison's file: scenarios, and the settings that each policy changes in all of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Comparison {
    about: String,
    /// Keys of a scenario file that hold where a scenario says nothing else.
    #[serde(default)]
    base: Table,
    scenario: Vec<Table>,
    policy: Vec<Table>,
}

/// A column: what happens, and whom it is judged by.
struct Column {
    name: String,
    /// Classes whose readers count; all where there are none.
    of: Vec<String>,
    /// The rate B of S/B; the link of each reader's own where there is none.
    over: Option<Rate>,
    keys: Table,
}

/// What came of one policy in one scenario.
struct Cell {
    last_ratio: f64,
    first_mib: f64,
    stall: f64,
    origin_ratio: f64,
    across_ratio: f64,
}

/// Runs a comparison and prints a Markdown table. `part` and `scenarios` pick policies and scenarios
/// by parts of their names. A figure is the median over so many seeds.
pub fn run(
    path: &Path,
    policies: &[String],
    scenarios: &[String],
    seeds: u64,
) -> Result<(), String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| at(&error))?;
    let comparison: Comparison = toml::from_str(&text).map_err(|error| at(&error))?;
    let named = |name: &str, parts: &[String]| {
        parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()))
    };
    let mut columns = Vec::new();
    for keys in comparison.scenario {
        let column = Column::new(&comparison.base, keys).map_err(|error| at(&error))?;
        if named(&column.name, scenarios) {
            columns.push(column);
        }
    }
    let mut rows = Vec::new();
    for mut keys in comparison.policy {
        let name = name(&mut keys).map_err(|error| at(&error))?;
        if named(&name, policies) {
            rows.push((name, keys));
        }
    }
    // All are read before any is run: a slip in the last is not found out after an hour.
    for (name, keys) in &rows {
        for column in &columns {
            let said = |error| at(&format!("{name}, {}: {error}", column.name));
            column.file(keys).map_err(said)?;
        }
    }
    println!("{}\n\n{}\n", comparison.about, crate::one::IMITATED);
    let cell = |(name, keys): &(String, Table), column: &Column| {
        eprintln!("{name}: {}", column.name);
        column.cell(keys, seeds).map_err(|error| at(&error))
    };
    // What there is more of is below each other, not side by side.
    if rows.len() >= columns.len() {
        head("policy", columns.iter().map(|column| column.name.as_str()));
        for row in &rows {
            let cells = columns.iter().map(|column| cell(row, column));
            line(&row.0, cells.collect::<Result<_, _>>()?);
        }
    } else {
        head("scenario", rows.iter().map(|(name, _)| name.as_str()));
        for column in &columns {
            let cells = rows.iter().map(|row| cell(row, column));
            line(&column.name, cells.collect::<Result<_, _>>()?);
        }
    }
    Ok(())
}

fn head<'a>(what: &str, names: impl Iterator<Item = &'a str>) {
    let names: Vec<&str> = names.collect();
    println!("| {what} | {} |", names.join(" | "));
    println!("|{}", " --- |".repeat(names.len() + 1));
}

fn line(name: &str, cells: Vec<String>) {
    println!("| {name} | {} |", cells.join(" | "));
}

fn name(keys: &mut Table) -> Result<String, String> {
    match keys.remove("name") {
        Some(Value::String(name)) => Ok(name),
        _ => Err("each scenario and each policy needs a name".into()),
    }
}

/// Keys that are not there yet; tables are merged.
fn merge(keys: &mut Table, under: &Table) {
    for (key, value) in under {
        match (keys.get_mut(key), value) {
            (Some(Value::Table(own)), Value::Table(under)) => merge(own, under),
            (Some(_), _) => {}
            (None, value) => {
                keys.insert(key.clone(), value.clone());
            }
        }
    }
}

impl Column {
    fn new(base: &Table, mut keys: Table) -> Result<Self, String> {
        let name = name(&mut keys)?;
        let wrong = |error: toml::de::Error| format!("{name}: {error}");
        let of = keys.remove("of").map(Value::try_into).transpose();
        let over = keys.remove("over").map(Value::try_into).transpose();
        let (of, over): (Option<Vec<String>>, Option<Rate>) =
            (of.map_err(wrong)?, over.map_err(wrong)?);
        keys.insert("about".into(), Value::String(name.clone()));
        merge(&mut keys, base);
        let column = Self {
            of: of.unwrap_or_default(),
            over,
            keys,
            name,
        };
        let file = column.file(&Table::new())?;
        let classes = file.classes();
        match column
            .of
            .iter()
            .find(|name| !classes.contains(&name.as_str()))
        {
            Some(unknown) => Err(format!("{}: no class is named {unknown}", column.name)),
            None => Ok(column),
        }
    }

    /// The scenario under a policy.
    fn file(&self, policy: &Table) -> Result<File, String> {
        let mut keys = policy.clone();
        merge(&mut keys, &self.keys);
        File::of(keys)
    }

    fn cell(&self, policy: &Table, seeds: u64) -> Result<String, String> {
        let file = self.file(policy)?;
        let mut cells = Vec::new();
        for seed in 0..seeds {
            let mut scenario = file.scenario();
            scenario.seed += seed;
            scenario.sample = false;
            let report = pantala_sim::run(scenario.clone());
            cells.push(self.judge(&file, &scenario, &report));
        }
        Ok(render(&cells))
    }

    fn judge(&self, file: &File, scenario: &Scenario, report: &Report) -> Cell {
        let classes = file.classes();
        let counts = |peer: &&PeerReport| {
            self.of.is_empty() || self.of.iter().any(|name| name == classes[peer.class])
        };
        let judged = || report.peers.iter().filter(counts);
        let worst = |times: Vec<f64>| quantile(&times, 1.0);
        let ratio = |peer: &PeerReport| {
            let own = || scenario.classes[peer.class].floor_rate();
            let rate = self.over.map_or_else(own, |rate| rate.0);
            peer.last_byte
                .map(|last| last / (peer.wanted as f64 * 8.0 / rate))
        };
        let distinct = report.distinct_bytes.max(1) as f64;
        Cell {
            last_ratio: worst(times(judged(), ratio)),
            first_mib: worst(times(judged(), |peer| peer.first_mib)),
            stall: worst(times(judged(), |peer| Some(peer.longest_stall))),
            origin_ratio: report.origin_bytes as f64 / distinct,
            across_ratio: report.across_bytes as f64 / distinct,
        }
    }
}

/// The medians over the seeds.
fn render(cells: &[Cell]) -> String {
    let figure = |of: fn(&Cell) -> f64, digits: usize| {
        let mut figures: Vec<f64> = cells.iter().map(of).collect();
        figures.sort_by(f64::total_cmp);
        let figure = quantile(&figures, 0.5);
        match figure.is_finite() {
            true => format!("{figure:.digits$}"),
            false => "–".into(),
        }
    };
    let mut text = format!(
        "{} · {} · {} · {}",
        figure(|cell| cell.last_ratio, 3),
        figure(|cell| cell.first_mib, 2),
        figure(|cell| cell.stall, 2),
        figure(|cell| cell.origin_ratio, 2),
    );
    if cells.iter().any(|cell| cell.across_ratio > 0.0) {
        text += &format!(" · {}", figure(|cell| cell.across_ratio, 2));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_policy_goes_before_its_scenario_and_that_before_the_base() {
        let mut keys = table("swarm = { stripes = 1 }");
        merge(
            &mut keys,
            &table("swarm = { stripes = 2, chain = 3 }\nseed = 4"),
        );
        merge(&mut keys, &table("swarm = { others = 5 }\nseed = 6"));
        let expected = "seed = 4\nswarm = { stripes = 1, chain = 3, others = 5 }";
        assert_eq!(keys, table(expected));
    }

    #[test]
    fn who_is_judged_must_be_there() {
        let base = table(
            "origin = { rate = \"200Mbit/s\" }\ncontent = [{ size = \"1MiB\" }]\n\
             class = [{ name = \"all\", count = 2, rate = \"200Mbit/s\" }]",
        );
        let column =
            |of: &str| Column::new(&base, table(&format!("name = \"x\"\nof = [\"{of}\"]")));
        assert!(column("all").is_ok());
        assert!(column("some").is_err_and(|error| error.contains("some")));
    }
}
