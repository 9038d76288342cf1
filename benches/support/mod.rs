//! What the benches share: an adapter, buffers, and the device's time for criterion's `iter_custom`.

use std::time::{Duration, Instant};
use wgpu::{Buffer, BufferUsages, ComputePass, QuerySet};
use wgpu_attention::{Counter, Gpu};

/// Calls in one submission at most: a watchdog may end longer ones.
const MOST_CALLS: u64 = 256;

/// A device with its clock.
pub(crate) struct Bench {
    pub(crate) gpu: Gpu,
    /// Timestamps at both ends of a pass; none where the adapter has none.
    clock: Option<Timestamps>,
}

struct Timestamps {
    set: QuerySet,
    ticks: Buffer,
    read_back: Buffer,
}

impl Bench {
    /// On the fastest adapter; says which.
    pub(crate) fn new() -> Self {
        let gpu =
            Gpu::new().expect("a GPU adapter; `eval \"$(cargo xtask adapter-env)\"` gives a software one");
        let timestamps = gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let clock = timestamps.then(|| Timestamps::new(&gpu));
        let name = if timestamps { "timestamps" } else { "wall clock: submitting counts too" };
        println!("adapter: {}; {name}", gpu.info().name);
        Self { gpu, clock }
    }

    /// f32 elements drawn from N(0, 1), on the device.
    pub(crate) fn buffer(&self, len: usize) -> Buffer {
        let draw = Counter::new(1, len as u64);
        self.upload(&(0..len as u64).map(|n| draw.normal(n) as f32).collect::<Vec<_>>())
    }

    /// These numbers, on the device.
    pub(crate) fn upload<T: bytemuck::Pod>(&self, data: &[T]) -> Buffer {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        let buffer = empty(&self.gpu, size_of_val(data) as u64, usage);
        self.gpu.queue().write_buffer(&buffer, 0, bytemuck::cast_slice(data));
        buffer
    }

    /// What `calls` calls take, by the device's clock where it has one.
    pub(crate) fn time(&self, calls: u64, record: impl Fn(&mut ComputePass<'_>)) -> Duration {
        let mut left = calls;
        let mut time = Duration::ZERO;
        while left > 0 {
            let now = left.min(MOST_CALLS);
            time += self.submission(now, &record);
            left -= now;
        }
        time
    }

    fn submission(&self, calls: u64, record: &impl Fn(&mut ComputePass<'_>)) -> Duration {
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        let timestamp_writes = self.clock.as_ref().map(|clock| wgpu::ComputePassTimestampWrites {
            query_set: &clock.set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
        let mut pass = encoder.begin_compute_pass(&descriptor);
        (0..calls).for_each(|_| record(&mut pass));
        drop(pass);
        if let Some(clock) = &self.clock {
            encoder.resolve_query_set(&clock.set, 0..2, &clock.ticks, 0);
            encoder.copy_buffer_to_buffer(&clock.ticks, 0, &clock.read_back, 0, 16);
        }
        let commands = encoder.finish();
        let start = Instant::now();
        self.gpu.queue().submit([commands]);
        self.gpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device is alive");
        let wall = start.elapsed();
        self.clock.as_ref().map_or(wall, |clock| clock.read(&self.gpu))
    }
}

impl Timestamps {
    fn new(gpu: &Gpu) -> Self {
        let ty = wgpu::QueryType::Timestamp;
        Self {
            set: gpu.device().create_query_set(&wgpu::QuerySetDescriptor { label: None, ty, count: 2 }),
            ticks: empty(gpu, 16, BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC),
            read_back: empty(gpu, 16, BufferUsages::MAP_READ | BufferUsages::COPY_DST),
        }
    }

    fn read(&self, gpu: &Gpu) -> Duration {
        self.read_back.map_async(wgpu::MapMode::Read, .., |mapped| mapped.expect("timestamps can be read"));
        gpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device is alive");
        let ticks: Vec<u64> = {
            let view = self.read_back.slice(..).get_mapped_range().expect("timestamps are mapped");
            bytemuck::pod_collect_to_vec(&view)
        };
        self.read_back.unmap();
        let &[begin, end] = &ticks[..] else { panic!("need two timestamps, got {ticks:?}") };
        assert!(0 < begin && begin < end, "timestamps that are not sound: {ticks:?}");
        Duration::from_secs_f64(1e-9 * f64::from(gpu.queue().get_timestamp_period()) * (end - begin) as f64)
    }
}

fn empty(gpu: &Gpu, size: u64, usage: BufferUsages) -> Buffer {
    gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size,
        usage,
        mapped_at_creation: false,
    })
}

/// A buffer as a binding.
pub(crate) fn whole(buffer: &Buffer) -> wgpu::BufferBinding<'_> {
    buffer.as_entire_buffer_binding()
}
