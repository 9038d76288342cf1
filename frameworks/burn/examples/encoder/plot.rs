//! Pictures side by side as an SVG, both scales by powers. The same numbers give the same text.

use std::fmt::Write;

/// Curves of one picture.
pub(crate) struct Plot {
    pub(crate) title: &'static str,
    /// The unit of y.
    pub(crate) unit: &'static str,
    /// Name, and points (keys, y).
    pub(crate) curves: Vec<(&'static str, Vec<(f64, f64)>)>,
}

/// Apart in every common colour blindness (Okabe, Ito 2008).
const COLOURS: [&str; 3] = ["#0072b2", "#e69f00", "#009e73"];
/// Of one picture, and of the frame in it.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 460.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 296.0;

/// The text of an SVG.
pub(crate) fn svg(plots: &[Plot]) -> String {
    let width = WIDTH * plots.len() as f64;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    for (n, plot) in plots.iter().enumerate() {
        let _ = writeln!(text, "<g transform=\"translate({})\">\n{}</g>", WIDTH * n as f64, picture(plot));
    }
    text + "</svg>\n"
}

fn picture(plot: &Plot) -> String {
    let points = || plot.curves.iter().flat_map(|curve| &curve.1);
    let ends = |of: fn(&(f64, f64)) -> f64| {
        points().map(of).fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), x| (low.min(x), high.max(x)))
    };
    let ((first, last), (low, high)) = (ends(|point| point.0), ends(|point| point.1));
    // Whole powers of ten.
    let (low, high) = (10f64.powf(low.log10().floor()), 10f64.powf(high.log10().ceil()));
    let between = |x: f64, from: f64, to: f64| (x / from).ln() / (to / from).ln();
    let across = |x: f64| LEFT + (RIGHT - LEFT) * between(x, first, last);
    let up = |y: f64| BOTTOM - (BOTTOM - TOP) * between(y, low, high);

    let mut text = format!("<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n", plot.title);
    let mut x = first;
    while x <= last {
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{x}</text>",
            across(x),
            BOTTOM + 18.0
        );
        x *= 2.0;
    }
    let mut y = low;
    while y <= high * 1.01 {
        let at = up(y);
        let _ = writeln!(text, "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" stroke=\"#ddd\"/>");
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            decimal(y)
        );
        y *= 10.0;
    }
    let _ = writeln!(text, "<text x=\"{RIGHT}\" y=\"{}\" text-anchor=\"end\">keys</text>", BOTTOM + 36.0);
    let _ =
        writeln!(text, "<text x=\"{LEFT}\" y=\"{}\" text-anchor=\"end\">{}</text>", TOP - 14.0, plot.unit);
    for (n, ((name, points), colour)) in plot.curves.iter().zip(COLOURS).enumerate() {
        let line: Vec<_> = points.iter().map(|&(x, y)| format!("{:.1} {:.1}", across(x), up(y))).collect();
        let _ = writeln!(
            text,
            "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            line.join("L")
        );
        for &(x, y) in points {
            let _ = writeln!(
                text,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                across(x),
                up(y)
            );
        }
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{}\" fill=\"{colour}\">{name}</text>",
            LEFT + 12.0,
            TOP + 18.0 + 16.0 * n as f64
        );
    }
    text
}

/// A power of ten without the last bits that multiplying leaves.
fn decimal(y: f64) -> String {
    let power = y.log10().round() as i32;
    if power < 0 { format!("{y:.*}", power.unsigned_abs() as usize) } else { format!("{y:.0}") }
}
