//! Curves as an SVG, for the examples that measure, and where it goes: written, or compared with the file that is there.

use plotters::prelude::*;
use plotters::style::{FontStyle, text_anchor};
use std::path::Path;

pub(crate) type Error = Box<dyn std::error::Error>;

/// Curves of one picture; x on a scale of powers of two.
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    /// The largest y.
    pub(crate) top: f64,
    /// Name, and points (x, y).
    pub(crate) curves: Vec<(String, Vec<(f64, f64)>)>,
}

/// Apart in every common colour blindness (Okabe, Ito 2008).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
];

impl Plot {
    /// The picture. The same numbers give the same text.
    pub(crate) fn svg(&self) -> Result<String, Error> {
        let mut text = String::new();
        let xs = || self.curves.iter().flat_map(|curve| curve.1.iter().map(|point| point.0));
        let (first, last) = (xs().fold(f64::MAX, f64::min), xs().fold(0.0, f64::max));
        {
            let area = SVGBackend::with_string(&mut text, (640, 400)).into_drawing_area();
            area.fill(&WHITE)?;
            let mut chart = ChartBuilder::on(&area)
                .caption(&self.title, ("sans-serif", 16))
                .margin(16)
                .margin_right(120)
                .x_label_area_size(44)
                .y_label_area_size(64)
                .build_cartesian_2d((first..last).log_scale().base(2.0), 0.0..self.top)?;
            chart
                .configure_mesh()
                .disable_x_mesh()
                .light_line_style(WHITE)
                .x_desc(&self.x)
                .y_desc(&self.y)
                .axis_desc_style(("sans-serif", 13))
                .label_style(("sans-serif", 12))
                .x_label_formatter(&|x| format!("{x}"))
                .y_label_formatter(&|y| format!("{}", (y * 1000.0).round() / 1000.0))
                .draw()?;
            let mut names = vec![];
            for ((name, points), colour) in self.curves.iter().zip(COLOURS) {
                chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
                chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
                names.extend(points.last().map(|end| (chart.backend_coord(end), name, colour)));
            }
            // Each name at the end of its curve, pushed down where two would overlap.
            names.sort_by_key(|name| name.0.1);
            let mut free = i32::MIN;
            for ((x, y), name, colour) in names {
                let y = y.max(free);
                free = y + 16;
                let anchor = text_anchor::Pos::new(text_anchor::HPos::Left, text_anchor::VPos::Center);
                let font = FontDesc::new(FontFamily::SansSerif, 13.0, FontStyle::Normal);
                area.draw(&Text::new(name.clone(), (x + 10, y), font.color(&colour).pos(anchor)))?;
            }
            area.present()?;
        }
        Ok(text)
    }
}

/// The command line of an example that draws: nothing prints only, `FILE` draws, `FILE --check` fails where the file is not
/// what would be drawn.
pub(crate) fn command(example: &str, svg: impl FnOnce() -> Result<String, Error>) -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(()),
        [path] if !path.starts_with('-') => write_whole(Path::new(path), &svg()?)
            .map_err(|error| format!("cannot write {path}: {error}").into()),
        [path, "--check"] => {
            let found =
                std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
            if found == svg()? { Ok(()) } else { Err(format!("{path} is not what `{example}` draws").into()) }
        }
        _ => Err(format!("usage: {example} [FILE.svg [--check]]").into()),
    }
}

/// Under another name beside it, renamed when it is complete.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension("svg.part");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path)
}
