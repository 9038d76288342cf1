//! More workgroups than a dimension has, and bindings at and past their limit.

use super::support::gpu_with;
use super::{alone, inputs, tensors, verified};
use wgpu_attention::{
    AttentionBuffers, AttentionShape, BlockGrid, BlockMask, Error, Full, Gpu, MatmulShape, MatmulSlices,
    Options, Outputs, Window,
};

/// Workgroups of one dimension of a dispatch, in WebGPU.
const MOST: usize = 65_535;

#[test]
fn more_workgroups_than_a_dimension_has() {
    let _alone = alone();
    let gpu = gpu_with(Options::default());
    let shape = AttentionShape::new(2, 3, 200_000, 16);
    let window = Window { before: 15, after: 0 };
    let mask = BlockMask::new(&window, BlockGrid::from(&shape).blocks(16, 16)).unwrap();
    let plan = gpu.kernels().attention_parts(shape, &mask).unwrap();
    let groups = shape.q_len.div_ceil(plan.explain().tile.rows()) * shape.heads * shape.batch;
    assert!(groups > MOST, "only {groups} workgroups");
    assert_eq!(plan.explain().dispatches, 1, "all in one dispatch");
    let data = tensors(&shape);
    let outputs = Outputs::default().lse();
    let got = gpu.run_plan::<f32, f32, f32>(&plan, &inputs(&data), outputs).unwrap();
    let lse = got.lse.expect("asked for");
    let report = verified(&shape, &data, &window, (&got.out, Some(&lse)));
    assert!(report.pass && report.rows_checked == 200, "{report}");
    // Past the limit, and in the last workgroup, a row's sum of weights is that of a row at the start: no row is left out.
    assert!(lse.iter().all(|lse| lse.abs() < 100.0), "a row without keys");
}

#[test]
fn a_product_of_more_workgroups_than_a_dimension_has() {
    let _alone = alone();
    let gpu = gpu_with(Options::default());
    // Of the largest tiles.
    let rows = 128 * MOST + 100;
    let shape = MatmulShape::new(rows, 1, 1);
    let plan = gpu.kernels().matmul(&shape).unwrap();
    let groups = rows.div_ceil(plan.tile().rows());
    assert!(groups > MOST, "only {groups} workgroups");
    let a: Vec<f32> = (0..rows).map(|n| n as f32).collect();
    let slices = MatmulSlices::new(&a, &[2f32]);
    let out: Vec<f32> = gpu.matmul(&shape, slices).unwrap();
    let wrong = out.iter().zip(&a).position(|(out, a)| *out != 2.0 * a);
    assert_eq!((out.len(), wrong), (rows, None));
}

#[test]
fn bindings_at_the_limit_and_past_it() {
    const LIMIT: usize = 128 << 20;
    let _alone = alone();
    let adapter = pollster::block_on(Gpu::adapters()).unwrap().swap_remove(0);
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();
    assert_eq!(device.limits().max_storage_buffer_binding_size, LIMIT as u64, "WebGPU's default");
    let gpu = Gpu::with_device(adapter.get_info(), device, queue, Options::default()).unwrap();
    // q and out are of exactly 128 MiB.
    let shape = AttentionShape::new(1, 1, LIMIT / 64, 16).kv_len(16);
    let mut data = tensors(&shape);
    let out: Vec<f32> = gpu.attention(shape, &data[0], &data[1], &data[2], &Full).unwrap();
    let report = verified(&shape, &data, &Full, (&out, None));
    assert!(report.pass && report.rows_checked == 200, "{report}");

    // One row more.
    let past = shape.q_len(shape.q_len + 1);
    data[0].resize(past.len_q(), 0.0);
    let need = LIMIT as u64 + 64;
    let limit =
        |what: &'static str| Error::limit(what, "max_storage_buffer_binding_size", need, LIMIT as u64);
    let error = gpu.attention::<f32, f32, f32>(&past, &data[0], &data[1], &data[2], &Full).unwrap_err();
    assert_eq!(error, limit("q"));
    // A buffer may be larger than a binding.
    let buffer = |bytes: u64| {
        gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        })
    };
    let (q, few, out) = (buffer(need), buffer(4096), buffer(need));
    let [q, few, out] = [&q, &few, &out].map(wgpu::Buffer::as_entire_buffer_binding);
    let plan = gpu.kernels().attention(past, &Full).unwrap();
    assert_eq!(plan.bind(AttentionBuffers::new(q, few.clone(), few, out)).unwrap_err(), limit("q"));
}
