// Parameters of kernels over the elements of flat tensors, one lane 4 of them.

struct Params {
    first_work: u32,        // this dispatch computes work items first_work .. end_work
    end_work: u32,
    len: u32,               // elements
}

@group(0) @binding(0) var<uniform> params: Params;

const LANES = 64u;
