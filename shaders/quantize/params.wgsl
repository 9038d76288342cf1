// Parameters of the kernels that make integers.
struct Params {
    first_work: u32,        // this dispatch computes groups of LANES lanes first_work .. end_work
    end_work: u32,
    rows: u32,
    inner: u32,             // elements of a row
    row_words: u32,         // words of a row
    slices: u32,            // of elements that share a scale
    slice_len: u32,
    parts: u32,             // of a slice, one per lane
    part_len: u32,
    range: f32,             // symmetric: half of the integers' range; otherwise all of it
    least_scale: f32,
    low: i32,               // the smallest integer, and the largest
    high: i32,
}

@group(0) @binding(0) var<uniform> params: Params;
