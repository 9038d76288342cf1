// The slopes of score/lsh.wgsl in a backward pass: that of a pair's score by scale q . x has the norm of the key, and a query's own key,
// whose score is a constant, has none, whatever the terms made of it.

// Norms lie behind the records: one binding less.
fn norm_at(at: u32) -> f32 { return records[params.kernel.records + at / 4u][at % 4u]; }

fn unit_key_slope(pairs: Pairs, products: vec4<f32>) -> vec4<f32> { return key_norms(pairs); }

fn meeting_slope(pairs: Pairs, slope: vec4<f32>) -> vec4<f32> { return select(slope, vec4(0.0), pairs.j == vec4(pairs.i)); }
