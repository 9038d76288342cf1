//! Percent of the arithmetic peak, by kernel, pattern and score.

use super::{COLOURS, GRID, INK, Label, WIDTH, picture};
use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use wgpu_attention_bench::record::{Adapter, Status};

/// Pixels: of a row, of the names on the left at least, of a letter of them at most, of the axis below.
const ROW: i32 = 24;
const NAMES: i32 = 178;
const LETTER: i32 = 8;
const AXIS: i32 = 44;

/// A bar to the best case of each kernel, a mark for each of its cases; none where nothing has a peak.
pub(in super::super) fn peak(adapter: &Adapter) -> Result<Option<String>> {
    let mut rows: Vec<(String, Vec<(f64, bool)>)> = vec![];
    for case in &adapter.cases {
        let Some(percent) = case.rates.as_ref().and_then(|rates| rates.peak_percent) else { continue };
        let name = format!("{} {}", case.family(), case.dtype);
        let mark = (percent, case.status == Status::Measured);
        match rows.iter_mut().find(|(known, _)| *known == name) {
            Some((_, marks)) => marks.push(mark),
            None => rows.push((name, vec![mark])),
        }
    }
    let best = |marks: &[(f64, bool)]| marks.iter().map(|mark| mark.0).fold(0.0, f64::max);
    rows.sort_by(|a, b| best(&b.1).total_cmp(&best(&a.1)));
    let Some(most) = rows.first().map(|row| best(&row.1)) else { return Ok(None) };
    // At most six lines, however far past a hundred: that is shown as what it is.
    let steps = (0..).flat_map(|n| [5.0, 10.0, 20.0].map(|step| step * 10f64.powi(n)));
    let step = steps.into_iter().find(|step| most <= 6.0 * step).expect("steps grow past any share");
    let end = step * (most / step).ceil().max(1.0);
    let bottom = 8 + ROW * rows.len() as i32;
    // Names of scores make long ones: the picture grows by what they take.
    let letters = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) as i32;
    let names = NAMES.max(LETTER * letters + 8);
    let svg = picture((WIDTH + names - NAMES, bottom + AXIS), |area| {
        let x = |percent: f64| names + ((f64::from(WIDTH - NAMES - 60)) * percent / end).round() as i32;
        let lines = (end / step).round() as i32;
        for n in 0..=lines {
            let percent = step * f64::from(n);
            area.draw(&PathElement::new([(x(percent), 4), (x(percent), bottom)], GRID))?;
            Label::new((x(percent), bottom + 12), HPos::Center).draw(area, &format!("{percent:.0}"))?;
        }
        Label { size: 16, ..Label::new((x(end / 2.0), bottom + 32), HPos::Center) }
            .draw(area, "executed FLOP/s, % of the measured peak")?;
        for (n, (name, marks)) in rows.iter().enumerate() {
            let middle = 8 + ROW * n as i32 + ROW / 2;
            let best = best(marks);
            Label::new((names - 8, middle), HPos::Right).draw(area, name)?;
            area.draw(&Rectangle::new(
                [(x(0.0), middle - 8), (x(best), middle + 8)],
                COLOURS[0].mix(0.35).filled(),
            ))?;
            for &(percent, firm) in marks {
                let style = if firm { COLOURS[0].filled() } else { COLOURS[0].stroke_width(2) };
                area.draw(&Circle::new((x(percent), middle), 4, style))?;
            }
            Label { colour: INK, ..Label::new((x(best) + 10, middle), HPos::Left) }
                .draw(area, &format!("{best:.1}"))?;
        }
        Ok(())
    })?;
    Ok(Some(svg))
}
