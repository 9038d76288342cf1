//! What the score's relative rows and dropout cost beside plain attention, what it costs that NaN shows, and what gradients cost beside the
//! forward pass:
//! `cargo run --release --example ratios`, or with a word of the names of lines, as in `-- gradients` or `-- "Direct, causal"`.
//!
//! Both calls of a pair by turns, on buffers that lie on the device. A machine whose speed wanders does so under both: the
//! ratio is the median of each turn's. Times are the least.

use pollster::block_on;
use std::error::Error;
use std::time::Duration;
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    Attention, AttentionShape, BigBird, Causal, Fixed, Full, Gpu, Inputs, Kernels, Options, Pattern,
    Relative, Score, Strided, Window,
};
use wgpu_attention_bench::call::{Backward, Call};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Turns: at least so many, and for so long.
const ROUNDS: usize = 15;
const SECONDS: f64 = 3.0;

fn main() -> Result<()> {
    let word = std::env::args().nth(1).unwrap_or_default();
    let gpu = Gpu::new()?;
    println!("on {}", gpu.info().name);
    println!("{:64} {:>10} {:>10} {:>6}", "", "first", "second", "ratio");
    for kind in [TileKind::Direct, TileKind::Staged] {
        let kernels = Kernels::new(gpu.device(), Options::default().tile_kind(kind))?;
        let bench = Bench { gpu: gpu.with_kernels(kernels), word: &word };
        let window = Window { before: 256, after: 0 };
        let blind =
            Kernels::with_edited_shaders(gpu.device(), Options::default().tile_kind(kind), move |text| {
                blind(text, kind)
            })?;
        let blind = gpu.with_kernels(blind);
        let dense: [(&str, &dyn Pattern); 2] = [("full", &Full), ("causal", &Causal)];
        for len in [1024, 2048] {
            for (name, pattern) in dense {
                let name = format!("{kind:?}, {name}, n = {len}: relative rows / plain");
                bench.relative(&name, len, pattern)?;
            }
        }
        for (name, pattern) in [dense[0], dense[1], ("window 256", &window)] {
            for dim in [64, 128] {
                let name = format!("{kind:?}, {name}, n = 2048, d = {dim}: seeing NaN / blind to it");
                bench.seeing(&blind, &name, AttentionShape::new(1, 1, 2048, dim), pattern)?;
            }
        }
        for (name, pattern) in dense {
            for dim in [64, 128] {
                let name = format!("{kind:?}, {name}, n = 2048, d = {dim}: dropout");
                bench.dropout(&name, AttentionShape::new(1, 1, 2048, dim), pattern)?;
            }
        }
        bench.relative(&format!("{kind:?}, window 256, n = 4096: relative rows / plain"), 4096, &window)?;
        let sparse: [(&str, &dyn Pattern); 4] = [
            ("window 256", &window),
            ("strided 64", &Strided::new(64)?),
            ("fixed 64", &Fixed::new(64, 16)?),
            ("bigbird", &BigBird { block: 64, window: 3, global: 1, random: 2, seed: 1 }),
        ];
        for (name, pattern) in dense {
            for dim in [64, 128] {
                let name = format!("{kind:?}, {name}, n = 2048, d = {dim}: gradients / forward");
                bench.gradients(&name, 2048, dim, pattern)?;
            }
        }
        for (name, pattern) in sparse {
            let name = format!("{kind:?}, {name}, n = 4096, d = 64: gradients / forward");
            bench.gradients(&name, 4096, 64, pattern)?;
        }
    }
    Ok(())
}

struct Bench<'w> {
    gpu: Gpu,
    /// Of the lines that are wanted.
    word: &'w str,
}

impl Bench<'_> {
    /// Two heads, u and w, a row for every distance.
    fn relative(&self, name: &str, len: usize, pattern: &dyn Pattern) -> Result<()> {
        if !name.contains(self.word) {
            return Ok(());
        }
        let shape = AttentionShape::new(1, 2, len, 64);
        let relative = Relative::new(len as i32 - 1, 2 * len - 1).u(true).w(true);
        let [q, k, v] = qkv(&shape);
        let (rows, uw) = (wave(2 * (2 * len - 1) * 64, 0.41), wave(2 * 2 * 64, 0.73));
        let inputs = Inputs::new(&q, &k, &v);
        let scored = inputs.clone().tensor("relative_rows", &rows).tensor("relative_biases", &uw);
        let kernels = self.gpu.kernels();
        let plan = kernels.attention(shape, pattern)?;
        let first = block_on(Call::upload(&self.gpu, &plan, &inputs, false))?;
        let plan = kernels.attention(shape.score(Score::new().with(relative)), pattern)?;
        let second = block_on(Call::upload(&self.gpu, &plan, &scored, false))?;
        compare(name, || Ok(block_on(first.compute(1))?), || Ok(block_on(second.compute(1))?))
    }

    /// One head. Forward, then the three gradients.
    fn dropout(&self, name: &str, shape: AttentionShape, pattern: &dyn Pattern) -> Result<()> {
        if !name.contains(self.word) {
            return Ok(());
        }
        let [q, k, v] = qkv(&shape);
        let dout = wave(Attention::from(shape).len_out(), 0.53);
        let inputs = Inputs::new(&q, &k, &v);
        let plan = |rate| self.gpu.kernels().attention(shape.score(Score::new().dropout(rate, 1)), pattern);
        let plans = [plan(0.0)?, plan(0.1)?];
        let forward = |n: usize| block_on(Call::upload(&self.gpu, &plans[n], &inputs, false));
        let (first, second) = (forward(0)?, forward(1)?);
        let forward = format!("{name} / none, forward");
        compare(&forward, || Ok(block_on(first.compute(1))?), || Ok(block_on(second.compute(1))?))?;
        let backward = |n: usize| -> Result<Backward> {
            let plan = plans[n].backward()?;
            Ok(block_on(Backward::upload(&self.gpu, (&plans[n], &plan), &inputs, &dout, [true; 3]))?)
        };
        let (first, second) = (backward(0)?, backward(1)?);
        let gradients = format!("{name} / none, gradients");
        compare(&gradients, || Ok(block_on(first.compute(1))?), || Ok(block_on(second.compute(1))?))
    }

    /// One head; `blind` has the same kernels but for [`blind`].
    fn seeing(&self, blind: &Gpu, name: &str, shape: AttentionShape, pattern: &dyn Pattern) -> Result<()> {
        if !name.contains(self.word) {
            return Ok(());
        }
        let [q, k, v] = qkv(&shape);
        let inputs = Inputs::new(&q, &k, &v);
        let plan = blind.kernels().attention(shape, pattern)?;
        let first = block_on(Call::upload(blind, &plan, &inputs, false))?;
        let plan = self.gpu.kernels().attention(shape, pattern)?;
        let second = block_on(Call::upload(&self.gpu, &plan, &inputs, false))?;
        compare(name, || Ok(block_on(first.compute(1))?), || Ok(block_on(second.compute(1))?))
    }

    /// One head; all three gradients; the forward pass leaves its state outside the time.
    fn gradients(&self, name: &str, len: usize, dim: usize, pattern: &dyn Pattern) -> Result<()> {
        if !name.contains(self.word) {
            return Ok(());
        }
        let shape = AttentionShape::new(1, 1, len, dim);
        let [q, k, v] = qkv(&shape);
        let dout = wave(Attention::from(shape).len_out(), 0.53);
        let inputs = Inputs::new(&q, &k, &v);
        let plan = self.gpu.kernels().attention(shape, pattern)?;
        let first = block_on(Call::upload(&self.gpu, &plan, &inputs, false))?;
        let second =
            block_on(Backward::upload(&self.gpu, (&plan, &plan.backward()?), &inputs, &dout, [true; 3]))?;
        compare(name, || Ok(block_on(first.compute(1))?), || Ok(block_on(second.compute(1))?))
    }
}

/// Takes from the loops of a shader what finds NaN and infinities that a row attends; that they reach no other row stays.
fn blind(text: &str, kind: TileKind) -> String {
    if !text.contains("fn attention(") {
        return text.to_owned(); // of the merge
    }
    let lowest = "    lowest = min(lowest, vec4(min4(s.a), min4(s.b), min4(s.c), min4(s.d)));\n";
    let direct = ["    strange_keys |= select(0u, 1u << key, any(strange));\n", lowest];
    let staged = [
        "    atomicOr(&strange_keys[key / 32u], 1u << (key % 32u));\n",
        "if (is_masked(tile) || SCORES_MAY_DROP) { note_values(lane, tile, p); }",
        lowest,
    ];
    let lines = if kind == TileKind::Direct { &direct[..] } else { &staged };
    lines.iter().fold(text.to_owned(), |text, line| {
        assert!(text.contains(line), "no such line to take out, so that nothing would be compared: {line}");
        text.replace(line, "")
    })
}

fn wave(len: usize, step: f32) -> Vec<f32> {
    (0..len).map(|n| (n as f32 * step).sin()).collect()
}

fn qkv(shape: &AttentionShape) -> [Vec<f32>; 3] {
    [0.37, 0.61, 0.23].map(|step| wave(shape.len_q(), step))
}

/// Times both by turns, after one call of each.
fn compare(
    name: &str,
    first: impl Fn() -> Result<Duration>,
    second: impl Fn() -> Result<Duration>,
) -> Result<()> {
    first()?;
    second()?;
    let mut least = [f64::INFINITY; 2];
    let mut ratios = vec![];
    let mut total = 0.0;
    while ratios.len() < ROUNDS || total < SECONDS {
        let times = [first()?.as_secs_f64(), second()?.as_secs_f64()];
        least = [least[0].min(times[0]), least[1].min(times[1])];
        total += times[0] + times[1];
        ratios.push(times[1] / times[0]);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "{name:64} {:>7.1} ms {:>7.1} ms {:>6.2}",
        1e3 * least[0],
        1e3 * least[1],
        ratios[ratios.len() / 2]
    );
    Ok(())
}
