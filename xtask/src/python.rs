//! The page on cases from Python, done as it says: its lines write files, and `verify` judges them.
//!
//! Python stands for the other framework: it computes a call by the formula, in double precision, without a package.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build;
use crate::pypi::PYTHON;
use crate::software::Launcher;
use crate::steps::{Steps, root};

/// The step's name.
pub(crate) const STEP: &str = "a case from Python";
/// The page; its first block of Python is what is tested.
const PAGE: &str = "docs/PYTORCH.md";
/// A test and the binary of the command line.
const CLI: [&str; 2] = ["cli", "wgpu-attention"];

/// Writes a right case, one with a wrong element and one with an unknown tensor, by the page's function. Arguments: the folder.
const CALLS: &str = r#"
import math, random, sys
from array import array
random.seed(7)
L, d = 6, 4
rows = lambda: [[random.gauss(0, 1) for _ in range(d)] for _ in range(L)]
stored = lambda x: [array("f", row).tolist() for row in x]
q, k, v, dout = (stored(rows()) for _ in range(4))
dot = lambda a, b: math.fsum(x * y for x, y in zip(a, b))
scale = d ** -0.5
p = []
for i in range(L):
    e = [math.exp(scale * dot(q[i], k[j])) if j <= i else 0.0 for j in range(L)]
    p.append([x / math.fsum(e) for x in e])
out = [[math.fsum(p[i][j] * v[j][c] for j in range(L)) for c in range(d)] for i in range(L)]
ds = [[p[i][j] * (dot(dout[i], v[j]) - dot(dout[i], out[i])) * scale for j in range(L)] for i in range(L)]
dq = [[math.fsum(ds[i][j] * k[j][c] for j in range(L)) for c in range(d)] for i in range(L)]
dk = [[math.fsum(ds[i][j] * q[i][c] for i in range(L)) for c in range(d)] for j in range(L)]
dv = [[math.fsum(p[i][j] * dout[i][c] for i in range(L)) for c in range(d)] for j in range(L)]
def tensor(x):
    return memoryview(array("f", [e for row in x for e in row])).cast("B").cast("f", (1, 1, L, d))
tensors = {name: tensor(x) for name, x in dict(q=q, k=k, v=v, out=out, dout=dout, dq=dq, dk=dk, dv=dv).items()}
case = {"op": "attention", "name": "mine", "pattern": {"kind": "causal"}, "expected_abs_error": {"out": 1e-7}}
folder = sys.argv[1] + "/"
write_case(folder + "right.safetensors", case, **tensors)
write_case(folder + "unknown.safetensors", case, **tensors, attn_mask=tensors["q"])
dq[3][2] += 1e-4
write_case(folder + "wrong.safetensors", case, **{**tensors, "dq": tensor(dq)})
"#;

/// The step, where there is a Python.
pub(crate) fn step(steps: &mut Steps, launcher: &Launcher) {
    match Command::new(PYTHON).arg("--version").output() {
        Ok(output) if output.status.success() => drop(steps.run(STEP, || check(launcher))),
        _ => steps.not_run(STEP, format!("there is no {PYTHON}")),
    }
}

/// Does what the page says.
pub(crate) fn check(launcher: &Launcher) -> Result<()> {
    let page = fs::read_to_string(root().join(PAGE)).context(PAGE)?;
    let folder = std::env::temp_dir().join(format!("wgpu-attention-python-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let outcome = judged(launcher, first_block(&page)?, &folder);
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    outcome
}

/// Files by the page's function, and what `verify` says of each.
fn judged(launcher: &Launcher, function: &str, folder: &Path) -> Result<()> {
    let script = folder.join("script.py");
    fs::write(&script, format!("{function}{CALLS}"))?;
    let output = Command::new(PYTHON).arg(&script).arg(folder).output().context(PYTHON)?;
    ensure!(output.status.success(), "{PAGE}: {}", String::from_utf8_lossy(&output.stderr));
    let [test, name] = CLI;
    let program = build::with_tests(test, name)?;
    let wanted = [
        ("right.safetensors", true, "pass"),
        ("wrong.safetensors", false, "dq[0, 0, 3, 2]"),
        ("unknown.safetensors", true, "attn_mask"),
    ];
    for (file, good, word) in wanted {
        let output = launcher.command(&program).arg("verify").arg(folder.join(file)).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let fits = output.status.success() == good && said.contains(word);
        ensure!(fits, "verify {file}: need `{word}`, got {}\n{said}", output.status);
        eprintln!("   {file}: {}", said.lines().next().unwrap_or_default());
    }
    Ok(())
}

/// The lines of a page's first block of Python.
fn first_block(page: &str) -> Result<&str> {
    let (_, rest) = page.split_once("```python\n").context("the page has no block of Python")?;
    Ok(rest.split_once("```").context("a block of Python has no end")?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_block_is_taken() {
        let page = "text\n```python\nx = 1\n```\n```python\ny = 2\n```\n";
        assert_eq!(first_block(page).unwrap(), "x = 1\n");
        assert!(first_block("text").unwrap_err().to_string().contains("no block"));
        assert!(first_block("```python\nx").unwrap_err().to_string().contains("no end"));
    }
}
