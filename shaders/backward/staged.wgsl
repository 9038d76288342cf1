// Lanes share their work through workgroup memory, as in tile/staged.wgsl: what GPUs want. LANES_R x LANES_C lanes; a lane holds 4
// rows by 4 columns of the products, and the same 4 rows by 2 or 4 (WIDE) groups of 4 elements of the sums.

const LANES_PER_ROW = LANES_C;

// One workgroup array, cut by the constants *_AT: chunks of the rows (Q) and of the columns (K) while products are computed, then
// weights (P) and whole columns (V) over them. In strips, and steps spelt out, as in tile/staged.wgsl.
var<workgroup> arena: array<array<vec4<f32>, STRIP>, ARENA / STRIP>;

// Sums over the columns, of elements in groups of 4.
var<private> head_sums: Sums;
var<private> value_sums: Sums;

// The longest first, under a causal mask: what is left for the end should be short.
fn row_tile_at(place: u32) -> u32 { return select(place, params.kernel.row_tiles - 1u - place, ROWS_ARE_QUERIES); }

fn begin(at: Head, lane: Lane) { begin_added(at); }

fn attend(at: Head, lane: Lane, tile: KeyTile) {
    if (is_beyond(tile)) { return; }
    stage_added(at, lane, tile);
    let s = with_added_products(products(at, lane, tile, false, HEAD_GROUPS), at, lane, tile);
    var d_p: mat4x4<f32>;
    if (HAS_SLOPES) { d_p = products(at, lane, tile, true, VALUE_GROUPS); }
    let w = weights_of(at, lane, tile, vec4(lane.c) + LANES_C * vec4(0u, 1u, 2u, 3u), s, d_p);
    // A sum of the tile by itself, then added: a chain of additions as long as the row would lose digits.
    if (HAS_VALUE) { value_sums = added(value_sums, weighed(at, lane, tile, w.p, true, VALUE_GROUPS)); }
    if (HAS_HEAD) {
        var x = weighed(at, lane, tile, w.ds, false, HEAD_GROUPS);
        if (ROWS_ARE_QUERIES) { x = with_added_rows(x, at, lane, tile); }
        head_sums = added(head_sums, x);
    }
    take_own(at, lane, tile, w.ds);
}

// Products of the lane's 4 rows with its 4 columns, by head elements or by values, a chunk of so many groups at a time.
fn products(at: Head, lane: Lane, tile: KeyTile, by_values: bool, all: u32) -> mat4x4<f32> {
    var s: mat4x4<f32>;
    for (var chunk = 0u; chunk < all; chunk += CHUNK) {
        workgroupBarrier(); // the last sums, or the last chunk, are read to their end
        stage_rows(at, lane, by_values, chunk, all);
        stage_columns(at, lane, tile, by_values, chunk, all);
        workgroupBarrier();
        let q = vec4(Q_AT + lane.r) + LANES_R * vec4(0u, 1u, 2u, 3u);
        let k = vec4(K_AT + lane.c) + LANES_C * vec4(0u, 1u, 2u, 3u);
        s = with_group(s, q, k, 0u);
        if (is_group(chunk, 1u, all)) { s = with_group(s, q, k, 1u); }
        if (is_group(chunk, 2u, all)) { s = with_group(s, q, k, 2u); }
        if (is_group(chunk, 3u, all)) { s = with_group(s, q, k, 3u); }
        if (is_group(chunk, 4u, all)) { s = with_group(s, q, k, 4u); }
        if (is_group(chunk, 5u, all)) { s = with_group(s, q, k, 5u); }
        if (is_group(chunk, 6u, all)) { s = with_group(s, q, k, 6u); }
        if (is_group(chunk, 7u, all)) { s = with_group(s, q, k, 7u); }
    }
    return transpose(s);
}

// Whether a chunk of so many groups in all has a group n: known to the compiler, where chunks come out even.
fn is_group(chunk: u32, n: u32, all: u32) -> bool { return n < CHUNK && (all % CHUNK == 0u || chunk + n < all); }

// The columns of s are the lane's rows.
fn with_group(s: mat4x4<f32>, q: vec4<u32>, k: vec4<u32>, n: u32) -> mat4x4<f32> {
    let k0 = arena[k.x][n];
    let k1 = arena[k.y][n];
    let k2 = arena[k.z][n];
    let k3 = arena[k.w][n];
    return mat4x4(dots(arena[q.x][n], k0, k1, k2, k3, s[0]), dots(arena[q.y][n], k0, k1, k2, k3, s[1]),
                  dots(arena[q.z][n], k0, k1, k2, k3, s[2]), dots(arena[q.w][n], k0, k1, k2, k3, s[3]));
}

// The tile's columns, weighed for the lane's 4 rows, of so many groups.
fn weighed(at: Head, lane: Lane, tile: KeyTile, w: mat4x4<f32>, values: bool, groups: u32) -> Sums {
    workgroupBarrier(); // the products, or the sums before, are read to their end
    store_weight(lane, lane.c, w[0]);
    store_weight(lane, lane.c + LANES_C, w[1]);
    store_weight(lane, lane.c + 2u * LANES_C, w[2]);
    store_weight(lane, lane.c + 3u * LANES_C, w[3]);
    var x: Sums;
    for (var column = 0u; column < KEYS; column += V_KEYS) {
        if (column > 0u) { workgroupBarrier(); }
        stage_whole(at, lane, tile, column, values, groups);
        workgroupBarrier();
        for (var j = 0u; j < V_KEYS; j += CHUNK) {
            x = weighed_strip(x, strip_of_weights(lane, column + j), V_AT + j / CHUNK * V_GROUPS + lane.c);
        }
    }
    return x;
}

fn end(at: Head, lane: Lane) {
    if (HAS_VALUE) { write_sums(at, lane, value_sums, true); }
    if (HAS_HEAD) { write_sums(at, lane, head_sums, false); }
}

fn write_sums(at: Head, lane: Lane, x: Sums, values: bool) {
    write_columns(at, lane, lane.c, x.near, values);
    if (WIDE) { write_columns(at, lane, lane.c + 2u * LANES_C, x.more, values); }
}

fn write_columns(at: Head, lane: Lane, g: u32, x: Columns, values: bool) {
    let row = at.first_row + lane.r;
    write_group(at, row, g, x.a0, values);
    write_group(at, row, g + LANES_C, x.a1, values);
    write_group(at, row + LANES_R, g, x.b0, values);
    write_group(at, row + LANES_R, g + LANES_C, x.b1, values);
    write_group(at, row + 2u * LANES_R, g, x.c0, values);
    write_group(at, row + 2u * LANES_R, g + LANES_C, x.c1, values);
    write_group(at, row + 3u * LANES_R, g, x.d0, values);
    write_group(at, row + 3u * LANES_R, g + LANES_C, x.d1, values);
}

// --- staging: workgroup memory filled by all lanes together ---

fn stage_rows(at: Head, lane: Lane, by_values: bool, chunk: u32, all: u32) {
    for (var e = lane.index; e < ROWS * CHUNK; e += LANES) {
        let row = e / CHUNK;
        let g = e % CHUNK;
        if (is_group(chunk, g, all)) {
            let place = query_at(at, min(at.first_row + row, params.kernel.q_count - 1u));
            var x: vec4<f32>;
            if (by_values) { x = own_value(at, place, chunk + g); } else { x = params.kernel.q_scale * own_head(at, place, chunk + g); }
            arena[Q_AT + row][g] = x;
        }
    }
}

fn stage_columns(at: Head, lane: Lane, tile: KeyTile, by_values: bool, chunk: u32, all: u32) {
    for (var e = lane.index; e < KEYS * CHUNK; e += LANES) {
        let column = e / CHUNK;
        let g = e % CHUNK;
        if (is_group(chunk, g, all)) { arena[K_AT + column][g] = of_column(at, tile.first + column, by_values, chunk + g); }
    }
}

// V_KEYS columns of the tile from `first` on, all groups.
fn stage_whole(at: Head, lane: Lane, tile: KeyTile, first: u32, values: bool, groups: u32) {
    for (var e = lane.index; e < V_KEYS * V_GROUPS; e += LANES) {
        let g = e % V_GROUPS;
        let j = e / V_GROUPS;
        var x = vec4(0.0);
        if (g < groups) {
            // Rows that leave a column out weigh it by 0, and 0 x NaN is not 0: there, what is not finite becomes 0. Rows that
            // see it have a weight that is NaN, by the query's record.
            x = finite_where_masked(tile, of_column(at, tile.first + first + j, values, g));
        }
        arena[V_AT + j / CHUNK * V_GROUPS + g][j % CHUNK] = x;
    }
}

fn of_column(at: Head, column: u32, values: bool, g: u32) -> vec4<f32> {
    if (values) { return column_value(column_value_at(at, column), g); }
    return column_head(at, column_head_at(at, column), g);
}

// --- small algebra ---

fn added(x: Sums, y: Sums) -> Sums { return Sums(plus(x.near, y.near), plus(x.more, y.more)); }

fn plus(x: Columns, y: Columns) -> Columns {
    return Columns(x.a0 + y.a0, x.a1 + y.a1, x.b0 + y.b0, x.b1 + y.b1, x.c0 + y.c0, x.c1 + y.c1, x.d0 + y.d0, x.d1 + y.d1);
}
