// What relative rows and segments add to the products of a tile, and to dq: on the staged tile.
//
// Pairs read their rows of r from global memory: those of neighbouring lanes are the same or the next. The two numbers of a query by its
// segments are made once: by the lane that has the row; of columns by one lane each, for all.

// Of the tile's columns, where they are queries.
var<workgroup> column_numbers: array<vec2<f32>, KEYS>;

fn begin_added(at: Head) {
    if (HAS_SEGMENTS && ROWS_ARE_QUERIES) { begin_segments(at, own); }
}

// Before the tile's products, whose barriers are between this and `with_added_products`.
fn stage_added(at: Head, lane: Lane, tile: KeyTile) {
    if (!HAS_SEGMENTS || ROWS_ARE_QUERIES) { return; }
    for (var c = lane.index; c < KEYS; c += LANES) { column_numbers[c] = segment_numbers(at, key_at(at, tile.first + c)); }
}

// The products of the lane's rows and columns with what is added to them.
fn with_added_products(s: mat4x4<f32>, at: Head, lane: Lane, tile: KeyTile) -> mat4x4<f32> {
    return s + mat4x4(added_products(at, tile, lane.c), added_products(at, tile, lane.c + LANES_C),
                      added_products(at, tile, lane.c + 2u * LANES_C), added_products(at, tile, lane.c + 3u * LANES_C));
}

// Of the lane's rows and column c of the tile.
fn added_products(at: Head, tile: KeyTile, c: u32) -> vec4<f32> {
    let column = key_at(at, tile.first + c);
    var x = vec4(0.0);
    if (HAS_RELATIVE) { x = related(at, own, column); }
    if (HAS_SEGMENTS) {
        let same = own_of_segment(at, own, column);
        if (ROWS_ARE_QUERIES) {
            x += segmented(at, column, same);
        } else {
            x += select(vec4(column_numbers[c].y), vec4(column_numbers[c].x), same);
        }
    }
    return x;
}

// The sums of the tile with what the lane's queries meet beside the keys. Their weights lie in workgroup memory, by columns.
fn with_added_rows(x: Sums, at: Head, lane: Lane, tile: KeyTile) -> Sums {
    var sum = x;
    var same = vec4(0.0);
    var other = vec4(0.0);
    for (var c = 0u; c < KEYS; c++) {
        let p = arena[strip_of_weights(lane, c)][c % CHUNK];
        let key = key_at(at, tile.first + c);
        if (HAS_RELATIVE) { sum = with_related(sum, p, at, lane, tile, key); }
        if (HAS_SEGMENTS) {
            let is_same = own_of_segment(at, own, key);
            same += select(vec4(0.0), p, is_same);
            other += select(p, vec4(0.0), is_same);
        }
    }
    if (HAS_SEGMENTS) { sum = with_segments(sum, same, other, at, lane); }
    return sum;
}

// The rows of r that the lane's queries meet at a key, weighed.
fn with_related(x: Sums, p: vec4<f32>, at: Head, lane: Lane, tile: KeyTile, key: u32) -> Sums {
    let rows = rows_of_pairs(at, own, key);
    var sum = x;
    sum.near = with_related_columns(x.near, p, tile, rows, lane.c);
    if (WIDE) { sum.more = with_related_columns(x.more, p, tile, rows, lane.c + 2u * LANES_C); }
    return sum;
}

fn with_related_columns(x: Columns, p: vec4<f32>, tile: KeyTile, rows: vec4<u32>, g: u32) -> Columns {
    let h = g + LANES_C;
    return Columns(fma(vec4(p.x), staged_row(tile, rows.x, g), x.a0), fma(vec4(p.x), staged_row(tile, rows.x, h), x.a1),
                   fma(vec4(p.y), staged_row(tile, rows.y, g), x.b0), fma(vec4(p.y), staged_row(tile, rows.y, h), x.b1),
                   fma(vec4(p.z), staged_row(tile, rows.z, g), x.c0), fma(vec4(p.z), staged_row(tile, rows.z, h), x.c1),
                   fma(vec4(p.w), staged_row(tile, rows.w, g), x.d0), fma(vec4(p.w), staged_row(tile, rows.w, h), x.d1));
}

// Groups past the last repeat it, and are not written.
fn staged_row(tile: KeyTile, row: u32, g: u32) -> vec4<f32> {
    return finite_where_masked(tile, related_row(row, min(g, HEAD_GROUPS - 1u)));
}

// The two rows of e, by the weights of the keys of either kind.
fn with_segments(x: Sums, same: vec4<f32>, other: vec4<f32>, at: Head, lane: Lane) -> Sums {
    var sum = x;
    sum.near = with_segment_columns(x.near, same, other, at, lane.c);
    if (WIDE) { sum.more = with_segment_columns(x.more, same, other, at, lane.c + 2u * LANES_C); }
    return sum;
}

fn with_segment_columns(x: Columns, same: vec4<f32>, other: vec4<f32>, at: Head, g: u32) -> Columns {
    let a = min(g, HEAD_GROUPS - 1u);
    let b = min(g + LANES_C, HEAD_GROUPS - 1u);
    let e = accumulated(x, same, segment_row(1u, at.head, a), segment_row(1u, at.head, b));
    return accumulated(e, other, segment_row(2u, at.head, a), segment_row(2u, at.head, b));
}
