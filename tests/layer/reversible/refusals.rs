//! Bad input: what a stack, a branch and its parameters refuse, by name.

use super::{LEN, WIDTH, buffer, f_shape, norm, stack_of};
use crate::harness::{gpu, kernels, with};
use crate::reversible::Kind;
use wgpu_attention::{
    AttentionBranch, AttentionShape, BranchPort, CallBranch, ElementType, FeedForwardBranch, Full,
    LshOptions, ParameterLayout, Result, ReversibleBuffers, Score, Sinks, Storage,
};

fn message<T>(result: Result<T>) -> String {
    result.map(drop).unwrap_err().to_string()
}

fn starts(result: Result<impl Sized>, words: &str) {
    let message = message(result);
    assert!(message.starts_with(words), "{words}: {message}");
}

#[test]
fn streams() {
    let [a, b, c, d, e, f] = [(); 6].map(|()| buffer(gpu(), &[0.0; 32]));
    let over = |rows, width, buffers| kernels().reversible_over(rows, width, ReversibleBuffers::new(buffers));
    let all = || [&a, &b, &c, &d, &e, &f].map(Clone::clone);
    over(4, 8, all()).unwrap();
    starts(over(4, 0, all()), "width: need at least 1");
    starts(over(5, 8, all()), "x1: need 160 bytes");
    starts(over(4, 8, with(all(), |all| all[4] = buffer(gpu(), &[0.0; 31]))), "dx2: need 128 bytes");
    starts(over(4, 8, with(all(), |all| all[1] = a.clone())), "x2: need bytes apart from those of x1");
    starts(over(4, 8, with(all(), |all| all[5] = c.clone())), "dx: need bytes apart from those of y");
    let usage = wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: None, size: 128, usage, mapped_at_creation: false };
    let unbound = gpu().device().create_buffer(&descriptor);
    starts(over(4, 8, with(all(), |all| all[2] = unbound)), "y: need a buffer with BufferUsages::STORAGE");
    starts(kernels().reversible(1 << 31, 8), "rows x width needs");
}

#[test]
fn branches_of_other_stacks() {
    let mut stack = kernels().reversible(4, 8).unwrap();
    let calls = |port: BranchPort| CallBranch::new(port, [], []);
    let (f, g) = (stack.f(), stack.g());
    let other = buffer(gpu(), &[0.0; 32]);
    stack.push(calls(f.clone()), calls(g.clone())).unwrap();
    assert_eq!(stack.len(), 1);
    let mut push = |change: &dyn Fn(&mut BranchPort, &mut BranchPort), words: &str| {
        let (mut f, mut g) = (f.clone(), g.clone());
        change(&mut f, &mut g);
        starts(stack.push(calls(f), calls(g)), words);
    };
    push(&|f, _| f.rows = 3, "f.rows: need 4, as the stack has, got 3");
    push(&|_, g| g.width = 9, "g.width: need 8, as the stack has, got 9");
    push(&|f, _| f.y = f.x.clone(), "f.y: need a buffer other than the branch's input");
    push(&|_, g| g.dx = g.x.clone(), "g.dx: need a buffer other than the branch's input");
    push(&|f, _| f.x = other.clone(), "f.x: need the stack's x2");
    push(&|f, _| f.y = other.clone(), "f.y: need the stack's y");
    push(&|f, _| f.dy = other.clone(), "f.dy: need the stack's dx1");
    push(&|f, _| f.dx = other.clone(), "f.dx: need the stack's dx");
    push(&|f, g| std::mem::swap(f, g), "f.x: need the stack's x2");
    assert_eq!(stack.len(), 1, "what is refused is not added");
}

#[test]
fn a_branch_that_writes_its_input() {
    let mut stack = kernels().reversible(LEN, WIDTH).unwrap();
    let layer = FeedForwardBranch::new(norm(LEN), f_shape());
    // No call of it reads what it writes: other rows lie between. So only the stack can know.
    let plan = layer.plan(kernels(), &with(stack.f(), |port| port.y = port.x.clone())).unwrap();
    let [a, b] = [(); 2].map(|()| buffer(gpu(), &vec![0.0; plan.layout().len()]));
    let g = layer.plan(kernels(), &stack.g()).unwrap().branch(&a, &b).unwrap();
    starts(stack.push(plan.branch(&a, &b).unwrap(), g), "f.y: need a buffer other than");
}

#[test]
fn shapes_of_branches() {
    let stack = kernels().reversible(LEN, WIDTH).unwrap();
    let port = stack.f();
    let layer = |norm, shape| FeedForwardBranch::new(norm, shape).plan(kernels(), &port);
    layer(norm(LEN), f_shape()).unwrap();
    starts(layer(norm(LEN - 1), f_shape()), "norm.rows: need 24");
    starts(layer(with(norm(LEN), |it| it.width = 8), f_shape()), "norm.width: need 16");
    starts(layer(norm(LEN).output(ElementType::F16), f_shape()), "norm.output: need f32");
    starts(layer(norm(LEN).x_row(Some(20)), f_shape()), "norm.x_row: need contiguous rows");
    starts(layer(norm(LEN), with(f_shape(), |it| it.rows = 7)), "rows: need 24");
    starts(layer(norm(LEN), with(f_shape(), |it| it.model_dim = 7)), "model_dim: need 16");
    starts(layer(norm(LEN), f_shape().weight(ElementType::Bf16)), "weight: need f32");
    starts(layer(norm(LEN), f_shape().residual(true)), "residual: need none");

    let shape = AttentionShape::new(1, 2, LEN, 8);
    let plain = |attention| AttentionBranch::new(norm(LEN), attention).plan(kernels(), &port, &Full);
    plain(shape.into()).unwrap();
    starts(plain(shape.kv_len(25).into()), "kv_len: need q_len (24)");
    starts(plain(AttentionShape::new(2, 2, LEN, 8).into()), "attention: need 24 rows in all");
    starts(plain(shape.storage(Storage::all(ElementType::F16))), "storage: need f32");
    starts(plain(shape.score(Score::new().with(Sinks))), "score: need terms without tensors");
    starts(plain(shape.score(Score::new().dropout(0.1, 1))), "score: need no dropout");
    let lsh = |options| AttentionBranch::new(norm(LEN), shape).lsh(kernels(), &port, options);
    starts(lsh(LshOptions::new(2, 4, 8).key_mask(true)), "key_mask: need none");
    starts(lsh(LshOptions::new(2, 3, 8)), "buckets: ");
}

#[test]
fn parameters_of_layers() {
    let s = stack_of(gpu(), Kind::FeedForward, 1, 1.0);
    let plan = &s.plans[0];
    let len = plan.layout().len();
    let [a, b] = [(); 2].map(|()| buffer(gpu(), &vec![0.0; len]));
    let short = buffer(gpu(), &vec![0.0; len - 1]);
    starts(plan.branch(&short, &b), "parameters: need");
    starts(plan.branch(&a, &short), "gradients: need");
    starts(plan.branch(&a, &a), "gradients: need a buffer of this layer alone");
    let usage = wgpu::BufferUsages::STORAGE;
    let descriptor =
        wgpu::BufferDescriptor { label: None, size: 4 * len as u64, usage, mapped_at_creation: false };
    let fixed = gpu().device().create_buffer(&descriptor);
    starts(plan.branch(&fixed, &b), "parameters: need a buffer with");
    starts(plan.branch(&a, &fixed), "gradients: need a buffer with");

    let layout = ParameterLayout::new(&[("w", 3), ("b", 2)], &[]);
    let (w, b): (&[f32], &[f32]) = (&[1.0; 3], &[2.0; 2]);
    assert_eq!(layout.pack(&[("b", b), ("w", w)]).unwrap()[64..66], [2.0; 2]);
    starts(layout.pack(&[("w", w)]), "b: need 2 elements, got none");
    starts(layout.pack(&[("w", w), ("b", w)]), "b: need 2 elements, got 3");
    starts(layout.pack(&[("w", w), ("w", w)]), "parameter: need each name once");
    starts(layout.pack(&[("q", w)]), "parameter: need one of ");
    starts(layout.take("w", w), "parameters: need 128 elements, got 3");
}
