//! A row of weights in few cells, as text and as SVG.

use super::Found;
use std::fmt::Write;

/// Cells across: in text, with room for what is said beside them, and in a picture.
const TEXT_CELLS: usize = 40;
const SVG_CELLS: usize = 256;
/// Steps between nothing and a row's largest cell.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Side of the field of a head in SVG units, and the least and most of a row's height.
const SIDE: usize = 512;
const HEIGHTS: (usize, usize) = (1, 16);
/// As masks are drawn: the blue of full blocks, the grey of what is left out, ink.
const LARGEST: [u8; 3] = [0x00, 0x72, 0xb2];
const SMALLEST: [u8; 3] = [0xe6, 0xf1, 0xf7];
const LEFT_OUT: &str = "#f2f2f2";
const STRANGE: &str = "#d55e00";
const INK: &str = "#222222";

/// What a cell of some keys shows.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cell {
    /// None of the keys is attended.
    LeftOut,
    /// Which eighth of the row's largest cell the sum of the weights is in.
    Level(usize),
    /// Not a number.
    Strange,
}

/// How many keys a cell has.
fn scale(keys: usize, most: usize) -> usize {
    keys.div_ceil(most).max(1)
}

/// The cells of a row, each the sum of the weights of its keys.
fn cells(weights: &[f32], kept: &dyn Fn(usize) -> bool, scale: usize) -> Vec<Cell> {
    let sums: Vec<f32> = weights.chunks(scale).map(|keys| keys.iter().sum()).collect();
    let largest = sums.iter().fold(0f32, |most, &sum| most.max(sum));
    let cell = |(n, &sum): (usize, &f32)| match sum {
        _ if !(n * scale..weights.len().min((n + 1) * scale)).any(kept) => Cell::LeftOut,
        sum if sum.is_nan() => Cell::Strange,
        // All are 0 where the weight is a sink's.
        sum if largest > 0.0 => Cell::Level(((sum / largest * 8.0) as usize).min(7)),
        _ => Cell::Level(0),
    };
    sums.iter().enumerate().map(cell).collect()
}

/// A line per row: its cells, entropy, number of keys, and the key of the largest weight.
pub(super) fn text(found: &Found<'_>, site: usize) -> String {
    let scale = scale(found.kv_len(), TEXT_CELLS);
    let columns = found.kv_len().div_ceil(scale);
    let mut text = format!("{}; ▁ to █ of the row's largest, · left out", found.title(site));
    if scale > 1 {
        let _ = write!(text, ", {scale} keys per cell");
    }
    let _ = writeln!(text, "\n{:>9} {:columns$}  entropy     keys  largest", "query", "");
    for n in 0..found.rows.len() {
        let row = cells(found.weights(site, n), &|j| found.keeps(site, n, j), scale);
        let drawn: String = row.iter().map(|cell| cell.symbol()).collect();
        let summary = found.summary(site, n);
        let top = summary.top.first().map_or("-".into(), |(key, weight)| format!("{weight:.3} of {key}"));
        let _ = writeln!(
            text,
            "{:>9} {drawn}  {:>7.3}  {:>7}  {top}",
            found.rows[n], summary.entropy, summary.keys
        );
    }
    text
}

impl Cell {
    fn symbol(self) -> char {
        match self {
            Self::LeftOut => '·',
            Self::Level(level) => LEVELS[level],
            Self::Strange => '?',
        }
    }
}

/// A field per head, one below the other.
pub(super) fn svg(found: &Found<'_>, title: &str) -> String {
    let (rows, scale) = (found.rows.len(), scale(found.kv_len(), SVG_CELLS));
    let columns = found.kv_len().div_ceil(scale).max(1);
    let row_height = (SIDE / rows.max(1)).clamp(HEIGHTS.0, HEIGHTS.1);
    let (width, field) = (2 * SIDE.max(columns), rows * row_height);
    let height = 56 + found.sites() * (field + 28);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{w}\" height=\"{height}\" \
         viewBox=\"0 0 {w} {height}\" font-family=\"sans-serif\" font-size=\"11\" fill=\"{INK}\">\n\
         <title>{title}</title>\n<rect width=\"{w}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"16\">{title}</text>\n\
         <text x=\"16\" y=\"42\">queries (down) x keys (across, {scale} per cell); blue: the weight, against \
         the largest of its row; grey: left out</text>\n",
        w = width + 80,
        title = escape(title),
    );
    for site in 0..found.sites() {
        let top = 56 + site * (field + 28);
        let _ = writeln!(svg, "<text x=\"64\" y=\"{}\">{}</text>", top + 12, found.title(site));
        let _ = writeln!(
            svg,
            "<g transform=\"translate(64 {}) scale({} {row_height})\" shape-rendering=\"crispEdges\">\n\
             <rect width=\"{columns}\" height=\"{rows}\" fill=\"{LEFT_OUT}\"/>",
            top + 18,
            width as f64 / columns as f64,
        );
        for (colour, path) in paths(found, site, scale) {
            let _ = writeln!(svg, "<path fill=\"{colour}\" d=\"{path}\"/>");
        }
        svg += "</g>\n";
        // As many labels as there is room for.
        let step = 12usize.div_ceil(row_height);
        for n in (0..rows).step_by(step) {
            let y = top + 18 + n * row_height + row_height.min(12);
            let _ = writeln!(svg, "<text x=\"58\" y=\"{y}\" text-anchor=\"end\">{}</text>", found.rows[n]);
        }
    }
    svg + "</svg>\n"
}

/// The rectangles of each colour that occurs: a tenth of the size of as many elements.
fn paths(found: &Found<'_>, site: usize, scale: usize) -> Vec<(String, String)> {
    let mut paths = vec![String::new(); LEVELS.len() + 1];
    for n in 0..found.rows.len() {
        let row = cells(found.weights(site, n), &|j| found.keeps(site, n, j), scale);
        let mut x = 0;
        for same in row.chunk_by(PartialEq::eq) {
            let path = match same[0] {
                Cell::LeftOut => None,
                Cell::Level(level) => Some(level),
                Cell::Strange => Some(LEVELS.len()),
            };
            if let Some(path) = path {
                let _ = write!(paths[path], "M{x} {n}h{0}v1h-{0}z", same.len());
            }
            x += same.len();
        }
    }
    let colour = |level: usize| match level {
        8 => STRANGE.to_owned(),
        level => {
            let mixed = |n: usize| {
                let (from, to) = (i32::from(SMALLEST[n]), i32::from(LARGEST[n]));
                from + (to - from) * level as i32 / 7
            };
            format!("#{:02x}{:02x}{:02x}", mixed(0), mixed(1), mixed(2))
        }
    };
    let drawn = paths.into_iter().enumerate().filter(|(_, path)| !path.is_empty());
    drawn.map(|(level, path)| (colour(level), path)).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_sums_against_the_largest() {
        let weights = [0.4, 0.1, 0.0, 0.25, 0.25, 0.0, 0.0];
        let kept = |j: usize| j < 5;
        let by_key = [7, 2, 0, 5, 5].map(Cell::Level);
        assert_eq!(cells(&weights, &kept, 1), [&by_key[..], &[Cell::LeftOut; 2]].concat());
        assert_eq!(
            cells(&weights, &kept, 2),
            [7, 4, 4].map(Cell::Level).into_iter().chain([Cell::LeftOut]).collect::<Vec<_>>()
        );
        assert_eq!(cells(&[0.0, f32::NAN], &|_| true, 1), [Cell::Level(0), Cell::Strange]);
    }
}
