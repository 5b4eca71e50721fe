//! The rates of connects over time, as an SVG.

use std::fmt::Write as _;

/// One curve: what it is, and connects in the last second, at every step.
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) rates: Vec<usize>,
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 84.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 46.0;
const GAP: (f64, f64) = (36.0, 44.0);

/// Small multiples on common scales: a column for each story (its title, and its curves), a row for each rule. `announced`
/// is the rate of the window.
pub(crate) fn svg(columns: &[(&str, Vec<Curve>)], step: f64, announced: f64) -> String {
    let rows = columns.iter().map(|(_, curves)| curves.len()).max().unwrap_or(0);
    let all = || columns.iter().flat_map(|(_, curves)| curves);
    let most = all().flat_map(|curve| curve.rates.iter().copied()).max().unwrap_or(1) as f64;
    let steps = all().map(|curve| curve.rates.len()).max().unwrap_or(1) as f64;
    let width = LEFT + columns.len() as f64 * (WIDTH + GAP.0);
    let height = TOP + rows as f64 * (HEIGHT + GAP.1);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<style>.l{{fill:none;stroke:#1f5fbf;stroke-width:1.5}}.a{{stroke:#c33;stroke-dasharray:4 \
         3}}.x{{stroke:#888}}text{{fill:#444}}</style>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (column, (title, curves)) in columns.iter().enumerate() {
        let x = LEFT + column as f64 * (WIDTH + GAP.0);
        let _ = writeln!(out, "<text x=\"{x}\" y=\"18\" font-size=\"14\">{title}</text>");
        for (row, curve) in curves.iter().enumerate() {
            let y = TOP + row as f64 * (HEIGHT + GAP.1);
            panel(&mut out, (x, y), curve, (most, steps, step), announced);
        }
    }
    out.push_str("</svg>\n");
    out
}

fn panel(
    out: &mut String,
    (x, y): (f64, f64),
    curve: &Curve,
    (most, steps, step): (f64, f64, f64),
    announced: f64,
) {
    let across = |n: f64| x + n / steps * WIDTH;
    let up = |rate: f64| y + HEIGHT - rate / most * HEIGHT;
    let (right, bottom) = (x + WIDTH, y + HEIGHT);
    let peak = curve.rates.iter().max().copied().unwrap_or(0);
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{}\"><tspan font-weight=\"bold\">{}</tspan>, at most {peak} connects in a second</text>",
        y - 5.0,
        curve.name
    );
    let _ = writeln!(out, "<path class=\"x\" fill=\"none\" d=\"M{x} {y}V{bottom}H{right}\"/>");
    for seconds in (0..=(steps * step) as u32).step_by(5) {
        let at = across(f64::from(seconds) / step);
        let _ = writeln!(
            out,
            "<text x=\"{at:.0}\" y=\"{}\" text-anchor=\"middle\">{seconds} s</text>",
            bottom + 13.0
        );
    }
    for rate in [0.0, announced, most] {
        let (left, at) = (x - 4.0, up(rate) + 4.0);
        let _ = writeln!(out, "<text x=\"{left}\" y=\"{at:.0}\" text-anchor=\"end\">{rate:.0}</text>");
    }
    let at = up(announced);
    let _ = writeln!(out, "<path class=\"a\" d=\"M{x} {at:.1}H{right}\"/>");
    let mut points = format!("{x:.0},{bottom:.0}");
    for (n, rate) in curve.rates.iter().enumerate() {
        // Where the curve stays as it is, its ends are enough.
        let same = |m: Option<usize>| m.and_then(|m| curve.rates.get(m)) == Some(rate);
        if !(same(n.checked_sub(1)) && same(Some(n + 1))) {
            let _ = write!(points, " {:.1},{:.1}", across((n + 1) as f64), up(*rate as f64));
        }
    }
    let _ = writeln!(out, "<polyline class=\"l\" points=\"{points}\"/>");
}
