// `TENSOR`: zero points, one for each scale.
@group(0) @binding(BINDING_TENSOR_zero_points) var<storage, read> TENSOR_zero_points: array<i32>;

fn zero_point_of_TENSOR(at: u32) -> i32 { return TENSOR_zero_points[at]; }
