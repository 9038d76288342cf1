// Matrix product with a fused end, tiled:
//
//     C = combine( act( A B + bias ) )        C_mn = sum_k A_mk B_kn, in f32
//
// A workgroup owns a tile of C, ROWS by COLUMNS. How its lanes share the work, and where C's sums are kept, is up to
// the provider (product/*.wgsl): `multiply` computes a tile and hands each group of 4 columns of a row to write_group.

struct Params {
    first_work: u32,        // this dispatch computes tiles first_work .. end_work
    end_work: u32,
    row_tiles: u32,         // tiles along the rows, and along the columns, of a batch item
    column_tiles: u32,
    rows: u32,              // M
    inner: u32,             // K
    columns: u32,           // N
    a_at: u32, a_batch: u32, a_row: u32,                        // first element, strides of stored rows in elements
    b_at: u32, b_batch: u32, b_row: u32,
    residual_at: u32, residual_batch: u32, residual_row: u32,
    out_at: u32, out_batch: u32, out_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

// The tile that a workgroup computes.
struct Tile { batch: u32, first_row: u32, first_column: u32 }

@compute @workgroup_size(LANES)
fn matmul(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) index: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    if (work >= params.end_work) { return; }
    let tile = tile_of(work);
    let a_row = select(1u, params.a_row, A_BY_ROWS);
    multiply(tile, index, params.a_at + tile.batch * params.a_batch + tile.first_row * a_row,
             params.b_at + tile.batch * params.b_batch);
}

// Tiles that follow each other share a panel of B: PANEL row tiles, then the next column tile, so that the panel of A stays
// in the cache too.
fn tile_of(work: u32) -> Tile {
    let tiles = params.row_tiles * params.column_tiles;
    let within = work % tiles;
    let panel = within / (PANEL * params.column_tiles);
    let tall = min(PANEL, params.row_tiles - panel * PANEL);
    let rest = within - panel * PANEL * params.column_tiles;
    return Tile(work / tiles, (panel * PANEL + rest % tall) * ROWS, rest / tall * COLUMNS);
}

// The end of 4 columns of a row, of which those past the last column do not count.
fn write_group(tile: Tile, r: u32, column: u32, sum: vec4<f32>) {
    if (column >= params.columns) { return; }
    let count = params.columns - column;
    var value = sum;
    if (HAS_BIAS) { value += load_bias(column, count); }
    value = activated(value);
    let at = params.out_at + tile.batch * params.out_batch + r * params.out_row + column;
    switch COMBINE {
        case ADD: {
            let there = params.residual_at + tile.batch * params.residual_batch + r * params.residual_row + column;
            value += load_residual(there, count);
        }
        case ADD_INTO: { value += load_out(at, count); }
        case MULTIPLY_INTO: { value *= load_out(at, count); }
        default: {}
    }
    store_out(at, count, value);
}
