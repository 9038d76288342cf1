//! The loss by the step, as an SVG.

use crate::Error;
use plotters::prelude::*;

/// One model's: step, and the loss before it.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(u32, f64)>,
}

/// Apart in every common colour blindness (Okabe, Ito 2008).
const COLOURS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115)];

/// The picture: each loss as the mean of some steps around it, for a step's own says as much of its batch as of the model.
pub(crate) fn svg(curves: &[Curve], unigram: f64) -> Result<String, Error> {
    let mut picture = String::new();
    let steps = || curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.0));
    let (first, last) = (steps().min().unwrap_or(0), steps().max().unwrap_or(1));
    let top = curves.iter().flat_map(|curve| &curve.points).map(|point| point.1).fold(unigram, f64::max);
    {
        let area = SVGBackend::with_string(&mut picture, (720, 420)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption("Loss of a character model", ("sans-serif", 16))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(56)
            .build_cartesian_2d(first..last.max(first + 1), 0.0..1.05 * top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .x_desc("step")
            .y_desc("nats per character")
            .axis_desc_style(("sans-serif", 13))
            .label_style(("sans-serif", 12))
            .draw()?;
        let level = [(first, unigram), (last.max(first + 1), unigram)];
        chart
            .draw_series(LineSeries::new(level, BLACK.stroke_width(1)))?
            .label("frequencies alone (unigrams)")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], BLACK));
        for (curve, colour) in curves.iter().zip(COLOURS) {
            chart
                .draw_series(LineSeries::new(smoothed(&curve.points), colour.stroke_width(2)))?
                .label(&curve.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .label_font(("sans-serif", 13))
            .background_style(WHITE)
            .draw()?;
        area.present()?;
    }
    Ok(picture)
}

/// Means of a hundredth of the steps, so that there are at most some hundred points.
fn smoothed(points: &[(u32, f64)]) -> Vec<(u32, f64)> {
    let mean = |some: &[(u32, f64)]| {
        let loss = some.iter().map(|point| point.1).sum::<f64>() / some.len() as f64;
        (some[some.len() / 2].0, loss)
    };
    points.chunks(points.len().div_ceil(100).max(1)).map(mean).collect()
}
