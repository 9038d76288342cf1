use crate::Devices;
use wgpu_attention::{Gpu, Options};

/// A device with cooperative matrices, shared like the plain one; its kernels with these options.
pub fn cooperative(mut options: Options) -> Gpu {
    static GPUS: Devices = Devices::new();
    let gpu = GPUS.of_this_thread(|| pollster::block_on(open()));
    options.matrix_size = gpu.kernels().options().matrix_size;
    gpu.with_kernels(gpu.kernels().with_options(options).expect("valid options"))
}

/// The first adapter that has them.
async fn open() -> Gpu {
    let adapters = Gpu::adapters().await.expect("an adapter");
    let found = adapters.iter().find(|adapter| !wgpu_attention::cooperative_features(adapter).is_empty());
    let adapter = found.unwrap_or_else(|| {
        panic!(
            "no adapter here has cooperative matrices of f16: run the kernel tests by `cargo xtask test`, which fetches a \
             software adapter that has"
        )
    });
    let token = wgpu_attention_experimental::allowed();
    Gpu::on_experimental(adapter, Options::default(), token).await.expect("a device").self_tests(false)
}
