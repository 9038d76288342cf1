//! The pictures of the page: SVG, whose inks `page.css` adapts to dark and light.

mod bars;
mod chart;
mod tiles;

pub(super) use bars::peak;
pub(super) use tiles::fastest;

use super::trends::{Crossing, Group};
use super::view::short_len;
use crate::output::{bytes, seconds};
use anyhow::Result;
use chart::{Axis, Chart, Guide, Point, Series};
use plotters::prelude::*;
use plotters::style::FontStyle;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use wgpu_attention_bench::record::{Adapter, Case, CeilingKind, Status};
use wgpu_attention_bench::view::Timed;

/// Text and axes: the style sheet puts the colour of the page's text in its place.
const INK: RGBColor = BLACK;
/// Grid and guides, likewise.
const GRID: RGBColor = RGBColor(216, 216, 216);
/// Apart in every common colour blindness (Okabe, Ito 2008); then others, for who has more curves than that.
const COLOURS: [RGBColor; 12] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(128, 128, 128),
    RGBColor(150, 100, 50),
    RGBColor(120, 80, 200),
    RGBColor(140, 160, 0),
    RGBColor(0, 150, 160),
    RGBColor(200, 40, 90),
];

/// Pixels across: a phone shows it at three quarters, a desktop three of them side by side.
const WIDTH: i32 = 480;

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// A picture of this size.
fn picture((width, height): (i32, i32), draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (width as u32, height as u32)).into_drawing_area();
        draw(&area)?;
        area.present()?;
    }
    Ok(text)
}

/// A text that lies beside or around a point, in the middle of its height.
struct Label {
    at: (i32, i32),
    size: u32,
    colour: RGBColor,
    side: HPos,
    style: FontStyle,
}

impl Label {
    fn new(at: (i32, i32), side: HPos) -> Self {
        Self { at, size: 15, colour: INK, side, style: FontStyle::Normal }
    }

    fn draw(&self, area: &Area<'_>, text: &str) -> Result<()> {
        let font = FontDesc::new(FontFamily::SansSerif, f64::from(self.size), self.style);
        let style = font.color(&self.colour).pos(Pos::new(self.side, VPos::Center));
        Ok(area.draw(&Text::new(text.to_owned(), self.at, style))?)
    }
}

fn colour(n: usize) -> RGBColor {
    COLOURS[n % COLOURS.len()]
}

/// By the length: a curve per pattern, of what `value` says.
fn by_length(group: &Group<'_>, y: Axis, value: fn(&Timed<'_>) -> f64) -> Chart {
    let curve = |(n, pattern): (usize, &&str)| {
        let points = group.lens.iter().filter_map(|&len| {
            let (case, timed) = group.case(pattern, len)?;
            Some(Point { at: (len as f64, value(&timed)), firm: case.status == Status::Measured })
        });
        Series { name: (*pattern).into(), colour: colour(n), points: points.collect() }
    };
    Chart {
        x: Axis { name: "keys", base: 2.0, text: |x| short_len(x.round() as usize) },
        y,
        series: group.patterns.iter().enumerate().map(curve).collect(),
        guides: vec![],
        rings: vec![],
        joined: true,
    }
}

/// Time against length, with rings where a pattern overtakes full attention.
pub(super) fn time(group: &Group<'_>) -> Result<String> {
    let axis = Axis { name: "time of a call", base: 10.0, text: short_time };
    let mut chart = by_length(group, axis, |timed| timed.rates.time_s);
    chart.rings = (group.crossings().into_iter())
        .filter_map(|(_, crossing)| match crossing {
            Crossing::At(len, time) => Some((len, time)),
            _ => None,
        })
        .collect();
    chart.svg()
}

/// Memory on the device against length, beside the scores that are never stored.
pub(super) fn memory(group: &Group<'_>) -> Result<String> {
    let axis =
        Axis { name: "memory of a call", base: 2.0, text: |y| bytes(y.round() as u64).replace(".0 ", " ") };
    let mut chart = by_length(group, axis, |timed| timed.cost.memory_bytes as f64);
    let tops = chart.series.iter().flat_map(|series| &series.points).map(|point| point.at.1);
    let top = tops.fold(0.0, f64::max);
    let scores = group.lens.iter().map(|&len| (len as f64, 4.0 * (len as f64).powi(2)));
    // Its end may be far above everything else.
    let scores: Vec<_> = scores.filter(|point| point.1 <= 16.0 * top).collect();
    if scores.len() > 1 {
        chart.guides.push(Guide { name: "n² scores".into(), points: scores });
    }
    chart.svg()
}

/// FLOP/s against FLOP a byte, under what arithmetic and memory allow.
pub(super) fn roofline(adapter: &Adapter) -> Result<Option<String>> {
    let mut series: Vec<Series> = vec![];
    for case in &adapter.cases {
        let Some((at, firm)) = intensity(case) else { continue };
        let name = case.kernel.name();
        if !series.iter().any(|known| known.name == name) {
            series.push(Series { name: name.into(), colour: colour(series.len()), points: vec![] });
        }
        let known = series.iter_mut().find(|known| known.name == name);
        known.into_iter().for_each(|known| known.points.push(Point { at, firm }));
    }
    if series.is_empty() {
        return Ok(None);
    }
    let mut chart = Chart {
        x: Axis { name: "useful FLOP / byte", base: 10.0, text: plain },
        y: Axis { name: "useful GFLOP/s", base: 10.0, text: plain },
        series,
        guides: vec![],
        rings: vec![],
        joined: false,
    };
    let bandwidth =
        [CeilingKind::Copy, CeilingKind::Read].into_iter().filter_map(|kind| adapter.ceiling(kind));
    let bandwidth = bandwidth.reduce(f64::max);
    let (least, most) = chart.range(|at| at.0);
    for (kind, name) in [(CeilingKind::FmaF32, "fma f32"), (CeilingKind::MatrixF16, "matrix f16")] {
        let Some(peak) = adapter.ceiling(kind) else { continue };
        let points = match bandwidth {
            Some(bandwidth) => {
                let ridge = peak / bandwidth;
                let from = least.min(ridge);
                vec![
                    (from, 1e-9 * bandwidth * from),
                    (ridge, 1e-9 * peak),
                    (most.max(2.0 * ridge), 1e-9 * peak),
                ]
            }
            None => vec![(least, 1e-9 * peak), (most, 1e-9 * peak)],
        };
        chart.guides.push(Guide { name: name.into(), points });
    }
    chart.svg().map(Some)
}

/// Where a case lies in the roofline; none where it counts no FLOP.
fn intensity(case: &Case) -> Option<((f64, f64), bool)> {
    let Timed { rates, cost, .. } = case.timed()?;
    let at = (cost.useful_flop / cost.bytes, 1e-9 * rates.useful_flop_s);
    (at.0 > 0.0 && at.1 > 0.0).then_some((at, case.status == Status::Measured))
}

fn plain(value: f64) -> String {
    format!("{}", (1e6 * value).round() / 1e6)
}

fn short_time(time: f64) -> String {
    seconds(time * (1.0 + 1e-9)).replace(".00", "").replace(".0 ", " ")
}
