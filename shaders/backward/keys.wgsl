// The pass whose rows are keys: dk_j = scale sum_i f_ij ds_ij q_i (with relative rows q_i + u) and dv_j = sum_i e_ij / l_i do_i, the sums over the queries of
// all heads that read the key head. The mask is transposed: what `keep` calls a query is a key here, and the other way round.

// By groups of 4 elements of a row: the columns are the elements, the rows are the lane's 4 keys.
var<private> own_k: array<mat4x4<f32>, HEAD_GROUPS>;        // with the scale
var<private> own_v: array<mat4x4<f32>, VALUE_GROUPS>;
var<private> own_dk: array<mat4x4<f32>, HEAD_GROUPS>;
var<private> own_dv: array<mat4x4<f32>, VALUE_GROUPS>;
var<private> own_j: vec4<u32>;

fn item_of(work: u32) -> vec3<u32> { return item_in_order(work, params.kernel.heads / params.kernel.heads_per_kv_head); }

fn run(batch: u32, kv_head: u32, rows: vec2<u32>, lane: Lane) {
    let first = kv_head * params.kernel.heads_per_kv_head;
    let at = Head(batch, first, row_at(params.k, batch, kv_head, 0u), row_at(params.v, batch, kv_head, 0u), rows.x, rows.y, 0u);
    let own = rows_of_lane(at, lane);
    own_j = vec4(query_at(at, own.x), query_at(at, own.y), query_at(at, own.z), query_at(at, own.w));
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        own_k[g] = params.kernel.q_scale * transpose(mat4x4(key(at, own_j.x, g), key(at, own_j.y, g), key(at, own_j.z, g), key(at, own_j.w, g)));
        own_dk[g] = mat4x4<f32>();
    }
    for (var g = 0u; g < VALUE_GROUPS; g++) {
        if (HAS_DK) { own_v[g] = transpose(mat4x4(value(at, own_j.x, g), value(at, own_j.y, g), value(at, own_j.z, g), value(at, own_j.w, g))); }
        own_dv[g] = mat4x4<f32>();
    }
    for (var head = first; head < first + params.kernel.heads_per_kv_head; head++) {
        walk(Head(at.batch, head, at.k_at, at.v_at, at.first_row, at.end_row, 0u), lane);
    }
    if (HAS_DK) {
        for (var g = 0u; g < HEAD_GROUPS; g++) {
            let dk = transpose(own_dk[g]);
            write_dk(at, kv_head, lane, 0u, g, dk[0]);
            write_dk(at, kv_head, lane, 1u, g, dk[1]);
            write_dk(at, kv_head, lane, 2u, g, dk[2]);
            write_dk(at, kv_head, lane, 3u, g, dk[3]);
        }
    }
    if (HAS_DV) {
        for (var g = 0u; g < VALUE_GROUPS; g++) {
            let dv = transpose(own_dv[g]);
            write_dv(at, kv_head, lane, 0u, g, dv[0]);
            write_dv(at, kv_head, lane, 1u, g, dv[1]);
            write_dv(at, kv_head, lane, 2u, g, dv[2]);
            write_dv(at, kv_head, lane, 3u, g, dv[3]);
        }
    }
}

fn key(at: Head, j: u32, g: u32) -> vec4<f32> { return load_k(at.k_at + j * params.k.row + 4u * g, HEAD_DIM - 4u * g); }

fn value(at: Head, j: u32, g: u32) -> vec4<f32> { return load_v(at.v_at + j * params.v.row + 4u * g, VALUE_DIM - 4u * g); }

// 4 queries of the tile, the same for all lanes: where q and the gradient of out begin, and their records.
struct Queries { q: vec4<u32>, dout: vec4<u32>, i: vec4<u32>, records: mat4x4<f32> }

// Weights of do and of q: columns are queries, rows are the lane's keys.
struct Weights { p: mat4x4<f32>, ds: mat4x4<f32> }

fn attend(at: Head, lane: Lane, tile: KeyTile) {
    if (is_beyond(tile)) { return; }
    let q0 = queries_of(at, tile, 0u);
    let q1 = queries_of(at, tile, 4u);
    let q2 = queries_of(at, tile, 8u);
    let q3 = queries_of(at, tile, 12u);
    var x0: mat4x4<f32>;
    var x1: mat4x4<f32>;
    var x2: mat4x4<f32>;
    var x3: mat4x4<f32>;
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let k = own_k[g];
        x0 = with_queries(x0, k, at.head, q0.q, g);
        x1 = with_queries(x1, k, at.head, q1.q, g);
        x2 = with_queries(x2, k, at.head, q2.q, g);
        x3 = with_queries(x3, k, at.head, q3.q, g);
    }
    var y0: mat4x4<f32>;
    var y1: mat4x4<f32>;
    var y2: mat4x4<f32>;
    var y3: mat4x4<f32>;
    if (HAS_DK) {
        for (var g = 0u; g < VALUE_GROUPS; g++) {
            let v = own_v[g];
            y0 = with_dout(y0, v, q0.dout, g);
            y1 = with_dout(y1, v, q1.dout, g);
            y2 = with_dout(y2, v, q2.dout, g);
            y3 = with_dout(y3, v, q3.dout, g);
        }
    }
    relate(at, tile, own_j);
    let w0 = weights_of(at, lane, tile, 0u, q0, with_rows(x0, 0u), y0);
    let w1 = weights_of(at, lane, tile, 4u, q1, with_rows(x1, 4u), y1);
    let w2 = weights_of(at, lane, tile, 8u, q2, with_rows(x2, 8u), y2);
    let w3 = weights_of(at, lane, tile, 12u, q3, with_rows(x3, 12u), y3);
    // A sum of the tile by itself, then added: a chain of additions as long as the row would lose digits.
    if (HAS_DV) {
        for (var g = 0u; g < VALUE_GROUPS; g++) {
            var x = mat4x4<f32>();
            x = with_weighed_dout(x, tile, w0.p, q0.dout, g);
            x = with_weighed_dout(x, tile, w1.p, q1.dout, g);
            x = with_weighed_dout(x, tile, w2.p, q2.dout, g);
            x = with_weighed_dout(x, tile, w3.p, q3.dout, g);
            own_dv[g] += x;
        }
    }
    if (HAS_DK) {
        for (var g = 0u; g < HEAD_GROUPS; g++) {
            var x = mat4x4<f32>();
            x = with_weighed_queries(x, tile, w0.ds, at.head, q0.q, g);
            x = with_weighed_queries(x, tile, w1.ds, at.head, q1.q, g);
            x = with_weighed_queries(x, tile, w2.ds, at.head, q2.q, g);
            x = with_weighed_queries(x, tile, w3.ds, at.head, q3.q, g);
            own_dk[g] += x;
        }
    }
}

fn queries_of(at: Head, tile: KeyTile, c: u32) -> Queries {
    let place = tile.first + c;
    let i = vec4(key_at(at, place), key_at(at, place + 1u), key_at(at, place + 2u), key_at(at, place + 3u));
    let first = (at.batch * params.kernel.heads + at.head) * params.kernel.q_len;
    return Queries(
        vec4(row_at(params.q, at.batch, at.head, 0u)) + i * params.q.row,
        vec4(row_at(params.dout, at.batch, at.head, 0u)) + i * params.dout.row,
        i, mat4x4(records[first + i.x], records[first + i.y], records[first + i.z], records[first + i.w]));
}

fn query(head: u32, query_at: u32, g: u32) -> vec4<f32> {
    return content(head, load_q(query_at + 4u * g, HEAD_DIM - 4u * g), g);
}

fn dout_group(dout_at: u32, g: u32) -> vec4<f32> { return load_dout(dout_at + 4u * g, VALUE_DIM - 4u * g); }

fn with_queries(x: mat4x4<f32>, k: mat4x4<f32>, head: u32, at: vec4<u32>, g: u32) -> mat4x4<f32> {
    return with_products(x, k, query(head, at.x, g), query(head, at.y, g), query(head, at.z, g), query(head, at.w, g));
}

fn with_dout(y: mat4x4<f32>, v: mat4x4<f32>, at: vec4<u32>, g: u32) -> mat4x4<f32> {
    return with_products(y, v, dout_group(at.x, g), dout_group(at.y, g), dout_group(at.z, g), dout_group(at.w, g));
}

fn with_weighed_queries(x: mat4x4<f32>, tile: KeyTile, w: mat4x4<f32>, head: u32, at: vec4<u32>, g: u32) -> mat4x4<f32> {
    return with_weighed(x, w, tile, query(head, at.x, g), query(head, at.y, g), query(head, at.z, g), query(head, at.w, g));
}

fn with_weighed_dout(x: mat4x4<f32>, tile: KeyTile, w: mat4x4<f32>, at: vec4<u32>, g: u32) -> mat4x4<f32> {
    return with_weighed(x, w, tile, dout_group(at.x, g), dout_group(at.y, g), dout_group(at.z, g), dout_group(at.w, g));
}

fn weights_of(at: Head, lane: Lane, tile: KeyTile, c: u32, q: Queries, products: mat4x4<f32>, d_p: mat4x4<f32>) -> Weights {
    var a = vec4(true);
    var b = vec4(true);
    var g = vec4(true);
    var h = vec4(true);
    if (is_masked(tile)) {
        // By rows, which are keys here.
        let row = at.first_row + lane.r;
        let r0 = seen(tile, row, c);
        let r1 = seen(tile, row + LANES, c);
        let r2 = seen(tile, row + 2u * LANES, c);
        let r3 = seen(tile, row + 3u * LANES, c);
        a = vec4(r0.x, r1.x, r2.x, r3.x);
        b = vec4(r0.y, r1.y, r2.y, r3.y);
        g = vec4(r0.z, r1.z, r2.z, r3.z);
        h = vec4(r0.w, r1.w, r2.w, r3.w);
    }
    let r = q.records;
    let p0 = pull(at.batch, at.head, q.i.x, own_j, r[0], products[0], r[0].y * d_p[0], a);
    let p1 = pull(at.batch, at.head, q.i.y, own_j, r[1], products[1], r[1].y * d_p[1], b);
    let p2 = pull(at.batch, at.head, q.i.z, own_j, r[2], products[2], r[2].y * d_p[2], g);
    let p3 = pull(at.batch, at.head, q.i.w, own_j, r[3], products[3], r[3].y * d_p[3], h);
    return Weights(mat4x4(p0.p, p1.p, p2.p, p3.p), mat4x4(p0.ds, p1.ds, p2.ds, p3.ds));
}
