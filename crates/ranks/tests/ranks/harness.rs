//! A problem cut into ranks, run, and put together again.

use std::ops::Range;
use wgpu_attention::pattern::Excerpt;
use wgpu_attention::ranks::stretches::{count, without};
use wgpu_attention::ranks::{Sharing, needs, needs_of, source};
use wgpu_attention::reference::gradient::{BoundOptions, bounded};
use wgpu_attention::reference::{Got, Kind, Position, Rows, Tensors, VerifyOptions, random, verify};
use wgpu_attention::{
    Attention, AttentionShape, BlockGrid, Element, ElementType, Gpu, Inputs, Parts, Pattern, Score, Storage,
};
use wgpu_attention_ranks::{
    DistributedAttention, DistributedGradients, Exchange, Forward, Plan, Result, Threads, Traffic,
};
use wgpu_attention_testing::gpu;

/// One call over a whole sequence.
pub(crate) struct Problem {
    pub(crate) attention: Attention,
    pub(crate) pattern: Box<dyn Pattern>,
    pub(crate) plan: Plan,
}

/// Small heads, so that all tests share few pipelines.
pub(crate) fn shape(len: usize) -> AttentionShape {
    AttentionShape::new(1, 1, len, 16)
}

impl Problem {
    pub(crate) fn new(
        attention: impl Into<Attention>,
        pattern: impl Pattern + 'static,
        plan: impl FnOnce(&AttentionShape) -> wgpu_attention::Result<Plan>,
    ) -> Self {
        let attention = attention.into();
        let plan = plan(&attention.shape).unwrap();
        Self { attention, pattern: Box::new(pattern), plan }
    }

    pub(crate) fn ranks(&self) -> usize {
        self.plan.queries.ranks()
    }

    pub(crate) fn inputs<Q: Element>(&self) -> Tensors<Q> {
        random(self.stored::<Q>(), Kind::Normal, 1).unwrap()
    }

    /// The gradient of out.
    pub(crate) fn dout(&self) -> Vec<f32> {
        let shape = &self.attention.shape;
        let shape = AttentionShape::new(shape.batch, shape.heads, shape.q_len, shape.value_dim);
        random::<f32, f32>(shape, Kind::Normal, 2).unwrap().q
    }

    /// The queries and the keys that all ranks get, asked row by row.
    pub(crate) fn common<Q: Element>(&self) -> [Vec<Range<usize>>; 2] {
        let (extent, plan, ranks) = (self.attention.shape.extent(), &self.plan, self.ranks());
        let (sharing, sides) = (Sharing::new(&self.stored::<Q>(), ranks), [&plan.queries, &plan.keys]);
        let longer = extent.q_len.max(extent.kv_len);
        let (mut queries, mut saved) = (vec![], 0);
        for rank in (0..ranks).filter(|_| plan.share) {
            let offer = sharing.offer(&*self.pattern, extent, sides, rank, plan.block).unwrap();
            queries.extend(offer.queries);
            saved = saved.max(offer.saved);
        }
        queries.sort_by_key(|rows: &Range<usize>| rows.start);
        if !sharing.take(count(&queries), saved, longer) {
            queries.clear();
        }
        let mut by = vec![0; extent.kv_len];
        for rank in 0..ranks {
            let staying = without(plan.queries.rows(rank), &queries);
            let needs = needs_of(&*self.pattern, extent, &staying, &plan.keys, rank, plan.block).unwrap();
            let others = (0..ranks).filter(|&owner| owner != rank).flat_map(|owner| needs.from(owner));
            others.cloned().flatten().for_each(|key| by[key] += 1);
        }
        let asked_for = |key: &usize| plan.share && sharing.asked_for(by[*key]);
        let keys: Vec<_> = (0..extent.kv_len).filter(asked_for).map(|key| key..key + 1).collect();
        let keys = if sharing.few(keys.len(), longer) { keys } else { vec![] };
        [queries, keys]
    }

    pub(crate) fn stored<Q: Element>(&self) -> Attention {
        self.attention.clone().storage(Storage::all(Q::TYPE).out(ElementType::F32))
    }
}

/// What one rank made of a problem.
pub(crate) struct Outcome {
    pub(crate) forward: Forward,
    pub(crate) gradients: DistributedGradients,
    /// Of the handshake, the forward and the backward pass.
    pub(crate) traffic: [Traffic; 3],
}

/// Runs a closure on each rank, in a thread of its own.
pub(crate) fn on_ranks<X: Exchange + Send, T: Send>(
    exchanges: Vec<X>,
    run: impl Fn(X) -> T + Sync,
) -> Vec<T> {
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = exchanges.into_iter().map(|own| scope.spawn(move || run(own))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no rank panics")).collect()
    })
}

/// One rank's part.
pub(crate) fn run_rank<X: Exchange + Send, Q: Element>(
    problem: &Problem,
    gpu: &Gpu,
    exchange: X,
    inputs: &Tensors<Q>,
    dout: &[f32],
) -> Result<Outcome> {
    let rank = exchange.rank();
    let plan = problem.plan.clone();
    let mut attention =
        DistributedAttention::with(exchange, gpu, problem.stored::<Q>(), &*problem.pattern, plan)?;
    let handshake = attention.traffic().clone();
    let set = |rows: &[Range<usize>]| rows.iter().cloned().flatten().collect::<Vec<_>>();
    let agreed = [attention.common_queries(), attention.common_keys()].map(set);
    assert_eq!(agreed, problem.common::<Q>().each_ref().map(|rows| set(rows)), "rank {rank}");
    let shape = &problem.attention.shape;
    let (queries, keys) = (problem.plan.queries.rows(rank), problem.plan.keys.rows(rank));
    let q = cut(&inputs.q, shape.q_len, shape.head_dim, queries);
    let k = cut(&inputs.k, shape.kv_len, shape.head_dim, keys);
    let v = cut(&inputs.v, shape.kv_len, shape.value_dim, keys);
    let dout = cut(dout, shape.q_len, shape.value_dim, queries);
    let forward = attention.forward(&q, &k, &v)?;
    let there = attention.traffic().clone();
    let gradients = attention.backward(&q, &k, &v, &forward, &dout)?;
    let traffic = [handshake, there, attention.traffic().clone()];
    Ok(Outcome { forward, gradients, traffic })
}

/// All ranks, in threads.
pub(crate) fn run<Q: Element>(problem: &Problem) -> Vec<Outcome> {
    let (inputs, dout, gpu) = (problem.inputs::<Q>(), problem.dout(), gpu());
    let exchanges = Threads::new(problem.ranks());
    on_ranks(exchanges, |own| run_rank(problem, gpu, own, &inputs, &dout).unwrap_or_else(|e| panic!("{e}")))
}

/// These rows of every head.
pub(crate) fn cut<T: Copy>(x: &[T], len: usize, dim: usize, rows: &[Range<usize>]) -> Vec<T> {
    let heads = x.chunks_exact((len * dim).max(1));
    heads
        .flat_map(|head| rows.iter().flat_map(|rows| &head[rows.start * dim..rows.end * dim]))
        .copied()
        .collect()
}

/// The rows of all ranks, where they belong.
pub(crate) fn joined<'a>(
    parts: impl Iterator<Item = (&'a [f32], &'a [Range<usize>])>,
    [heads, len, dim]: [usize; 3],
) -> Vec<f32> {
    let mut whole = vec![f32::NAN; heads * len * dim];
    for (part, rows) in parts {
        let mut part = part.iter();
        for head in whole.chunks_exact_mut((len * dim).max(1)) {
            for rows in rows {
                let to = &mut head[rows.start * dim..rows.end * dim];
                to.iter_mut().zip(&mut part).for_each(|(to, from)| *to = *from);
            }
        }
        assert_eq!(part.next(), None);
    }
    whole
}

/// out, lse, dq, dk, dv of the whole.
pub(crate) fn whole(problem: &Problem, outcomes: &[Outcome]) -> [Vec<f32>; 5] {
    let (shape, plan) = (&problem.attention.shape, &problem.plan);
    let queries = |of: fn(&Outcome) -> &[f32], dim| {
        let parts = outcomes.iter().enumerate().map(|(rank, it)| (of(it), plan.queries.rows(rank)));
        joined(parts, [shape.batch * shape.heads, shape.q_len, dim])
    };
    let keys = |of: fn(&Outcome) -> &[f32], dim| {
        let parts = outcomes.iter().enumerate().map(|(rank, it)| (of(it), plan.keys.rows(rank)));
        joined(parts, [shape.batch * shape.kv_heads, shape.kv_len, dim])
    };
    [
        queries(|it| &it.forward.out, shape.value_dim),
        queries(|it| &it.forward.lse, 1),
        queries(|it| &it.gradients.dq, shape.head_dim),
        keys(|it| &it.gradients.dk, shape.head_dim),
        keys(|it| &it.gradients.dv, shape.value_dim),
    ]
}

/// How the ranks walk the keys of a row: each step is a call of its own, and its parts are merged after those before.
pub(crate) struct Walks<'a> {
    problem: &'a Problem,
    /// By rank and step: the keys of the step, and the parts over them.
    steps: Vec<Vec<(Vec<usize>, Parts)>>,
    /// Queries that travel, and what they meet on each rank.
    travelling: Vec<Range<usize>>,
    everywhere: Vec<(Vec<usize>, Parts)>,
}

impl<'a> Walks<'a> {
    pub(crate) fn new<Q: Element>(problem: &'a Problem) -> Self {
        let (shape, plan) = (&problem.attention.shape, &problem.plan);
        let (extent, ranks, [travelling, common]) = (shape.extent(), problem.ranks(), problem.common::<Q>());
        let of_rank = |rank| {
            let sides = [&plan.queries, &plan.keys];
            let needs = needs(&*problem.pattern, extent, sides, rank, plan.block).unwrap().without(&common);
            let walk = |keys: &[Range<usize>]| {
                let own = Excerpt::new(&*problem.pattern, extent, plan.queries.rows(rank), keys).unwrap();
                let grid = BlockGrid::from(shape.q_len(own.extent().q_len).kv_len(own.extent().kv_len));
                (keys.iter().cloned().flatten().collect(), Parts::lower(&own, grid).unwrap())
            };
            let first = [walk(needs.from(rank)), walk(&common)];
            first
                .into_iter()
                .chain((1..ranks).map(|step| walk(needs.from(source(rank, step, ranks)))))
                .collect()
        };
        // A query that travels meets the keys of each rank there.
        let travelled = |rank: usize| {
            let own = Excerpt::new(&*problem.pattern, extent, &travelling, plan.keys.rows(rank)).unwrap();
            let grid = BlockGrid::from(shape.q_len(own.extent().q_len).kv_len(own.extent().kv_len));
            let keys = plan.keys.rows(rank).iter().cloned().flatten().collect();
            (keys, Parts::lower(&own, grid).unwrap())
        };
        let everywhere = (0..ranks).map(travelled).collect();
        Self { problem, steps: (0..ranks).map(of_rank).collect(), travelling, everywhere }
    }

    fn place(&self, at: Position) -> (&[(Vec<usize>, Parts)], usize) {
        let queries = &self.problem.plan.queries;
        if self.travelling.iter().any(|rows| rows.contains(&at.i)) {
            let before = self.travelling.iter().map(|rows| rows.end.min(at.i) - rows.start.min(at.i));
            return (&self.everywhere, before.sum());
        }
        let rank = queries.owner(at.i).expect("each row has an owner");
        (&self.steps[rank], queries.place(rank, at.i).expect("its own row"))
    }

    fn keys(&self, at: Position) -> Vec<Vec<u32>> {
        let (steps, i) = self.place(at);
        let of = |(keys, parts): &(Vec<usize>, Parts)| {
            let walked = parts.key_order(at.batch, at.head, i).into_iter();
            walked.map(|part| part.into_iter().map(|j| keys[j as usize] as u32).collect()).collect::<Vec<_>>()
        };
        steps.iter().flat_map(of).collect()
    }

    fn tiles(&self, at: Position) -> usize {
        let (steps, i) = self.place(at);
        steps.iter().map(|(_, parts)| parts.key_tiles(at.batch, at.head, i)).sum()
    }
}

/// The largest error / bound of out, lse, dq, dk and dv.
///
/// # Errors
/// An element outside of its bound, or of which nothing is promised.
pub(crate) fn check<Q: Element>(
    problem: &Problem,
    [out, lse, dq, dk, dv]: &[Vec<f32>; 5],
) -> Result<f64, String> {
    let (attention, tensors, walks) =
        (problem.stored::<Q>(), problem.inputs::<Q>(), Walks::new::<Q>(problem));
    let inputs = Inputs::new(&tensors.q, &tensors.k, &tensors.v);
    let (order, tiles) = (|at: Position| walks.keys(at), |at: Position| walks.tiles(at));
    let options = VerifyOptions::default().rows(Rows::All).order(&order).tiles(&tiles);
    let got = Got::new(out).lse(&lse[..]);
    let report = verify(&attention, &inputs, &*problem.pattern, got, options).unwrap();
    let of = format!("{:?} {:?}", problem.pattern, problem.plan);
    if !report.pass || report.unspecified > 0 {
        return Err(format!(
            "{report}
{of}"
        ));
    }
    let mut worst = report.worst_out.map_or(0.0, |worst| worst.ratio);

    let options = BoundOptions::default().order(&order).tiles(&tiles);
    let exact = bounded(&attention, &inputs, &problem.dout(), &*problem.pattern, options).unwrap();
    for (name, got, exact) in [("dq", dq, &exact.dq), ("dk", dk, &exact.dk), ("dv", dv, &exact.dv)] {
        let found = exact.compare(got.iter().copied(), 0.0);
        if !found.pass || found.unspecified > 0 {
            return Err(format!(
                "{name}: {found}
{of}"
            ));
        }
        worst = worst.max(found.worst.map_or(0.0, |worst| worst.ratio));
    }
    Ok(worst)
}

/// A score that is allowed.
pub(crate) fn softcapped(shape: AttentionShape) -> Attention {
    shape.score(Score::new().scale(0.5).softcap(3.0))
}
