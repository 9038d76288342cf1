//! The examples that begin with this crate's API run as they stand.

#[path = "../../examples/slices.rs"]
mod slices;
#[path = "../../examples/train_step.rs"]
mod train_step;
#[path = "../../examples/your_device.rs"]
mod your_device;

#[test]
fn slices_run() {
    slices::main().unwrap();
}

#[test]
fn your_device_runs() {
    your_device::main().unwrap();
}

#[test]
fn training_steps_lower_the_loss() {
    train_step::main().unwrap();
}
