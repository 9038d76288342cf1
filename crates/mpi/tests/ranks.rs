//! The ranks of an MPI program, started by `mpirun -n N`: `cargo xtask mpi` does. Alone it is one rank.
//!
//! | argument | what |
//! |---|---|
//! | none | every element of this rank's rows within its bound, and the same bits twice |
//! | `--exit` | the last rank ends in the middle of a pass: an error on the others, in time |
//! | `--differ` | the last rank is given another pattern: all ranks say so |
//!
//! Each rank has the whole of the inputs, and holds its own rows against the f64 reference of the whole.

use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use wgpu_attention::reference::gradient::{BoundOptions, bounded};
use wgpu_attention::reference::{self, Got, Kind, Rows, VerifyOptions, random, verify};
use wgpu_attention::{AttentionShape, BigBird, Causal, Full, Gpu, Inputs, Pattern, Window};
use wgpu_attention_mpi::Mpi;
use wgpu_attention_mpi::ranks::{DistributedAttention, Error, Exchange, Fault, Pass, Plan, Round};

/// How long a rank waits: longer than the slowest of 8 processes on 2 cores takes to open its device and compile.
const LIMIT: Duration = Duration::from_secs(60);

/// The same where a rank is known to end, and all others have compiled.
const SHORT: Duration = Duration::from_secs(20);

type Outcome = Result<String, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let argument = std::env::args().nth(1).unwrap_or_default();
    let mpi = match Mpi::world(LIMIT) {
        Ok(mpi) => mpi,
        Err(fault) => {
            eprintln!("{fault:?}");
            return ExitCode::FAILURE;
        }
    };
    let name = format!("rank {} of {}", mpi.rank(), mpi.size());
    let outcome = match argument.as_str() {
        "--exit" => exit(mpi),
        "--differ" => differ(mpi),
        _ => exact(mpi),
    };
    match outcome {
        Ok(said) => {
            println!("{name}: {said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{name}: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

/// An exchange that serves several calls one after the other.
struct Borrowed<'a>(&'a mut Mpi);

impl Exchange for Borrowed<'_> {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn start(&mut self, round: Round) -> Result<(), Fault> {
        self.0.start(round)
    }

    fn poll(&mut self) -> Result<Option<Vec<Vec<u8>>>, Fault> {
        self.0.poll()
    }

    fn waiting_for(&self) -> Vec<usize> {
        self.0.waiting_for()
    }
}

/// Rows enough that 8 ranks have some, in heads that share pipelines.
fn exact(mut mpi: Mpi) -> Outcome {
    let (gpu, shape) = (Gpu::new()?, AttentionShape::new(1, 2, 520, 16).kv_heads(1));
    let bigbird = BigBird { block: 64, window: 3, global: 1, random: 1, seed: 3 };
    let window = Window { before: 100, after: 0 };
    let patterns: [&dyn Pattern; 4] = [&Full, &Causal, &window, &bigbird];
    let mut sent = 0;
    for pattern in patterns {
        let plan = match format!("{pattern:?}").as_str() {
            "Causal" => Plan::zig_zag(&shape, mpi.size())?,
            _ => Plan::contiguous(&shape, mpi.size())?,
        };
        sent += check(&mut mpi, &gpu, shape, pattern, plan.limit(LIMIT))?;
    }
    Ok(format!("{} patterns within their bounds, the same bits twice, {sent} bytes sent", patterns.len()))
}

/// These rows of every head.
fn cut(x: &[f32], len: usize, dim: usize, rows: &[Range<usize>]) -> Vec<f32> {
    let heads = x.chunks_exact(len * dim);
    let rows = heads.flat_map(|head| rows.iter().flat_map(|it| &head[it.start * dim..it.end * dim]));
    rows.copied().collect()
}

/// `whole` with this rank's rows in their place.
fn with(whole: &[f64], own: &[f32], len: usize, dim: usize, rows: &[Range<usize>]) -> Vec<f32> {
    let mut with: Vec<f32> = whole.iter().map(|x| *x as f32).collect();
    let mut own = own.iter();
    for head in with.chunks_exact_mut(len * dim) {
        for rows in rows {
            let to = &mut head[rows.start * dim..rows.end * dim];
            to.iter_mut().zip(&mut own).for_each(|(to, from)| *to = *from);
        }
    }
    with
}

/// One call, twice; the bytes that were sent.
fn check(
    mpi: &mut Mpi,
    gpu: &Gpu,
    shape: AttentionShape,
    pattern: &dyn Pattern,
    plan: Plan,
) -> Result<u64, Box<dyn std::error::Error>> {
    let (len, dim, rank) = (shape.q_len, shape.head_dim, mpi.rank());
    let whole = random::<f32, f32>(shape, Kind::Normal, 1)?;
    let dout = random::<f32, f32>(shape, Kind::Normal, 2)?.q;
    let (queries, keys) = (plan.queries.rows(rank).to_vec(), plan.keys.rows(rank).to_vec());
    let [q, own_dout] = [&whole.q, &dout].map(|x| cut(x, len, dim, &queries));
    let [k, v] = [&whole.k, &whole.v].map(|x| cut(x, len, dim, &keys));

    let mut attention = DistributedAttention::with(Borrowed(mpi), gpu, shape, pattern, plan)?;
    let forward = attention.forward(&q, &k, &v)?;
    let mut sent = attention.traffic().bytes(Pass::Forward);
    let gradients = attention.backward(&q, &k, &v, &forward, &own_dout)?;
    sent += attention.traffic().bytes(Pass::Backward) + attention.traffic().bytes(Pass::Gradients);
    let again = attention.forward(&q, &k, &v)?;
    if again != forward || attention.backward(&q, &k, &v, &again, &own_dout)? != gradients {
        return Err(format!("{pattern:?}: other bits the second time").into());
    }

    // Rows of other ranks are the reference's own: only this rank's can be wrong.
    let inputs = Inputs::new(&whole.q, &whole.k, &whole.v);
    let exact = reference::attention(shape, &whole.q, &whole.k, &whole.v, pattern)?;
    let out = with(&exact.out, &forward.out, len, dim, &queries);
    let lse = with(&exact.lse, &forward.lse, len, 1, &queries);
    let got = Got::new(&out).lse(&lse[..]);
    let report = verify(shape, &inputs, pattern, got, VerifyOptions::default().rows(Rows::All))?;
    if !report.pass || report.unspecified > 0 {
        return Err(format!("{pattern:?}: {report}").into());
    }
    let bounds = bounded(shape, &inputs, &dout, pattern, BoundOptions::default())?;
    let tensors = [
        ("dq", &gradients.dq, &queries, &bounds.dq),
        ("dk", &gradients.dk, &keys, &bounds.dk),
        ("dv", &gradients.dv, &keys, &bounds.dv),
    ];
    for (name, own, rows, bound) in tensors {
        let found = bound.compare(with(&bound.out, own, len, dim, rows), 0.0);
        if !found.pass || found.unspecified > 0 {
            return Err(format!("{pattern:?}, {name}: {found}").into());
        }
    }
    Ok(sent)
}

/// The last rank ends without a word, once the others have its keys for the first step at most.
fn exit(mpi: Mpi) -> Outcome {
    let (gpu, shape) = (Gpu::new()?, AttentionShape::new(1, 1, 520, 16));
    let (rank, size) = (mpi.rank(), mpi.size());
    let plan = Plan::contiguous(&shape, size)?.limit(SHORT);
    let limit = plan.limit;
    let mut attention = DistributedAttention::with(mpi, &gpu, shape, &Full, plan)?;
    let own = attention.own_shape();
    let x = vec![0.5f32; own.len_q()];
    attention.forward(&x, &x, &x)?;
    if rank == size - 1 {
        std::process::exit(3);
    }
    let began = Instant::now();
    let outcome = attention.forward(&x, &x, &x);
    let time = began.elapsed();
    match outcome {
        Ok(_) => Err("a result, although a rank is gone".into()),
        Err(Error::Silent { from, .. }) if time < 3 * limit => {
            println!("rank {rank} of {size}: an error in time: nothing came from {from:?}");
            // MPI cannot be finalised any more.
            std::process::exit(0)
        }
        Err(error @ (Error::Broken { .. } | Error::Gone { .. })) if time < 3 * limit => {
            println!("rank {rank} of {size}: an error in time: {error}");
            std::process::exit(0)
        }
        Err(error) => Err(format!("{error}, after {time:?}").into()),
    }
}

/// The last rank is given another pattern.
fn differ(mpi: Mpi) -> Outcome {
    let (gpu, shape) = (Gpu::new()?, AttentionShape::new(1, 1, 520, 16));
    let (rank, size) = (mpi.rank(), mpi.size());
    let plan = Plan::contiguous(&shape, size)?.limit(LIMIT);
    let pattern: &dyn Pattern = if rank == size - 1 { &Causal } else { &Full };
    let other = if rank == size - 1 { 0 } else { size - 1 };
    match DistributedAttention::with(mpi, &gpu, shape, pattern, plan) {
        Err(Error::Differs { what, rank, .. }) if what == "pattern" && rank == other => {
            Ok(format!("rank {other} was given another pattern, and this rank says so"))
        }
        Err(error) => Err(error.into()),
        Ok(_) => Err("no error".into()),
    }
}
