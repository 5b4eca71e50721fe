//! The rates of connects over time, as an SVG.

use std::fmt::Write as _;

/// A story: a column of small multiples.
pub(crate) struct Column {
    pub(crate) title: &'static str,
    /// Seconds in which nobody listens.
    pub(crate) away: f64,
    pub(crate) curves: Vec<Curve>,
}

/// One curve: what it is, the most connects in any second, and those in the last second, at every step.
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) peak: usize,
    pub(crate) rates: Vec<usize>,
}

/// What all of them have in common.
struct Scale {
    most: f64,
    steps: f64,
    /// Seconds.
    step: f64,
    announced: f64,
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 84.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 46.0;
const GAP: (f64, f64) = (48.0, 44.0);

/// A row for each rule, all on one scale. `step` is in seconds, `announced` the rate of the window.
pub(crate) fn svg(columns: &[Column], step: f64, announced: f64) -> String {
    let rows = columns.iter().map(|column| column.curves.len()).max().unwrap_or(0);
    let all = || columns.iter().flat_map(|column| &column.curves);
    let peak = all().map(|curve| curve.peak).max().unwrap_or(1);
    let steps = all().map(|curve| curve.rates.len()).max().unwrap_or(1) as f64;
    let scale = Scale { most: peak.next_multiple_of(50_000) as f64, steps, step, announced };
    let width = LEFT + columns.len() as f64 * (WIDTH + GAP.0);
    let height = TOP + rows as f64 * (HEIGHT + GAP.1);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<style>.l{{fill:none;stroke:#1f5fbf;stroke-width:1.5}}.a{{stroke:#c33;stroke-dasharray:4 \
         3}}.x{{fill:none;stroke:#888}}.g{{fill:#eee}}text{{fill:#444}}</style>\n<rect width=\"{width}\" height=\"{height}\" \
         fill=\"#fff\"/>\n"
    );
    for (n, column) in columns.iter().enumerate() {
        let x = LEFT + n as f64 * (WIDTH + GAP.0);
        let _ = writeln!(out, "<text x=\"{x}\" y=\"18\" font-size=\"14\">{}</text>", column.title);
        for (row, curve) in column.curves.iter().enumerate() {
            panel(&mut out, (x, TOP + row as f64 * (HEIGHT + GAP.1)), curve, column.away, &scale);
        }
    }
    out.push_str("</svg>\n");
    out
}

fn panel(out: &mut String, (x, y): (f64, f64), curve: &Curve, away: f64, scale: &Scale) {
    let across = |seconds: f64| x + seconds / (scale.steps * scale.step) * WIDTH;
    let up = |rate: f64| y + HEIGHT - rate / scale.most * HEIGHT;
    let (right, bottom) = (x + WIDTH, y + HEIGHT);
    let Curve { name, peak, rates } = curve;
    let _ = writeln!(
        out,
        "<rect class=\"g\" x=\"{x}\" y=\"{y}\" width=\"{:.1}\" height=\"{HEIGHT}\"/>\n<path class=\"x\" d=\"M{x} \
         {y}V{bottom}H{right}\"/>\n<text x=\"{x}\" y=\"{}\"><tspan font-weight=\"bold\">{name}</tspan>: at most {peak} \
         connects in a second</text>",
        across(away) - x,
        y - 5.0
    );
    for seconds in (0..=(scale.steps * scale.step) as u32).step_by(5) {
        let (at, below) = (across(seconds.into()), bottom + 13.0);
        let _ = writeln!(out, "<text x=\"{at:.0}\" y=\"{below}\" text-anchor=\"middle\">{seconds} s</text>");
    }
    for rate in [0.0, scale.announced, scale.most] {
        let (left, at) = (x - 4.0, up(rate) + 4.0);
        let _ = writeln!(out, "<text x=\"{left}\" y=\"{at:.0}\" text-anchor=\"end\">{rate:.0}</text>");
    }
    let at = up(scale.announced);
    let _ = writeln!(out, "<path class=\"a\" d=\"M{x} {at:.1}H{right}\"/>");
    let mut points = format!("{x:.0},{bottom:.0}");
    for (n, rate) in rates.iter().enumerate() {
        // Where the curve stays as it is, its ends are enough.
        let same = |m: Option<usize>| m.and_then(|m| rates.get(m)) == Some(rate);
        if !(same(n.checked_sub(1)) && same(Some(n + 1))) {
            let _ = write!(points, " {:.1},{:.1}", across((n + 1) as f64 * scale.step), up(*rate as f64));
        }
    }
    let _ = writeln!(out, "<polyline class=\"l\" points=\"{points}\"/>");
}
