// Few rows by a B stored [out, in], as in decoding: what counts is how fast B is read, and it is read once.
//
// Lanes lie along k, so that neighbours read neighbours of a column of B, 4 FOURS elements each. A lane keeps its part of the sums of all
// rows and columns of the tile, so that what it reads of A serves all columns; the parts are added up at the end. From 5 rows on by f32 a CPU's lanes are
// rows instead (ROW_LANES): B is the same for all of them, a load of one word, and nothing is to be added up.
//
// Rows, groups of columns and fours are spelt out, not looped over: a compiler keeps arrays in registers where constants alone index
// them, and a loop costs a CPU more than what is in it.

const STEP = 4u * FOURS;

// 4 FOURS k of the lane's rows.
var<private> own_a: array<vec4<f32>, OWN_ROWS * FOURS>;
// By fours of k 4 columns of B, before they are scaled: the columns of a matrix are the k.
var<private> own_b: array<mat4x4<f32>, 4>;
// By groups of 4 columns, and within them by the lane's rows.
var<private> own: array<vec4<f32>, SUMS>;
var<workgroup> parts: array<vec4<f32>, PARTS>;

fn multiply(tile: Tile, index: u32, a_at: u32, b_at: u32) {
    let lane = select(index, 0u, ROW_LANES);
    let row = select(0u, index, ROW_LANES);
    for (var next = STEP * lane; next + STEP <= params.inner; next += STEP * select(LANES, 1u, ROW_LANES)) {
        // It is a multiple of STEP, which not every compiler sees.
        let k = next / STEP * STEP;
        read_rows(tile, a_at, row, k, 0u);
        if (FOURS > 1u) { read_rows(tile, a_at, row, k, 1u); }
        if (FOURS > 2u) { read_rows(tile, a_at, row, k, 2u); read_rows(tile, a_at, row, k, 3u); }
        add_groups(tile, b_at, k, FOURS);
    }
    // Less than a step is left.
    for (var k = params.inner / STEP * STEP + 4u * lane; k < params.inner; k += 4u * select(LANES, 1u, ROW_LANES)) {
        read_rows(tile, a_at, row, k, 0u);
        add_groups(tile, b_at, k, 1u);
    }
    if (ROW_LANES) { write_own(tile, index); } else { write_total(tile, index); }
}

// The four k + 4 n .. of the lane's rows, from `row` on; past the last row that row again.
fn read_rows(tile: Tile, a_at: u32, row: u32, k: u32, n: u32) {
    let last = params.rows - 1u - tile.first_row;
    let count = params.inner - k - 4u * n;
    own_a[n] = load_a(a_at + min(row, last) * params.a_row + k + 4u * n, count);
    if (OWN_ROWS > 1u) { own_a[FOURS + n] = load_a(a_at + min(1u, last) * params.a_row + k + 4u * n, count); }
    if (OWN_ROWS > 2u) {
        own_a[2u * FOURS + n] = load_a(a_at + min(2u, last) * params.a_row + k + 4u * n, count);
        own_a[3u * FOURS + n] = load_a(a_at + min(3u, last) * params.a_row + k + 4u * n, count);
    }
    if (OWN_ROWS > 4u) {
        own_a[4u * FOURS + n] = load_a(a_at + min(4u, last) * params.a_row + k + 4u * n, count);
        own_a[5u * FOURS + n] = load_a(a_at + min(5u, last) * params.a_row + k + 4u * n, count);
        own_a[6u * FOURS + n] = load_a(a_at + min(6u, last) * params.a_row + k + 4u * n, count);
        own_a[7u * FOURS + n] = load_a(a_at + min(7u, last) * params.a_row + k + 4u * n, count);
    }
}

// The lane's sums, with those of so many fours more.
fn add_groups(tile: Tile, b_at: u32, k: u32, fours: u32) {
    add_group(tile, b_at, k, fours, 0u);
    if (COLUMN_GROUPS > 1u) { add_group(tile, b_at, k, fours, 1u); }
    if (COLUMN_GROUPS > 2u) { add_group(tile, b_at, k, fours, 2u); add_group(tile, b_at, k, fours, 3u); }
    if (COLUMN_GROUPS > 4u) {
        add_group(tile, b_at, k, fours, 4u);
        add_group(tile, b_at, k, fours, 5u);
        add_group(tile, b_at, k, fours, 6u);
        add_group(tile, b_at, k, fours, 7u);
    }
}

fn add_group(tile: Tile, b_at: u32, k: u32, fours: u32, g: u32) {
    // Past the last column that column again.
    let columns = min(vec4(tile.first_column + 4u * g) + vec4(0u, 1u, 2u, 3u), vec4(params.columns - 1u));
    if (fours == 1u) {
        let count = params.inner - k;
        own_b[0] = transpose(mat4x4(four_of_column(b_at, columns.x, k, count), four_of_column(b_at, columns.y, k, count),
                                    four_of_column(b_at, columns.z, k, count), four_of_column(b_at, columns.w, k, count)));
    } else {
        read_eight(b_at, columns, k, 0u);
        if (fours > 2u) { read_eight(b_at, columns, k, 2u); }
    }
    var scales = vec4(1.0);
    if (GROUPED) {
        scales = vec4(scale_of_column(columns.x, k), scale_of_column(columns.y, k), scale_of_column(columns.z, k), scale_of_column(columns.w, k));
    }
    add_row(scales, fours, g, 0u);
    if (OWN_ROWS > 1u) { add_row(scales, fours, g, 1u); }
    if (OWN_ROWS > 2u) { add_row(scales, fours, g, 2u); add_row(scales, fours, g, 3u); }
    if (OWN_ROWS > 4u) {
        add_row(scales, fours, g, 4u);
        add_row(scales, fours, g, 5u);
        add_row(scales, fours, g, 6u);
        add_row(scales, fours, g, 7u);
    }
}

// Fours n and n + 1 of 4 columns.
fn read_eight(b_at: u32, columns: vec4<u32>, k: u32, n: u32) {
    let x = eight_of_column(b_at, columns.x, k + 4u * n);
    let y = eight_of_column(b_at, columns.y, k + 4u * n);
    let z = eight_of_column(b_at, columns.z, k + 4u * n);
    let w = eight_of_column(b_at, columns.w, k + 4u * n);
    own_b[n] = transpose(mat4x4(x.low, y.low, z.low, w.low));
    own_b[n + 1u] = transpose(mat4x4(x.high, y.high, z.high, w.high));
}

// Neighbours in k share a scale: their products are added up before it.
fn add_row(scales: vec4<f32>, fours: u32, g: u32, r: u32) {
    let before = own[g * OWN_ROWS + r];
    var sum = with_products(select(before, vec4(0.0), GROUPED), own_a[r * FOURS], own_b[0]);
    if (fours > 1u) { sum = with_products(sum, own_a[r * FOURS + 1u], own_b[1]); }
    if (fours > 2u) {
        sum = with_products(sum, own_a[r * FOURS + 2u], own_b[2]);
        sum = with_products(sum, own_a[r * FOURS + 3u], own_b[3]);
    }
    if (GROUPED) { sum = fma(sum, scales, before); }
    own[g * OWN_ROWS + r] = sum;
}

// 4 k of a row of A by 4 columns of B.
fn with_products(sum: vec4<f32>, a: vec4<f32>, b: mat4x4<f32>) -> vec4<f32> {
    return fma(vec4(a.w), b[3], fma(vec4(a.z), b[2], fma(vec4(a.y), b[1], fma(vec4(a.x), b[0], sum))));
}

// --- the end ---

// Lanes are rows, whose sums are all there.
fn write_own(tile: Tile, index: u32) {
    if (tile.first_row + index >= params.rows) { return; }
    write_group_of_own(tile, index, 0u);
    if (COLUMN_GROUPS > 1u) { write_group_of_own(tile, index, 1u); }
    if (COLUMN_GROUPS > 2u) { write_group_of_own(tile, index, 2u); write_group_of_own(tile, index, 3u); }
    if (COLUMN_GROUPS > 4u) {
        write_group_of_own(tile, index, 4u);
        write_group_of_own(tile, index, 5u);
        write_group_of_own(tile, index, 6u);
        write_group_of_own(tile, index, 7u);
    }
}

fn write_group_of_own(tile: Tile, index: u32, g: u32) { write_sum(tile, tile.first_row + index, g, own[g]); }

// All lanes' parts of the sums, in the order of the lanes.
fn write_total(tile: Tile, index: u32) {
    leave_group(index, 0u);
    if (COLUMN_GROUPS > 1u) { leave_group(index, 1u); }
    if (COLUMN_GROUPS > 2u) { leave_group(index, 2u); leave_group(index, 3u); }
    if (COLUMN_GROUPS > 4u) {
        leave_group(index, 4u);
        leave_group(index, 5u);
        leave_group(index, 6u);
        leave_group(index, 7u);
    }
    workgroupBarrier();
    for (var n = index; n < SUMS; n += LANES) {
        let r = tile.first_row + n % OWN_ROWS;
        if (r < params.rows) { write_sum(tile, r, n / OWN_ROWS, total(n)); }
    }
}

fn leave_group(index: u32, g: u32) {
    leave(index, g * OWN_ROWS);
    if (OWN_ROWS > 1u) { leave(index, g * OWN_ROWS + 1u); }
    if (OWN_ROWS > 2u) { leave(index, g * OWN_ROWS + 2u); leave(index, g * OWN_ROWS + 3u); }
    if (OWN_ROWS > 4u) {
        leave(index, g * OWN_ROWS + 4u);
        leave(index, g * OWN_ROWS + 5u);
        leave(index, g * OWN_ROWS + 6u);
        leave(index, g * OWN_ROWS + 7u);
    }
}

fn leave(index: u32, n: u32) { parts[n * LANES + index] = own[n]; }

fn total(n: u32) -> vec4<f32> {
    var sum = parts[n * LANES];
    for (var lane = 1u; lane < LANES; lane++) { sum += parts[n * LANES + lane]; }
    return sum;
}

// A scale that serves a whole column comes last.
fn write_sum(tile: Tile, r: u32, g: u32, sum: vec4<f32>) {
    let column = tile.first_column + 4u * g;
    let columns = min(vec4(column) + vec4(0u, 1u, 2u, 3u), vec4(params.columns - 1u));
    var scaled = sum;
    if (!GROUPED) {
        scaled *= vec4(scale_of_column(columns.x, 0u), scale_of_column(columns.y, 0u), scale_of_column(columns.z, 0u), scale_of_column(columns.w, 0u));
    }
    write_group(tile, r, column, scaled);
}
