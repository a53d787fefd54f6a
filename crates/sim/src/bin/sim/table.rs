//! The figures as a table for the terminal.

use std::fmt::Write as _;

use crate::figures::{Figures, Readers};

/// Rows of cells, the first the head; all but the first column to the right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate().take(columns);
        let cells: Vec<String> = cells
            .map(|(column, cell)| {
                let gap = " ".repeat(width(column) - cell.chars().count());
                if column == 0 {
                    format!("{cell}{gap}")
                } else {
                    format!("{gap}{cell}")
                }
            })
            .collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

fn row(readers: &Readers) -> Vec<String> {
    let seconds = |time: f64| format!("{time:.3}");
    vec![
        readers.name.clone(),
        readers.readers.to_string(),
        readers.lost.to_string(),
        readers.undone.to_string(),
        seconds(readers.p50),
        seconds(readers.p99),
        seconds(readers.p999),
        seconds(readers.last),
        seconds(readers.last_ratio),
        seconds(readers.first_mib_p50),
        seconds(readers.first_mib_last),
        seconds(readers.stall_last),
    ]
}

/// Everything that a run is worth a line for.
pub fn render(figures: &Figures) -> String {
    let head =
        "readers lost undone p50,s p99,s p99.9,s last,s ÷(S/B) 1stMiB,p50 1stMiB,last stall,s";
    let mut rows = vec![
        std::iter::once("class")
            .chain(head.split(' '))
            .map(String::from)
            .collect(),
    ];
    rows.extend(figures.classes.iter().map(row));
    if figures.classes.len() > 1 {
        rows.push(row(&figures.all));
    }
    let mut text = format!(
        "{}: {}\n{}\n\n{}\n",
        figures.scenario,
        figures.about,
        crate::one::IMITATED,
        table(&rows)
    );
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let facts = [
        ("distinct content", mib(figures.distinct_bytes)),
        (
            "from the origin",
            format!(
                "{} = {:.3} × S",
                mib(figures.origin_bytes),
                figures.origin_ratio
            ),
        ),
        (
            "across zones",
            format!(
                "{} = {:.3} × S",
                mib(figures.across_bytes),
                figures.across_ratio
            ),
        ),
        ("came in vain", mib(figures.wasted_bytes)),
        ("pieces evicted", figures.evicted_pieces.to_string()),
        ("leases moved", figures.leases_moved.to_string()),
        (
            "messages to the supernode",
            figures.control_messages.to_string(),
        ),
        ("virtual time", format!("{:.1} s", figures.virtual_seconds)),
        ("wall time", format!("{:.1} s", figures.wall_seconds)),
        ("events", figures.happenings.to_string()),
    ];
    let facts: Vec<Vec<String>> = facts
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    text.push_str(&table(&facts));
    if !figures.goals.is_empty() {
        let mut rows = vec![
            ["goal", "at most", "measured", ""]
                .map(String::from)
                .to_vec(),
        ];
        rows.extend(figures.goals.iter().map(|goal| {
            let verdict = if goal.met { "met" } else { "NOT MET" };
            vec![
                goal.figure.clone(),
                format!("{:.3}", goal.at_most),
                format!("{:.3}", goal.measured),
                verdict.to_owned(),
            ]
        }));
        let _ = write!(text, "\n{}", table(&rows));
    }
    text
}
