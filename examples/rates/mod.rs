//! What examples of speed share: what is timed by turns with a kernel that only reads, and how it is shown.

use std::time::{Duration, Instant};
use wgpu_attention::wgpu::{Buffer, BufferUsages, PollType, util::DeviceExt};
use wgpu_attention::{Gpu, wgpu};

const ROUNDS: usize = 12;

/// Reads a buffer, 128 words a lane.
const PROBE: &str = "
@group(0) @binding(0) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var sum = vec4(0u);
    for (var n = 0u; n < 32u; n++) { sum += words[group.x * 8192u + lane + 256u * n]; }
    sums[group.x * 256u + lane] = sum.x + sum.y + sum.z + sum.w;
}";

/// Multiplies and adds, in 6 chains of vec4s per lane that do not wait for each other and that a CPU's registers hold. The factor is 1 and the term 0, which no compiler
/// knows.
const ARITHMETIC: &str = "
@group(0) @binding(0) var<storage, read> given: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let factor = given[0];
    let term = given[1];
    var a = vec4(f32(lane));
    var b = a + 1.0;
    var c = a + 2.0;
    var d = a + 3.0;
    var e = a + 4.0;
    var f = a + 5.0;
    for (var n = 0u; n < 256u; n++) {
        ROUNDS
    }
    sums[group.x * 256u + lane] = dot(a + b + c + d + e + f, term);
}";
/// Steps of each chain in a round of the loop.
const STEPS: usize = 16;

/// What is timed: bytes that it reads, and how it is recorded.
pub(crate) struct Timed {
    pub(crate) name: String,
    pub(crate) bytes: f64,
    /// Multiplications and additions; 0 where they are not of interest.
    pub(crate) flops: f64,
    pub(crate) record: Box<dyn Fn(&mut wgpu::ComputePass<'_>)>,
    pub(crate) least: Duration,
    /// The least that all threads together computed for it: what counts where a software adapter shares its cores with others.
    pub(crate) computed: Duration,
}

/// Times all by turns, and prints the least time of each beside the first, and beside it the share by the time that was computed.
pub(crate) fn compare(gpu: &Gpu, timed: &mut [Timed]) {
    for _ in 0..ROUNDS {
        for one in &mut *timed {
            let (time, computed) = time(gpu, &one.record);
            one.least = one.least.min(time);
            one.computed = one.computed.min(computed);
        }
    }
    // What reads nothing tells how fast the adapter computes.
    let peak = timed.iter().find(|one| one.bytes == 0.0).map(|one| one.flops / one.computed.as_secs_f64());
    let rate = |one: &Timed| one.bytes / one.least.as_secs_f64();
    let computed = |one: &Timed| one.bytes / one.computed.as_secs_f64();
    let first = &timed[0];
    for one in timed.iter() {
        let (ms, gb) = (1e3 * one.least.as_secs_f64(), rate(one) / 1e9);
        let (share, of_computed) = (rate(one) / rate(first), computed(one) / computed(first));
        print!("{:44} {ms:>8.2} ms {gb:>7.2} GB/s {:>4.0} %", one.name, 100.0 * share);
        match one.computed.is_zero() {
            true => {}
            false => print!(
                "   computed {:>8.2} ms {:>4.0} %",
                1e3 * one.computed.as_secs_f64(),
                100.0 * of_computed
            ),
        }
        match peak.filter(|_| one.flops > 0.0) {
            None => println!(),
            Some(peak) => {
                let computes = one.flops / one.computed.as_secs_f64();
                println!(
                    "   {:>4.0} % of arithmetic ({:.1} GFLOP/s per thread)",
                    100.0 * computes / peak,
                    computes / 1e9
                );
            }
        }
    }
}

/// A buffer of so many words.
pub(crate) fn filled(gpu: &Gpu, words: usize, usage: BufferUsages) -> Buffer {
    // Small numbers in f32 and in both halves as f16.
    let word = |n: usize| 0x2c00_2c00u32 + (n as u32).wrapping_mul(2_654_435_761) % 1024 * 0x0001_0001;
    let words: Vec<u32> = (0..words).map(word).collect();
    gpu.device().create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: None,
        contents: &words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>(),
        usage: usage | BufferUsages::STORAGE,
    })
}

/// The adapter reading.
pub(crate) fn probe(gpu: &Gpu) -> Timed {
    let groups = 1024u32;
    let from = filled(gpu, groups as usize * 8192 * 4, BufferUsages::empty());
    let to = filled(gpu, groups as usize * 256, BufferUsages::empty());
    let record = recorded(gpu, PROBE, [&from, &to], groups);
    Timed {
        name: "the adapter reads".into(),
        bytes: f64::from(groups) * 8192.0 * 16.0,
        flops: 0.0,
        record,
        least: Duration::MAX,
        computed: Duration::MAX,
    }
}

/// The adapter multiplying and adding, which reads nothing.
#[allow(dead_code, reason = "not every example compares with it")]
pub(crate) fn arithmetic(gpu: &Gpu) -> Timed {
    let groups = 64u32;
    let contents =
        [[1f32; 4], [0.0; 4]].as_flattened().iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<_>>();
    let given = gpu.device().create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: None,
        contents: &contents,
        usage: BufferUsages::STORAGE,
    });
    let to = filled(gpu, groups as usize * 256, BufferUsages::empty());
    let step = |chain: char| format!("{chain} = fma({chain}, factor, term);");
    let steps = ('a'..='f').map(step).collect::<String>().repeat(STEPS);
    let flops = f64::from(groups) * 256.0 * 256.0 * STEPS as f64 * 6.0 * 4.0 * 2.0;
    Timed {
        name: "the adapter multiplies and adds".into(),
        bytes: 0.0,
        flops,
        record: recorded(gpu, &ARITHMETIC.replace("ROUNDS", &steps), [&given, &to], groups),
        least: Duration::MAX,
        computed: Duration::MAX,
    }
}

/// A kernel of two buffers, recorded as so many workgroups.
fn recorded(
    gpu: &Gpu,
    text: &str,
    [from, to]: [&Buffer; 2],
    groups: u32,
) -> Box<dyn Fn(&mut wgpu::ComputePass<'_>)> {
    let device = gpu.device();
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(text.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[
            wgpu::BindGroupEntry { binding: 0, resource: from.as_entire_binding() },
            wgpu::BindGroupEntry { binding: 1, resource: to.as_entire_binding() },
        ],
    });
    Box::new(move |pass: &mut wgpu::ComputePass<'_>| {
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(groups, 1, 1);
    })
}

/// What all threads of this process have computed, where the system tells it (Linux); 0 elsewhere.
fn computed() -> Duration {
    let nanoseconds = |thread: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    Duration::from_nanos(threads.filter_map(nanoseconds).sum())
}

fn time(gpu: &Gpu, record: &dyn Fn(&mut wgpu::ComputePass<'_>)) -> (Duration, Duration) {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    record(&mut encoder.begin_compute_pass(&Default::default()));
    let before = computed();
    let start = Instant::now();
    gpu.queue().submit([encoder.finish()]);
    gpu.device().poll(PollType::wait_indefinitely()).expect("polling");
    (start.elapsed(), computed().saturating_sub(before))
}
