//! Which pattern is fastest at which length.

use super::{COLOURS, GRID, INK, Label, picture};
use crate::output::seconds;
use crate::report::trends::Group;
use crate::report::view::short_len;
use anyhow::Result;
use plotters::prelude::*;
use plotters::style::FontStyle;
use plotters::style::text_anchor::HPos;

/// Pixels: of a row, of a column, of the names on the left, of the lengths above.
const ROW: i32 = 38;
const COLUMN: i32 = 68;
const NAMES: i32 = 84;
const HEAD: i32 = 44;

/// One row per pattern, one column per length: the time, and how many times that of the fastest it is. The fastest have a frame.
pub(in super::super) fn fastest(group: &Group<'_>) -> Result<String> {
    let height = HEAD + ROW * group.patterns.len() as i32 + 4;
    let width = NAMES + COLUMN * group.lens.len() as i32 + 4;
    picture((width, height), |area| {
        Label { size: 16, ..Label::new(((width + NAMES) / 2, 12), HPos::Center) }.draw(area, "keys")?;
        for (n, pattern) in group.patterns.iter().enumerate() {
            let middle = HEAD + ROW * n as i32 + ROW / 2;
            Label::new((NAMES - 8, middle), HPos::Right).draw(area, pattern)?;
        }
        for (c, &len) in group.lens.iter().enumerate() {
            let left = NAMES + COLUMN * c as i32;
            let centre = left + COLUMN / 2;
            Label::new((centre, 32), HPos::Center).draw(area, &short_len(len))?;
            let fastest = group.fastest(len);
            for (r, pattern) in group.patterns.iter().enumerate() {
                let top = HEAD + ROW * r as i32;
                let corners = [(left + 2, top + 2), (left + COLUMN - 2, top + ROW - 2)];
                let Some(time) = group.time(pattern, len) else {
                    area.draw(&Rectangle::new(corners, GRID))?;
                    continue;
                };
                // Alone at its length, it is compared with nothing.
                let (winners, best) =
                    fastest.as_ref().map_or((&[][..], time), |(names, best)| (names, *best));
                let ratio = time / best;
                area.draw(&Rectangle::new(corners, COLOURS[0].mix(0.55 / ratio).filled()))?;
                let wins = winners.contains(pattern);
                if wins {
                    area.draw(&Rectangle::new(corners, INK.stroke_width(2)))?;
                }
                let style = if wins { FontStyle::Bold } else { FontStyle::Normal };
                let text = match fastest {
                    None => "alone".into(),
                    Some(_) if wins => "fastest".into(),
                    Some(_) => times(ratio),
                };
                Label { size: 14, style, ..Label::new((centre, top + 12), HPos::Center) }
                    .draw(area, &text)?;
                Label { size: 13, ..Label::new((centre, top + 27), HPos::Center) }
                    .draw(area, &seconds(time))?;
            }
        }
        Ok(())
    })
}

fn times(ratio: f64) -> String {
    if ratio < 9.95 { format!("x {ratio:.1}") } else { format!("x {ratio:.0}") }
}
