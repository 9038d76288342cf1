// Parameters of norms, softmax, addition and lookup.

struct Params {
    first_work: u32,        // this dispatch computes work items first_work .. end_work
    end_work: u32,
    rows: u32,
    width: u32,             // elements of a row
    x_row: u32,             // strides in elements
    other_row: u32,
    out_row: u32,
    table_rows: u32,
    eps: f32,
    out_at: u32,            // the first element of out, where rows are looked up
}

@group(0) @binding(0) var<uniform> params: Params;
