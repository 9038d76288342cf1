//! The mask as a picture.

use super::draw::{Cell, Cells};
use super::{BlockMask, RunKind};
use std::fmt::Write;

/// Masks up to this many queries and keys are drawn pair by pair.
const PAIRS: usize = 128;
/// Larger ones in at most this many cells across.
const CELLS: usize = 128;
/// Side of the square that the picture fits into, in SVG units.
const SIDE: usize = 512;
/// Blue and orange stay apart in every common colour blindness (Okabe, Ito 2008), and blue is darker in grey, too.
const FULL: &str = "#0072b2";
const PARTIAL: &str = "#e69f00";
const VISITED: &str = "#fbe6bb";
const EMPTY: &str = "#f2f2f2";
const INK: &str = "#222222";

impl BlockMask {
    /// A self-contained SVG of the first head: pair by pair where the mask is small, else by block, with a legend.
    pub fn to_svg(&self, title: &str) -> String {
        self.site_to_svg(title, 0, 0)
    }

    /// The SVG of one head of one batch item; an empty field for an index past the grid.
    pub fn site_to_svg(&self, title: &str, batch: usize, head: usize) -> String {
        let grid = self.grid();
        let by_pair = grid.q_len <= PAIRS && grid.kv_len <= PAIRS;
        let field = if by_pair { self.pair_field(batch, head) } else { self.block_field(batch, head) };
        let (width, height) = (field.width * field.unit, field.height * field.unit);
        let full_width = width.max(420) + 32;
        let full_height = height + 104;
        let title = escape(title);
        let mut svg = format!(
            concat!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" ",
                "font-family=\"sans-serif\" fill=\"{ink}\">\n<title>{title}</title>\n",
                "<rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>\n",
                "<text x=\"16\" y=\"28\" font-size=\"18\">{title}</text>\n",
                "<text x=\"16\" y=\"46\" font-size=\"11\">{q} queries (down) x {k} keys (across), {kept:.1} % of the pairs kept, ",
                "{waste:.2} visited for each</text>\n",
                "<g transform=\"translate(16 60) scale({unit})\" shape-rendering=\"crispEdges\">\n",
                "<rect width=\"{columns}\" height=\"{rows}\" fill=\"{empty}\"/>\n",
            ),
            w = full_width,
            h = full_height,
            ink = INK,
            title = title,
            q = grid.q_len,
            k = grid.kv_len,
            kept = 100.0 * self.kept() as f64
                / ((grid.batch * grid.heads) as f64 * grid.q_len as f64 * grid.kv_len as f64).max(1.0),
            waste = self.waste(),
            unit = field.unit,
            columns = field.width,
            rows = field.height,
            empty = EMPTY,
        );
        for (colour, rects) in [(VISITED, &field.visited), (PARTIAL, &field.partial), (FULL, &field.full)] {
            if !rects.is_empty() {
                // One path a colour: a tenth of the size of as many elements.
                let _ = writeln!(svg, "<path fill=\"{colour}\" d=\"{rects}\"/>");
            }
        }
        svg.push_str("</g>\n");
        let what: &[_] = if by_pair {
            &[(FULL, "full block"), (PARTIAL, "kept in a partial block"), (VISITED, "visited, not kept")]
        } else {
            &[(FULL, "full"), (PARTIAL, "partial"), (EMPTY, "empty")]
        };
        let mut x = 16;
        for (colour, name) in what {
            let y = height + 76;
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{colour}\" stroke=\"{INK}\" stroke-width=\"0.5\"/>\
                 <text x=\"{}\" y=\"{}\" font-size=\"11\">{name}</text>",
                x + 17,
                y + 10,
            );
            x += 35 + 6 * name.len();
        }
        if let Some(note) = field.note {
            let _ = writeln!(svg, "<text x=\"{x}\" y=\"{}\" font-size=\"11\">{note}</text>", height + 86);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn pair_field(&self, batch: usize, head: usize) -> Field {
        let grid = self.grid();
        let mut field = Field::new(grid.kv_len, grid.q_len);
        for i in 0..grid.q_len {
            let row = self.row(batch, head, i / grid.block_q);
            for run in row.full.iter().chain(row.partial) {
                let keys = grid.keys(run.first as usize).start..grid.keys(run.blocks().end - 1).end;
                if run.kind == RunKind::Full {
                    rect(&mut field.full, keys.start, i, keys.len());
                    continue;
                }
                rect(&mut field.visited, keys.start, i, keys.len());
                let mut first = keys.start;
                for j in keys.start..=keys.end {
                    if j == keys.end || !self.keeps(batch, head, i, j) {
                        rect(&mut field.partial, first, i, j - first);
                        first = j + 1;
                    }
                }
            }
        }
        field
    }

    fn block_field(&self, batch: usize, head: usize) -> Field {
        let Cells { scale, columns, cells } = self.cells(batch, head, CELLS);
        let mut field = Field::new(columns, cells.len() / columns.max(1));
        for (y, row) in cells.chunks(columns.max(1)).enumerate() {
            let mut x = 0;
            for same in row.chunk_by(PartialEq::eq) {
                match same[0] {
                    Cell::Full => rect(&mut field.full, x, y, same.len()),
                    Cell::Partial => rect(&mut field.partial, x, y, same.len()),
                    Cell::Empty => {}
                }
                x += same.len();
            }
        }
        let grid = self.grid();
        field.note = Some(format!("a cell: {} x {}", scale * grid.block_q, scale * grid.block_k));
        field
    }
}

/// Rectangles by colour, as path data, in cells.
struct Field {
    width: usize,
    height: usize,
    /// Side of a cell.
    unit: usize,
    full: String,
    partial: String,
    visited: String,
    note: Option<String>,
}

impl Field {
    fn new(width: usize, height: usize) -> Self {
        let unit = (SIDE / width.max(height).max(1)).clamp(1, 32);
        Self {
            width,
            height,
            unit,
            full: String::new(),
            partial: String::new(),
            visited: String::new(),
            note: None,
        }
    }
}

fn rect(path: &mut String, x: usize, y: usize, width: usize) {
    if width > 0 {
        let _ = write!(path, "M{x} {y}h{width}v1h-{width}z");
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
