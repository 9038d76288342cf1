// `TENSOR`: elements are what they are.

fn scale_of_TENSOR(at: u32) -> f32 { return 1.0; }
