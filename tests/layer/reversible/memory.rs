//! The device's memory, as its allocator tells: the same whatever the depth, but for parameters and their gradients.

use crate::harness::gpu;
use wgpu_attention::{Gpu, Options};

#[path = "../../../examples/reversible_memory.rs"]
mod example;

use example::{Stack, memory};

#[test]
fn memory_does_not_grow_with_the_depth() {
    // A device of its own: other tests allocate on theirs.
    let adapters = pollster::block_on(Gpu::adapters()).unwrap();
    let gpu = pollster::block_on(Gpu::on(&adapters[0], Options::default())).unwrap();
    // The first stack compiles.
    Stack::new(&gpu, 1).unwrap().error(&gpu).unwrap();
    let before = memory(&gpu).unwrap();
    let measured = [2, 8, 32].map(|depth| {
        let stack = Stack::new(&gpu, depth).unwrap();
        stack.error(&gpu).unwrap();
        let (rest, of_layers) = memory(&gpu).unwrap();
        let layer: u64 = stack.plans.iter().map(|plan| 2 * 4 * plan.layout().len() as u64).sum();
        (depth as u64, rest - before.0, of_layers - before.1, layer)
    });
    println!(
        "reversible: depth, bytes beside the layers' own, the layers' own, of these asked for per layer: {measured:?}"
    );
    let streams = 6 * 4 * (example::LEN * example::WIDTH) as u64;
    for (depth, rest, of_layers, layer) in measured {
        assert_eq!(rest, measured[0].1, "{depth} layers");
        assert!(rest >= streams, "six tensors are there: {rest}");
        // Parameters and gradients, each rounded up by the allocator.
        assert!(
            (depth * layer..depth * (layer + 4 * 4096)).contains(&of_layers),
            "{of_layers} of {depth} layers"
        );
    }
}

#[test]
fn a_deep_stack_is_inverted() {
    let found = [1, 8, 32].map(|depth| Stack::new(gpu(), depth).unwrap().error(gpu()).unwrap());
    println!("reversible: error of the input after 1, 8 and 32 layers, of the largest element: {found:?}");
    // No bound: a sign of life. A wrong inverse is off by the size of the values.
    assert!(found.iter().all(|&error| error < 0.01), "{found:?}");
}

#[test]
fn the_picture_of_memory_shows_what_plans_need() {
    let drawn = example::svg(gpu()).unwrap();
    let stored = include_str!("../../../docs/reversible_memory.svg");
    let command = "cargo run --example reversible_memory -- docs/reversible_memory.svg";
    assert!(drawn == stored, "`{command}`, and look at the change");
}
