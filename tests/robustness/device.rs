//! A device destroyed in the middle of work, or out of memory: an `Err` that says so, no panic, no hang.

use super::{alone, own_gpu, tensors, verified};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use wgpu_attention::{
    Activation, AttentionBuffers, AttentionShape, Causal, ClipShape, CrossEntropyShape, ElementType, Error,
    FeedForwardShape, FeedForwardSlices, Full, Gpu, Kernels, LossGradient, LshInputs, LshOptions,
    MatmulShape, MatmulSlices, NormKind, NormShape, OptimizerRule, OptimizerShape, OptimizerSlices,
    OptimizerStep, Options, RecurrentCell, RecurrentInputs, RecurrentShape, RecurrentWeights, SoftmaxShape,
    SortShape,
};

/// What must have come by then; otherwise it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn whole(buffer: &wgpu::Buffer) -> wgpu::BufferBinding<'_> {
    buffer.as_entire_buffer_binding()
}

#[test]
fn a_device_destroyed_in_the_middle_of_work_is_an_error() {
    let _alone = alone();
    let gpu = own_gpu();
    let shape = AttentionShape::new(1, 2, 4096, 16);
    let data = tensors(&shape);
    let run = move |gpu: &Gpu| gpu.attention::<f32, f32, f32>(&shape, &data[0], &data[1], &data[2], &Causal);
    let right = run(&gpu).unwrap();
    let (send, receive) = channel();
    let worker = gpu.clone();
    thread::spawn(move || {
        loop {
            let result = run(&worker);
            let failed = result.is_err();
            // The test has given up, where nobody listens.
            if send.send(result).is_err() || failed {
                break;
            }
        }
    });
    // Every call before it is right; the call that it interrupts, or the next one, says why.
    assert!(receive.recv_timeout(PATIENCE).expect("a call ends").is_ok_and(|out| out == right));
    thread::sleep(Duration::from_millis(20));
    gpu.device().destroy();
    let error = loop {
        match receive.recv_timeout(PATIENCE).expect("a call on a destroyed device ends") {
            Ok(out) => assert!(out == right, "a wrong result of a destroyed device"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::DeviceLost(_)), "{error}");
}

#[test]
fn every_call_on_a_destroyed_device_is_an_error() {
    let _alone = alone();
    let gpu = own_gpu();
    let ones = vec![1f32; 4096];
    let attention = AttentionShape::new(1, 1, 64, 16);
    let lsh = AttentionShape::new(1, 1, 64, 16);
    let lsh_options = LshOptions::new(1, 4, 16);
    let matmul = MatmulShape::new(16, 16, 16);
    let feed_forward = FeedForwardShape::new(16, 16, 16, Activation::Relu);
    let norm = NormShape::new(NormKind::Rms, 16, 16, 1e-5);
    let softmax = SoftmaxShape::new(16, 16);
    let loss = CrossEntropyShape::new(16, 16).gradient(LossGradient::InPlace);
    let recurrent = RecurrentShape::new(RecurrentCell::RnnTanh, 1, 16, 16, 16).bias(false);
    let descent = OptimizerShape::new(256, OptimizerRule::SGD);
    let sort = SortShape::new(1, 64);
    let keys = vec![1u32; 64];
    let calls = || -> Vec<(&str, Result<(), Error>)> {
        let input = &ones[..1024];
        let square = &ones[..256];
        let product = MatmulSlices::<f32, f32, f32>::new(square, square);
        vec![
            ("attention", gpu.attention::<f32, f32, f32>(&attention, input, input, input, &Full).map(drop)),
            ("lsh", {
                let inputs = LshInputs::new(input, input);
                gpu.lsh::<f32, f32>(&lsh, &lsh_options, &inputs).map(drop)
            }),
            ("matmul", gpu.matmul(&matmul, product).map(drop)),
            ("feed_forward", {
                let slices = FeedForwardSlices::<f32, f32, f32>::new(square, square, square);
                gpu.feed_forward(&feed_forward, slices).map(drop)
            }),
            ("norm", gpu.norm::<f32, f32, f32>(&norm, square, &ones[..16], None).map(drop)),
            ("softmax", gpu.softmax::<f32, f32>(&softmax, square).map(drop)),
            ("cross_entropy", gpu.cross_entropy::<f32, f32>(&loss, square, &keys[..16]).map(drop)),
            ("recurrent", {
                let weights = [RecurrentWeights::new(square, square)];
                gpu.recurrent(&recurrent, &RecurrentInputs::new(square, &weights)).map(drop)
            }),
            ("optimizer", {
                let slices = OptimizerSlices::new(square, square);
                gpu.optimizer(&descent, OptimizerStep::new(1, 0.5), slices).map(drop)
            }),
            ("clip", gpu.clip(&ClipShape::new(1.0).tensor(256, ElementType::F32), &[square]).map(drop)),
            ("sort", gpu.sort(&sort, &keys, None).map(drop)),
            ("calibrated", gpu.calibrated().map(drop)),
        ]
    };
    for (name, result) in calls() {
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let plan = gpu.kernels().attention(attention, &Full).unwrap();
    let descriptor = wgpu::BufferDescriptor {
        label: None,
        size: 4096,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    };
    let [q, k, v, out] = [(); 4].map(|()| gpu.device().create_buffer(&descriptor));
    let buffers = || AttentionBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out));
    let call = plan.bind(buffers()).unwrap();
    let unbound = gpu.kernels().attention(attention.q_len(32), &Full).unwrap();
    gpu.device().destroy();

    for round in ["first", "second"] {
        for (name, result) in calls() {
            let error = result.expect_err(name);
            assert!(matches!(error, Error::DeviceLost(_)), "{name}, {round} time: {error}");
        }
    }
    // Without a `Gpu`, whose callback says why, too.
    let lost = |name: &str, error: Option<Error>| {
        let error = error.unwrap_or_else(|| panic!("{name} was accepted"));
        assert!(matches!(error, Error::DeviceLost(_)), "{name}: {error}");
    };
    lost("Kernels::new", Kernels::new(gpu.device(), Options::default()).err());
    lost("Kernels::attention", gpu.kernels().attention(attention, &Full).err());
    lost("AttentionPlan::bind", unbound.bind(buffers()).err());
    // Recording what was bound before, and what needs no new buffer to be bound again, reports through the device, as anything of the
    // caller's own would.
    drop(plan.bind(buffers()));
    let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    call.encode(&mut encoder);
    gpu.queue().submit([encoder.finish()]);
    drop(pollster::block_on(scope.pop()));
}

/// A device that may use little more of its memory than is in use: three hundredths of all more than it takes to make it, for
/// other programs take and free memory, too.
#[cfg(not(target_vendor = "apple"))]
fn small_device() -> Gpu {
    const BUDGETED: wgpu::Backends = wgpu::Backends::VULKAN.union(wgpu::Backends::DX12);
    let device = |percent| {
        let thresholds =
            wgpu::MemoryBudgetThresholds { for_resource_creation: Some(percent), for_device_loss: None };
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            memory_budget_thresholds: thresholds,
            ..wgpu::InstanceDescriptor::new_without_display_handle_from_env()
        });
        let adapters = pollster::block_on(instance.enumerate_adapters(BUDGETED));
        let adapter = adapters.first().expect("need an adapter whose budget wgpu knows");
        pollster::block_on(Gpu::on(adapter, Options::default())).ok()
    };
    let least = (1..97).find(|&percent| device(percent).is_some()).expect("a device");
    device(least + 3).expect("a device, as before")
}

/// 64 MiB, written to, for software adapters count what is in use; none where the budget has no room for it.
#[cfg(not(target_vendor = "apple"))]
fn ballast(gpu: &Gpu) -> Option<wgpu::Buffer> {
    let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let buffer = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some("ballast"),
        size: 64 << 20,
        usage: wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    pollster::block_on(scope.pop()).is_none().then(|| {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        encoder.clear_buffer(&buffer, 0, None);
        gpu.queue().submit([encoder.finish()]);
        gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        buffer
    })
}

/// A call with its q, k and v.
#[cfg(not(target_vendor = "apple"))]
type Call = (AttentionShape, [Vec<f32>; 3]);

/// A large call on a full device, then a small one: what the former had no room for. None if other programs took or freed so
/// much memory meanwhile, for the budget is the machine's, that the large one found room or the small one none.
#[cfg(not(target_vendor = "apple"))]
fn refused_then_served(gpu: &Gpu, large: &Call, small: &Call) -> Option<(String, u64)> {
    let mut held: Vec<_> = std::iter::from_fn(|| ballast(gpu)).take(1000).collect();
    assert!(held.len() < 1000, "an endless budget");
    // 256 MiB of room: for small buffers, which are cut from blocks of up to 128 MiB, but not for three large ones.
    held.truncate(held.len().saturating_sub(4));
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let (shape, [q, k, v]) = large;
    let refusal = match gpu.attention::<f32, f32, f32>(shape, q, k, v, &Full) {
        Err(Error::OutOfMemory { what, need }) if need >= 128 << 20 => (what.into_owned(), need),
        Err(Error::OutOfMemory { .. }) | Ok(_) => return None,
        Err(other) => panic!("{other}"),
    };
    println!("{} MiB held: no room for {} of {} bytes", 64 * held.len(), refusal.0, refusal.1);
    drop(held);
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let (shape, tensors) = small;
    match gpu.attention::<f32, f32, f32>(shape, &tensors[0], &tensors[1], &tensors[2], &Causal) {
        Err(Error::OutOfMemory { .. }) => None,
        result => {
            let out = result.unwrap();
            assert!(verified(shape, tensors, &Causal, (&out, None)).pass);
            Some(refusal)
        }
    }
}

#[cfg(not(target_vendor = "apple"))] // There wgpu knows no budget.
#[test]
fn out_of_memory_is_an_error_that_says_how_much() {
    let _alone = alone();
    let call = |shape: AttentionShape| (shape, tensors(&shape));
    // q, out and its copy take 128 MiB each, k and v next to nothing.
    let large = call(AttentionShape::new(1, 1, 1 << 21, 16).kv_len(16));
    let small = call(AttentionShape::new(1, 1, 100, 16));
    // Twice, so that the device is seen to be as good as before.
    let seen = (0..50).find_map(|_| {
        let gpu = small_device();
        let first = refused_then_served(&gpu, &large, &small)?;
        refused_then_served(&gpu, &large, &small).map(|second| [first, second])
    });
    for (what, need) in seen.expect("a full device, once in 50 times") {
        assert!(["q", "out", "read-back"].contains(&&*what) && need == 128 << 20, "{what} of {need} bytes");
    }
}
