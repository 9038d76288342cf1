//! Tables past the largest binding of a device: the bits are those of a device that binds them whole.

use crate::model::{Model, text};
use wgpu_attention::{Gpu, IntegerFormat, IntegerType, Options, recommended_limits, wgpu};
use wgpu_attention_models::{Error, File, Generator, GeneratorOptions};

const IDS: u32 = 400;

/// A device whose bindings end so soon.
fn device(max_storage_buffer_binding_size: u64) -> Gpu {
    let adapter = pollster::block_on(Gpu::adapters()).expect("adapters").swap_remove(0);
    let limits = wgpu::Limits { max_storage_buffer_binding_size, ..recommended_limits(&adapter) };
    let descriptor = wgpu::DeviceDescriptor { required_limits: limits, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
    Gpu::with_device(adapter.get_info(), device, queue, Options::default()).expect("kernels")
}

/// A GPT-2 of more ids: a table of 51,200 bytes.
fn model() -> Model {
    let mut model = Model::gpt2().with("vocab_size", IDS.into());
    let table: Vec<f32> = (0..IDS * 32).map(|n| (n as f32 * 0.7).sin() * 0.2).collect();
    model.set("transformer.wte.weight", &[IDS as usize, 32], &table);
    model
}

fn generator(gpu: &Gpu, options: GeneratorOptions) -> Result<Generator, Error> {
    let model = model();
    Generator::new(gpu, &File::of_model(&model.config, &[&model.bytes()])?, options)
}

#[test]
fn a_table_in_bands_gives_the_same_bits() {
    let int8 = IntegerFormat::new(IntegerType::I8);
    // In f32 the table is bound in 4 bands, as lookups and as the head; beside int8 the lookups' has 7, and the head 2.
    for (most, weights) in [(16384, None), (8192, Some(int8))] {
        let options = GeneratorOptions::new(32).weights(weights).chunk(8);
        let mut whole = generator(&device(1 << 20), options).expect("a generator");
        let mut banded = generator(&device(most), options).expect("a generator in bands");
        assert!(banded.dispatches() > whole.dispatches(), "the table is bound whole");
        // Ids of every band, the ends of bands among them.
        let prompt = [0, 63, 64, 127, 128, 255, 256, IDS - 1, 300, 5];
        assert_eq!(whole.feed(&prompt).expect("logits"), banded.feed(&prompt).expect("logits"));
        for id in [IDS - 1, 64, 255].into_iter().chain(text(5)) {
            assert_eq!(whole.feed(&[id]).expect("logits"), banded.feed(&[id]).expect("logits"));
        }
        let largest = whole.feed(&[1]).expect("logits").iter().fold(0f32, |most, x| most.max(x.abs()));
        assert!(largest > 0.0, "logits of a model that is nothing");
    }
}

#[test]
fn what_no_band_holds_is_an_error() {
    let error = generator(&device(8192), GeneratorOptions::new(32).chunk(8)).err().expect("too small");
    let want =
        "a matrix of products: need a max_storage_buffer_binding_size for 64 rows of 512 bytes, found 8192";
    assert_eq!(error.to_string(), want);
}
