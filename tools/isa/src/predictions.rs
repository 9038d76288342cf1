//! What is predicted of the kernels that everyone asks about, out of the pages of statistics: for the program that compares it with measurements
//! (`wgpu-attention report --predictions`), and for the table of `docs/SPEED.md`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use wgpu_attention::wgsl::{GpuFamily, Tile, TileLimits};

use crate::gpu::GPUS;

/// A kernel's name in words, and the label of its shader on most GPUs.
const KERNELS: [(&str, &str); 9] = [
    ("attention, d = 64", "attention d64 dv64 f32->f32 tile 64x32 chunk 8 v 16 block 64x64"),
    ("attention, d = 128", "attention d128 dv128 f32->f32 tile 32x64 chunk 8 v 8 block 64x64"),
    ("attention, d = 256", "attention d256 dv256 f32->f32 tile 32x64 chunk 8 v 4 block 64x64"),
    ("dq, d = 64", "backward dq d64 dv64 f32/f32 f32->f32 tile 64x32 chunk 8 v 16 block 64x64"),
    ("dq, d = 128", "backward dq d128 dv128 f32/f32 f32->f32 tile 32x64 chunk 8 v 16 block 64x64"),
    ("dk and dv, d = 64", "backward dk dv d64 dv64 f32/f32 f32->f32 tile 64x32 chunk 8 v 16 block 64x64"),
    ("dk and dv, d = 128", "backward dk dv d128 dv128 f32/f32 f32->f32 tile 32x64 chunk 8 v 16 block 64x64"),
    ("matrix product, 64 x 64", "matmul f32xf32->f32 tile 64x64"),
    ("matrix product, 128 x 128", "matmul f32xf32->f32 tile 128x128"),
];

/// The folder of this package with pages of what the kernels of the table are without run-time checks.
pub const UNCHECKED: &str = "statistics/unchecked";

/// Between these lines the page has the tables.
const MARKS: [&str; 2] =
    ["<!-- predictions: begin (cargo xtask isa --predictions) -->", "<!-- predictions: end -->"];

/// A GPU's prediction of each kernel.
struct Predicted {
    gpu: &'static crate::Gpu,
    /// In the order of [`KERNELS`].
    shares: Vec<Share>,
}

struct Share {
    shader: String,
    percent: u32,
    /// The same where each tile of keys has a mask.
    masked: u32,
    bound: String,
    spills: u64,
}

/// The files that are made: each with its text.
///
/// # Errors
/// A page or a mark is not there, or a page says nothing of a kernel.
pub fn files() -> Result<[(PathBuf, String); 2]> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read =
        |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let of_folder = |folder: &str| -> Result<Vec<Predicted>> {
        let one = |gpu: &'static crate::Gpu| {
            let page = read(&tools.join(folder).join(format!("{}.md", gpu.name)))?;
            predicted(gpu, &page).with_context(|| gpu.name)
        };
        GPUS.iter().map(one).collect()
    };
    let (all, unchecked) = (of_folder("statistics")?, of_folder(UNCHECKED)?);
    let root = tools.join("../..");
    let speed = root.join("docs/SPEED.md");
    let made =
        format!("{}\nWithout run-time checks (`Options::unchecked`):\n\n{}", table(&all), table(&unchecked));
    let page = filled(&read(&speed)?, &made).with_context(|| speed.display().to_string())?;
    Ok([(root.join("crates/bench/src/predictions.json"), json(&all)), (speed, page)])
}

/// Whether a GPU's column of the table has a shader.
pub fn is_predicted(gpu: &str, shader: &str) -> bool {
    KERNELS.iter().any(|(_, label)| shader_on(gpu, label).is_ok_and(|own| own == shader))
}

/// Writes them.
///
/// # Errors
/// As [`files`], and where one cannot be written.
pub fn write() -> Result<()> {
    for (path, text) in files()? {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Reads a page of statistics.
fn predicted(gpu: &'static crate::Gpu, page: &str) -> Result<Predicted> {
    let rows: Vec<Vec<&str>> = page.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    let head = rows.iter().find(|row| row.get(1) == Some(&"shader")).context("need a table of shaders")?;
    let column = |name: &str| {
        head.iter().position(|it| *it == name).with_context(|| format!("need a column `{name}`"))
    };
    let [spills, share, masked] = [column("spills")?, column("predicted")?, column("masked")?];
    let of = |label: &str| -> Result<Share> {
        let shader = shader_on(gpu.name, label)?;
        let row = rows
            .iter()
            .find(|row| row.get(1) == Some(&&*shader))
            .with_context(|| format!("need `{shader}`"))?;
        let cell =
            |at: usize| row[at].split_once(" %, ").with_context(|| format!("need a prediction of `{label}`"));
        let ((percent, bound), (masked, _)) = (cell(share)?, cell(masked)?);
        let (percent, masked) = (percent.parse()?, masked.parse()?);
        Ok(Share { percent, masked, bound: bound.into(), spills: row[spills].parse()?, shader })
    };
    Ok(Predicted { gpu, shares: KERNELS.iter().map(|(_, label)| of(label)).collect::<Result<_>>()? })
}

/// The shader that a GPU runs where another has that of this label: attention has tiles of the GPU's own family.
fn shader_on(gpu: &str, label: &str) -> Result<String> {
    let Some(dim) = label.strip_prefix("attention d").and_then(|rest| rest.split(' ').next()) else {
        return Ok(label.into());
    };
    let family = match gpu {
        "ampere" => GpuFamily::Nvidia,
        "dg2" => GpuFamily::Intel,
        "bmg" => GpuFamily::IntelXe2,
        "navi31" | "navi21" | "gfx1201" => GpuFamily::Rdna,
        _ => GpuFamily::Any,
    };
    // As drivers for all of them offer.
    let limits = TileLimits { family, subgroups: true, ..TileLimits::GENEROUS };
    let tile = Tile::choose(dim.parse()?, dim.parse()?, 64, 64, limits)?;
    Ok(format!("attention d{dim} dv{dim} f32->f32 tile {tile} block 64x64"))
}

/// By GPU and shader. Nothing in it needs escapes: names and labels are the crate's own.
fn json(all: &[Predicted]) -> String {
    let mut out = String::from("[\n");
    for (n, Predicted { gpu, shares }) in all.iter().enumerate() {
        let _ = write!(out, "  {{\"name\": \"{}\", \"gpu\": \"{}\", \"kernels\": [", gpu.name, gpu.what);
        for (n, ((kernel, _), Share { shader, percent, bound, spills, .. })) in
            KERNELS.iter().zip(shares).enumerate()
        {
            let comma = if n > 0 { "," } else { "" };
            let _ = write!(
                out,
                "{comma}\n    {{\"kernel\": \"{kernel}\", \"shader\": \"{shader}\", \"percent\": {percent}, \
                 \"bound\": \"{bound}\", \"spills\": {spills}}}"
            );
        }
        out += if n + 1 < all.len() { "\n  ]},\n" } else { "\n  ]}\n" };
    }
    out + "]\n"
}

/// A column per GPU, a row per kernel: the share where no tile has a mask, that where each has if it is another, and a star where the compiler
/// spills.
fn table(all: &[Predicted]) -> String {
    let short = |what: &str| what.split(" (").next().unwrap_or(what).to_owned();
    let names: Vec<_> =
        all.iter().map(|it| short(it.gpu.what.split(',').next().unwrap_or_default())).collect();
    let mut out = format!("| f32 | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for (n, (kernel, _)) in KERNELS.iter().enumerate() {
        let cell = |it: &Predicted| {
            let Share { percent, masked, bound, spills, .. } = &it.shares[n];
            let word = bound.replace("other arithmetic", "integers").replace("workgroup memory", "memory");
            let masked = if masked == percent { String::new() } else { format!(" ({masked})") };
            format!("{percent}{masked} %{}, {word}", if *spills > 0 { "*" } else { "" })
        };
        let cells: Vec<_> = all.iter().map(cell).collect();
        let _ = writeln!(out, "| {kernel} | {} |", cells.join(" | "));
    }
    out
}

/// A page with what is between the marks replaced.
fn filled(page: &str, made: &str) -> Result<String> {
    let [begin, end] = MARKS;
    let parts = page.split_once(begin).and_then(|(head, rest)| Some((head, rest.split_once(end)?.1)));
    ensure!(parts.is_some(), "need the lines `{begin}` and `{end}`, in this order");
    let (head, tail) = parts.unwrap_or_default();
    Ok(format!("{head}{begin}\n\n{made}\n{end}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_and_the_page_have_what_the_statistics_say() {
        for (path, text) in files().unwrap() {
            let there = fs::read_to_string(&path).unwrap_or_default();
            assert!(there == text, "{}: run `cargo xtask isa --predictions`", path.display());
        }
    }

    #[test]
    fn a_page_without_a_kernel_is_refused() {
        let page =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("statistics/m1.md")).unwrap();
        assert!(predicted(&GPUS[8], &page).is_ok());
        let label = KERNELS[3].1;
        let error = predicted(&GPUS[8], &page.replace(label, "another")).err().unwrap();
        assert!(error.to_string().contains(label), "{error}");
        assert!(filled(MARKS[0], "").is_err() && filled(&MARKS.concat(), "x").unwrap().contains("\nx\n"));
    }
}
