//! Line plots as SVG.

use std::fmt::Write as _;

/// A line with its name.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 46.0;
/// Distinguishable without colour vision (Okabe and Ito).
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

/// A round number near `span` / 5: 1, 2 or 5 times a power of ten.
fn step(span: f64) -> f64 {
    let rough = (span / 5.0).max(1e-12);
    let power = 10f64.powf(rough.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0];
    let found = times.into_iter().find(|times| times * power >= rough);
    found.unwrap_or(10.0) * power
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A plot of lines over common axes, both from 0 on.
pub fn svg(title: &str, x_name: &str, y_name: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(0.0, f64::max).max(1e-9);
    let (x_most, y_most) = (most(|point| point.0), most(|point| point.1) * 1.05);
    let x = |value: f64| LEFT + value / x_most * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / y_most * (HEIGHT - TOP - BOTTOM);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n",
        escape(title)
    );
    let ticks = |most: f64| {
        let step = step(most);
        (0..)
            .map(move |n| f64::from(n) * step)
            .take_while(move |&at| at <= most)
    };
    for at in ticks(x_most) {
        let place = x(at);
        let _ = writeln!(
            text,
            "<text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - BOTTOM + 18.0,
            number(at)
        );
    }
    for at in ticks(y_most) {
        let place = y(at);
        let _ = writeln!(
            text,
            "<path d=\"M{LEFT} {place:.1}H{:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            place + 4.0,
            number(at)
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 10.0,
        escape(x_name),
        (TOP + HEIGHT - BOTTOM) / 2.0,
        escape(y_name)
    );
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points: Vec<String> = line
            .points
            .iter()
            .map(|&(at, value)| format!("{:.1},{:.1}", x(at), y(value)))
            .collect();
        let _ = writeln!(
            text,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" points=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{colour}\">{}</text>",
            points.join(" "),
            WIDTH - RIGHT,
            TOP + 14.0 * number as f64 - 4.0,
            escape(&line.name)
        );
    }
    text.push_str("</svg>\n");
    text
}

fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        for (span, expected) in [(10.0, 2.0), (45.0, 10.0), (0.7, 0.2), (3000.0, 1000.0)] {
            assert!(
                (step(span) - expected).abs() < 1e-9,
                "{span}: {}",
                step(span)
            );
        }
    }

    #[test]
    fn a_plot_has_its_lines_and_names() {
        let line = Line {
            name: "a<b".into(),
            points: vec![(0.0, 0.0), (1.0, 2.0)],
        };
        let text = svg("title", "time, s", "share", &[line]);
        assert!(
            text.contains("<polyline") && text.contains("a&lt;b") && text.ends_with("</svg>\n")
        );
    }
}
