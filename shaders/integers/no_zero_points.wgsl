// `TENSOR`: zero points are 0.
fn zero_point_of_TENSOR(at: u32) -> i32 { return 0; }
