// The rows of dout that belong to one row of a table: ids are sorted, so that they lie together, a run. Runs are added up within blocks of
// BLOCK places; what a run has in each block that it does not end in, or does not begin in, is carried to the end.

struct Params {
    first_work: u32,        // this dispatch computes work items first_work .. end_work
    end_work: u32,
    rows: u32,              // places
    width: u32,             // elements of a row
    dout_row: u32,          // from one row of dout to the next
    table_rows: u32,
    has_padding: u32,       // whether the row `padding` has no gradient
    padding: u32,
    dout_at: u32,           // the first element of dout
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(BINDING_ids) var<storage, read> ids: array<u32>;               // [rows], sorted

const LANES = 64u;
const BLOCK = 64u;

// Whether the table has a row of this id, with a gradient.
fn counts(id: u32) -> bool {
    return id < params.table_rows && !(params.has_padding != 0u && id == params.padding);
}

fn begins(place: u32) -> bool { return place == 0u || ids[place - 1u] != ids[place]; }

// Whether a run goes on at `place`, the one behind its last one so far.
fn goes_on(id: u32, place: u32) -> bool { return place < params.rows && ids[min(place, params.rows - 1u)] == id; }

// Where what a run has in a block is carried: from its beginning, or from the block's.
fn carry_at(block: u32, is_beginning: bool) -> u32 { return (2u * block + u32(is_beginning)) * params.width; }

fn write_row(id: u32, c: u32, sum: vec4<f32>) {
    let at = id * params.width + c;
    let count = params.width - c;
    var value = sum;
    if (INTO) { value += load_out(at, count); }
    store_out(at, count, value);
}
