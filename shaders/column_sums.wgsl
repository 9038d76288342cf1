// Sums of the columns of a matrix, block by block: a workgroup adds up BLOCK rows of 4 COLUMN_LANES columns. The sums of all blocks are
// the rows of another matrix, and are added up alike, until there is one block: always in the same order. What the matrix is made
// of is up to the provider (sums/*.wgsl): `term` gives 4 columns of a row.

struct KernelParams {
    first_work: u32,        // this dispatch computes tiles first_work .. end_work
    end_work: u32,
    column_tiles: u32,      // tiles along the columns of a block
    rows: u32,
    columns: u32,
    out_at: u32,
}

const LANES = 64u;
const COLUMN_LANES = 8u;
const ROW_LANES = LANES / COLUMN_LANES;
const BLOCK = 256u;

var<workgroup> partial: array<vec4<f32>, LANES>;

@compute @workgroup_size(LANES)
fn column_sums(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
               @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let block = work / params.kernel.column_tiles;
    let column = 4u * (work % params.kernel.column_tiles * COLUMN_LANES + lane % COLUMN_LANES);
    partial[lane] = own_sum(block * BLOCK + lane / COLUMN_LANES, min(block * BLOCK + BLOCK, params.kernel.rows), column);
    for (var step = LANES / 2u; step >= COLUMN_LANES; step /= 2u) {
        workgroupBarrier();
        if (lane < step) { partial[lane] += partial[lane + step]; }
    }
    if (lane >= COLUMN_LANES || column >= params.kernel.columns) { return; }
    let at = params.kernel.out_at + block * params.kernel.columns + column;
    let count = params.kernel.columns - column;
    var sum = partial[lane];
    if (INTO) { sum += load_out(at, count); }
    store_out(at, count, sum);
}

// The lane's share of the block's rows.
fn own_sum(first: u32, end: u32, column: u32) -> vec4<f32> {
    var sum = vec4(0.0);
    if (column < params.kernel.columns) {
        for (var row = first; row < end; row += ROW_LANES) { sum += term(row, column, params.kernel.columns - column); }
    }
    return sum;
}
