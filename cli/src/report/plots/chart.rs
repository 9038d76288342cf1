//! Points, joined or not, on two logarithmic scales.

use super::{Area, GRID, INK, Label, WIDTH, picture};
use anyhow::{Result, ensure};
use plotters::prelude::*;
use plotters::style::FontStyle;
use plotters::style::text_anchor::HPos;
use std::ops::Range;

pub(super) struct Axis {
    pub(super) name: &'static str,
    /// Of the logarithm.
    pub(super) base: f64,
    pub(super) text: fn(f64) -> String,
}

pub(super) struct Series {
    pub(super) name: String,
    pub(super) colour: RGBColor,
    pub(super) points: Vec<Point>,
}

pub(super) struct Point {
    pub(super) at: (f64, f64),
    /// Drawn as a disc, otherwise as a circle.
    pub(super) firm: bool,
}

/// A dashed line to compare with.
pub(super) struct Guide {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

pub(super) struct Chart {
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    pub(super) guides: Vec<Guide>,
    /// Points to be seen.
    pub(super) rings: Vec<(f64, f64)>,
    /// The points of a series, by lines.
    pub(super) joined: bool,
}

/// Pixels from one name to the next.
const LINE: i32 = 17;
/// Characters of a name for which there is room anyway, and pixels of each more.
const NAME: usize = 12;
const CHARACTER: i32 = 9;

impl Chart {
    /// The least and the largest coordinate.
    pub(super) fn range(&self, coordinate: fn((f64, f64)) -> f64) -> (f64, f64) {
        let points = self.series.iter().flat_map(|series| series.points.iter().map(|point| point.at));
        let guides = self.guides.iter().flat_map(|guide| guide.points.iter().copied());
        let all = || points.clone().chain(guides.clone()).map(coordinate);
        (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max))
    }

    pub(super) fn svg(&self) -> Result<String> {
        let names = self.series.len() + self.guides.len();
        let height = 340.max(80 + LINE * names as i32);
        let more = self.longer_names();
        picture((WIDTH + more, height), |area| self.draw(area, more))
    }

    /// Pixels that names need beside those of [`NAME`] characters.
    fn longer_names(&self) -> i32 {
        let names =
            self.series.iter().map(|series| &series.name).chain(self.guides.iter().map(|it| &it.name));
        let longest = names.map(|name| name.chars().count()).max().unwrap_or(0);
        CHARACTER * longest.saturating_sub(NAME) as i32
    }

    fn draw(&self, area: &Area<'_>, more: i32) -> Result<()> {
        let (xs, ys) = (self.x.span(self.range(|at| at.0))?, self.y.span(self.range(|at| at.1))?);
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(122 + more)
            .x_label_area_size(46)
            .y_label_area_size(76)
            .build_cartesian_2d(
                xs.clone().log_scale().base(self.x.base),
                ys.clone().log_scale().base(self.y.base),
            )?;
        chart
            .configure_mesh()
            .max_light_lines(0)
            .bold_line_style(GRID)
            .axis_style(INK)
            .x_labels(self.x.labels(&xs))
            .y_labels(self.y.labels(&ys))
            .x_desc(self.x.name)
            .y_desc(self.y.name)
            .axis_desc_style(("sans-serif", 16))
            .label_style(("sans-serif", 15))
            .x_label_formatter(&|x| (self.x.text)(*x))
            .y_label_formatter(&|y| (self.y.text)(*y))
            .draw()?;
        let mut names = vec![];
        for guide in &self.guides {
            chart.draw_series(DashedLineSeries::new(
                guide.points.iter().copied(),
                6,
                5,
                INK.stroke_width(1),
            ))?;
            names.extend(guide.points.last().map(|end| (chart.backend_coord(end), &guide.name, INK)));
        }
        for Series { name, colour, points } in &self.series {
            if self.joined {
                let line = points.iter().map(|point| point.at);
                chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
            }
            chart.draw_series(points.iter().map(|point| match point.firm {
                true => Circle::new(point.at, 4, colour.filled()),
                false => Circle::new(point.at, 4, colour.stroke_width(2)),
            }))?;
            names.extend(points.last().map(|end| (chart.backend_coord(&end.at), name, *colour)));
        }
        chart.draw_series(self.rings.iter().map(|&at| Circle::new(at, 8, INK.stroke_width(2))))?;
        label(area, names, 104 + more)
    }
}

/// Names beside the ends of their curves, apart from each other and inside the picture.
fn label(area: &Area<'_>, mut names: Vec<((i32, i32), &String, RGBColor)>, room_for_one: i32) -> Result<()> {
    let (width, height) = area.dim_in_pixel();
    names.sort_by_key(|name| name.0.1);
    let mut ys: Vec<i32> = vec![];
    for ((_, y), _, _) in &names {
        ys.push(ys.last().map_or(*y, |last| (*y).max(last + LINE)));
    }
    let mut room = height as i32 - LINE / 2;
    for y in ys.iter_mut().rev() {
        *y = (*y).min(room);
        room = *y - LINE;
    }
    let x = width as i32 - room_for_one;
    for ((_, name, colour), y) in names.into_iter().zip(ys) {
        let guide = colour == INK;
        if guide {
            area.draw(&PathElement::new([(x - 6, y), (x + 4, y)], INK))?;
        } else {
            area.draw(&Circle::new((x, y), 4, colour.filled()))?;
        }
        let style = if guide { FontStyle::Italic } else { FontStyle::Normal };
        Label { style, ..Label::new((x + 8, y), HPos::Left) }.draw(area, name)?;
    }
    Ok(())
}

impl Axis {
    /// From a power of the base to another.
    fn span(&self, (least, most): (f64, f64)) -> Result<Range<f64>> {
        ensure!(least > 0.0 && least <= most && most.is_finite(), "{}: nothing to plot", self.name);
        // A value that is a power but for rounding is that power.
        let low = (least.log(self.base) + 1e-6).floor();
        let high = (most.log(self.base) - 1e-6).ceil().max(low + 1.0);
        // A little more, so that rounding takes no power off the ends.
        Ok(self.base.powf(low) * (1.0 - 1e-9)..self.base.powf(high) * (1.0 + 1e-9))
    }

    /// Of a label at each power, but not more than there is room for.
    fn labels(&self, span: &Range<f64>) -> usize {
        let powers = (span.end / span.start).log(self.base).round() as usize;
        powers.clamp(1, 9)
    }
}
