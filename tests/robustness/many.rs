//! Two threads with one device, many plans in one encoder, ten thousand calls.

use super::support::gpu_with;
use super::{alone, inputs, tensors};
use std::thread;
use std::time::Instant;
use wgpu_attention::{
    AttentionBuffers, AttentionShape, BlockGrid, BlockMask, Call, Causal, Gpu, Options, Outputs,
};

fn shape(len: usize) -> AttentionShape {
    AttentionShape::new(1, 2, len, 16)
}

fn out(gpu: &Gpu, len: usize) -> Vec<f32> {
    let data = tensors(&shape(len));
    gpu.run(shape(len), &inputs(&data), &Causal, Outputs::default()).unwrap().out
}

#[test]
fn two_threads_with_one_device() {
    let _alone = alone();
    let gpu = gpu_with(Options::default());
    let lens: Vec<usize> = (0..100).map(|n| 30 + 7 * n % 400).collect();
    let right: Vec<_> = lens.iter().map(|&len| out(&gpu, len)).collect();
    // Both record, submit and read back at once; one goes through the calls backwards.
    thread::scope(|scope| {
        let both = [false, true].map(|backwards| {
            let (gpu, lens, right) = (&gpu, &lens, &right);
            scope.spawn(move || {
                for n in 0..lens.len() {
                    let n = if backwards { lens.len() - 1 - n } else { n };
                    assert!(out(gpu, lens[n]) == right[n], "length {}, backwards: {backwards}", lens[n]);
                }
            })
        });
        both.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_hundred_plans_in_one_encoder() {
    let _alone = alone();
    let gpu = gpu_with(Options::default());
    let (device, queue) = (gpu.device(), gpu.queue());
    let buffer = |bytes: u64, usage| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes,
            usage,
            mapped_at_creation: false,
        })
    };
    let storage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let calls: Vec<(usize, Call, wgpu::Buffer)> = (1..=100)
        .map(|len| {
            let shape = shape(len);
            let [q, k, v] = tensors(&shape).map(|data| {
                let buffer = buffer(4 * data.len() as u64, storage);
                queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&data));
                buffer
            });
            let out = buffer(4 * shape.len_out() as u64, storage);
            let [q, k, v, to] = [&q, &k, &v, &out].map(wgpu::Buffer::as_entire_buffer_binding);
            // The plan goes before its call is recorded: the call keeps what it needs.
            let plan = gpu.kernels().attention(shape, &Causal).unwrap();
            let call = plan.bind(AttentionBuffers::new(q, k, v, to)).unwrap();
            (len, call, out)
        })
        .collect();
    let mut encoder = device.create_command_encoder(&Default::default());
    calls.iter().for_each(|(_, call, _)| call.encode(&mut encoder));
    let copies: Vec<_> = calls
        .iter()
        .map(|(_, _, out)| {
            let copy = buffer(out.size(), wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
            encoder.copy_buffer_to_buffer(out, 0, &copy, 0, out.size());
            copy
        })
        .collect();
    queue.submit([encoder.finish()]);
    copies.iter().for_each(|copy| copy.map_async(wgpu::MapMode::Read, .., |result| result.expect("mapping")));
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    for ((len, ..), copy) in calls.iter().zip(&copies) {
        let got: Vec<f32> = bytemuck::pod_collect_to_vec(&copy.slice(..).get_mapped_range().unwrap());
        assert!(got == out(&gpu, *len), "length {len}");
    }
}

/// Bytes of this process in memory.
#[cfg(target_os = "linux")]
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn ten_thousand_calls_in_constant_memory() {
    const ROUNDS: usize = 5;
    const CALLS: usize = 2_000;
    // 200 bytes per call.
    const MOST_GROWTH: u64 = 200 * CALLS as u64;
    let _alone = alone();
    let gpu = gpu_with(Options::default());
    let shape = shape(16);
    let data = tensors(&shape);
    let mask = BlockMask::new(&Causal, BlockGrid::from(&shape)).unwrap();
    let inputs = inputs(&data);
    // Each one is planned anew.
    let result = || gpu.run_parts::<f32, f32, f32>(shape, &inputs, &mask, Outputs::default().lse()).unwrap();
    let right = result();
    let run = || assert!(result() == right);
    (0..CALLS / 4).for_each(|_| run());
    let start = Instant::now();
    let mut resident = vec![resident_bytes()];
    for _ in 0..ROUNDS {
        (0..CALLS).for_each(|_| run());
        resident.push(resident_bytes());
    }
    let kib: Vec<_> = resident.iter().map(|bytes| bytes >> 10).collect();
    println!(
        "{} calls: {:.1} s, KiB before and after each {CALLS}: {kib:?}",
        ROUNDS * CALLS,
        start.elapsed().as_secs_f64()
    );
    // What leaks, leaks in every round; what an allocator keeps for later grows once.
    let least = resident.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).min();
    assert!(least < Some(MOST_GROWTH), "{kib:?} KiB");
}
