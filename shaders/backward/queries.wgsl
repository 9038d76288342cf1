// A pass whose rows are queries: the derivatives by the scores of each tile, which dq.wgsl and terms.wgsl take.

// By groups of 4 elements of a row: the columns are the elements, the rows are the lane's 4 queries.
var<private> own_q: array<mat4x4<f32>, HEAD_GROUPS>;        // with the scale
var<private> own_dout: array<mat4x4<f32>, VALUE_GROUPS>;   // over l
var<private> own_records: mat4x4<f32>;
var<private> own_i: vec4<u32>;

fn run(batch: u32, head: u32, rows: vec2<u32>, lane: Lane) {
    let kv_head = head / params.kernel.heads_per_kv_head;
    let at = Head(batch, head, row_at(params.k, batch, kv_head, 0u), row_at(params.v, batch, kv_head, 0u), rows.x, rows.y, 0u);
    let own = rows_of_lane(at, lane);
    own_i = vec4(query_at(at, own.x), query_at(at, own.y), query_at(at, own.z), query_at(at, own.w));
    let first = (batch * params.kernel.heads + head) * params.kernel.q_len;
    own_records = mat4x4(records[first + own_i.x], records[first + own_i.y], records[first + own_i.z], records[first + own_i.w]);
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        own_q[g] = params.kernel.q_scale * transpose(mat4x4(query(at, own_i.x, g), query(at, own_i.y, g), query(at, own_i.z, g), query(at, own_i.w, g)));
    }
    for (var g = 0u; g < VALUE_GROUPS; g++) {
        own_dout[g] = transpose(mat4x4(dout_over_l(at, 0u, g), dout_over_l(at, 1u, g), dout_over_l(at, 2u, g), dout_over_l(at, 3u, g)));
    }
    begin(at, lane);
    walk(at, lane);
    end(at, lane);
}

fn query(at: Head, i: u32, g: u32) -> vec4<f32> {
    return content(at.head, load_q(row_at(params.q, at.batch, at.head, i) + 4u * g, HEAD_DIM - 4u * g), g);
}

fn dout_over_l(at: Head, t: u32, g: u32) -> vec4<f32> {
    return own_records[t].y * load_dout(row_at(params.dout, at.batch, at.head, own_i[t]) + 4u * g, VALUE_DIM - 4u * g);
}

fn attend(at: Head, lane: Lane, tile: KeyTile) {
    if (is_beyond(tile)) { return; }
    // Where the tile's keys and values begin.
    let k0 = keys_of(at, tile, 0u);
    let k1 = keys_of(at, tile, 4u);
    let k2 = keys_of(at, tile, 8u);
    let k3 = keys_of(at, tile, 12u);
    var x0: mat4x4<f32>;
    var x1: mat4x4<f32>;
    var x2: mat4x4<f32>;
    var x3: mat4x4<f32>;
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let q = own_q[g];
        x0 = with_products(x0, q, key(k0.x, g), key(k0.y, g), key(k0.z, g), key(k0.w, g));
        x1 = with_products(x1, q, key(k1.x, g), key(k1.y, g), key(k1.z, g), key(k1.w, g));
        x2 = with_products(x2, q, key(k2.x, g), key(k2.y, g), key(k2.z, g), key(k2.w, g));
        x3 = with_products(x3, q, key(k3.x, g), key(k3.y, g), key(k3.z, g), key(k3.w, g));
    }
    let v0 = values_of(at, tile, 0u);
    let v1 = values_of(at, tile, 4u);
    let v2 = values_of(at, tile, 8u);
    let v3 = values_of(at, tile, 12u);
    var y0: mat4x4<f32>;
    var y1: mat4x4<f32>;
    var y2: mat4x4<f32>;
    var y3: mat4x4<f32>;
    for (var g = 0u; g < VALUE_GROUPS; g++) {
        let d = own_dout[g];
        y0 = with_products(y0, d, value(v0.x, g), value(v0.y, g), value(v0.z, g), value(v0.w, g));
        y1 = with_products(y1, d, value(v1.x, g), value(v1.y, g), value(v1.z, g), value(v1.w, g));
        y2 = with_products(y2, d, value(v2.x, g), value(v2.y, g), value(v2.z, g), value(v2.w, g));
        y3 = with_products(y3, d, value(v3.x, g), value(v3.y, g), value(v3.z, g), value(v3.w, g));
    }
    relate(at, tile, own_i);
    let d0 = slopes_of(at, lane, tile, 0u, with_rows(x0, 0u), y0);
    let d1 = slopes_of(at, lane, tile, 4u, with_rows(x1, 4u), y1);
    let d2 = slopes_of(at, lane, tile, 8u, with_rows(x2, 8u), y2);
    let d3 = slopes_of(at, lane, tile, 12u, with_rows(x3, 12u), y3);
    take(at, lane, tile, Slopes(d0, d1, d2, d3));
}

// The derivatives of a tile: columns are keys, rows are the lane's queries.
struct Slopes { a: mat4x4<f32>, b: mat4x4<f32>, c: mat4x4<f32>, d: mat4x4<f32> }

fn keys_of(at: Head, tile: KeyTile, c: u32) -> vec4<u32> {
    let key = tile.first + c;
    return vec4(key_offset(at, key), key_offset(at, key + 1u), key_offset(at, key + 2u), key_offset(at, key + 3u));
}

fn values_of(at: Head, tile: KeyTile, c: u32) -> vec4<u32> {
    let key = tile.first + c;
    return vec4(value_offset(at, key), value_offset(at, key + 1u), value_offset(at, key + 2u), value_offset(at, key + 3u));
}

fn key(key_at: u32, g: u32) -> vec4<f32> { return load_k(key_at + 4u * g, HEAD_DIM - 4u * g); }

fn value(value_at: u32, g: u32) -> vec4<f32> { return load_v(value_at + 4u * g, VALUE_DIM - 4u * g); }

// The derivatives by the products of the lane's queries with 4 keys from c on; columns are keys.
fn slopes_of(at: Head, lane: Lane, tile: KeyTile, c: u32, products: mat4x4<f32>, d_p: mat4x4<f32>) -> mat4x4<f32> {
    let s = transpose(products);
    let d = transpose(d_p);
    let key = tile.first + c;
    let j = vec4(key_at(at, key), key_at(at, key + 1u), key_at(at, key + 2u), key_at(at, key + 3u));
    let row = at.first_row + lane.r;
    let r = own_records;
    return transpose(mat4x4(
        pull(at.batch, at.head, own_i.x, j, r[0], s[0], d[0], attended(tile, row, c)).ds,
        pull(at.batch, at.head, own_i.y, j, r[1], s[1], d[1], attended(tile, row + LANES, c)).ds,
        pull(at.batch, at.head, own_i.z, j, r[2], s[2], d[2], attended(tile, row + 2u * LANES, c)).ds,
        pull(at.batch, at.head, own_i.w, j, r[3], s[3], d[3], attended(tile, row + 3u * LANES, c)).ds));
}

fn attended(tile: KeyTile, row: u32, c: u32) -> vec4<bool> {
    if (is_masked(tile)) { return seen(tile, row, c); }
    return vec4(true);
}
