// As little as a dispatch can do and still be counted. Each waits for the one before, as the kernels of a model do.

@group(0) @binding(0) var<storage, read_write> launched: array<u32>;

@compute @workgroup_size(1)
fn main() {
    launched[0] += 1u;
}
