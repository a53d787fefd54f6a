use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pantala_config::{DfgetConfig, Output};
use pantala_core::format_size;
use pantala_node::Totals;

/// A progress bar on a terminal; nothing anywhere else.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    name: String,
    bytes: u64,
    /// When the share of the peers was looked up last.
    looked: Instant,
}

const LOOK: Duration = Duration::from_millis(200);

impl Progress {
    pub fn start(config: &DfgetConfig, length: Option<u64>) -> Self {
        let name = match &config.output {
            Output::Stdout => String::from("-"),
            Output::File(path) => path
                .file_name()
                .unwrap_or(path.as_os_str())
                .to_string_lossy()
                .into_owned(),
        };
        let visible = !config.quiet && std::io::stderr().is_terminal();
        let bar = visible.then(|| bar(&name, length));
        Self {
            bar,
            name,
            bytes: 0,
            looked: Instant::now(),
        }
    }

    pub fn moved(&mut self, bytes: u64, totals: impl Fn() -> Option<Totals>) {
        self.bytes += bytes;
        let Some(bar) = &self.bar else { return };
        bar.set_position(self.bytes);
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            bar.set_message(shares(totals()));
        }
    }

    /// Leaves one line that says what was done.
    pub fn done(&mut self, took: Duration, totals: Option<Totals>) {
        let Some(bar) = self.bar.take() else { return };
        bar.finish_and_clear();
        let rate = self.bytes as f64 / took.as_secs_f64().max(1e-6);
        eprintln!(
            "{}: {} in {:.2} s, {}/s, {}",
            self.name,
            format_size(self.bytes),
            took.as_secs_f64(),
            format_size(rate as u64),
            shares(totals)
        );
    }

    pub fn failed(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(name: &str, length: Option<u64>) -> ProgressBar {
    let template = match length {
        Some(_) => {
            "{prefix} {bar:24} {percent:>3}% {bytes}/{total_bytes} {binary_bytes_per_sec} {msg} eta {eta}"
        }
        None => "{prefix} {spinner} {bytes} {binary_bytes_per_sec} {msg}",
    };
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr_with_hz(10));
    bar.with_style(style).with_prefix(name.to_owned())
}

/// How much came from peers.
fn shares(totals: Option<Totals>) -> String {
    let Some(totals) = totals else {
        return String::from("through dfdaemon");
    };
    let all = totals.origin_received + totals.peer_received;
    match (100 * totals.peer_received).checked_div(all) {
        Some(share) => format!("{share}% from peers"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_told_as_people_count() {
        let totals = Totals {
            origin_received: 25,
            peer_received: 75,
            ..Totals::default()
        };
        assert_eq!(shares(Some(totals)), "75% from peers");
        assert_eq!(shares(Some(Totals::default())), "");
    }
}
