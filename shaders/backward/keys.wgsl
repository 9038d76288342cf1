// The pass whose rows are keys and whose columns are queries: dk_j = scale sum_i f_ij ds_ij q_i (with relative rows q_i + u) and
// dv_j = sum_i e_ij / l_i do_i, the sums over the queries of all heads that read the key head. The mask is transposed: what `keep`
// calls a query is a key here, and the other way round.

fn item_of(work: u32) -> vec3<u32> { return item_in_order(work, key_head_items()); }

// The n-th key head.
fn run(batch: u32, n: u32, rows: vec2<u32>, lane: Lane) {
    let heads = heads_of_key_head(n);
    let first = nth_head(heads.x);
    let kv_head = first / params.kernel.heads_per_kv_head;
    let at = Head(batch, first, row_at(params.k, batch, kv_head, 0u), row_at(params.v, batch, kv_head, 0u), rows.x, rows.y, 0u);
    own = own_places(at, lane);
    begin(at, lane);
    for (var place = heads.x; place < heads.y; place++) {
        let head = nth_head(place);
        begin_dropout(batch, head);
        walk(Head(at.batch, head, at.k_at, at.v_at, at.first_row, at.end_row, 0u), lane);
    }
    end(at, lane);
}

fn own_head(at: Head, j: u32, g: u32) -> vec4<f32> { return load_k(at.k_at + j * params.k.row + 4u * g, HEAD_DIM - 4u * g); }

fn own_value(at: Head, j: u32, g: u32) -> vec4<f32> { return load_v(at.v_at + j * params.v.row + 4u * g, VALUE_DIM - 4u * g); }

fn column_head_at(at: Head, column: u32) -> u32 { return row_at(params.q, at.batch, at.head, key_at(at, column)); }

fn column_value_at(at: Head, column: u32) -> u32 { return row_at(params.dout, at.batch, at.head, key_at(at, column)); }

fn column_head(at: Head, begin_at: u32, g: u32) -> vec4<f32> { return content(at.head, load_q(begin_at + 4u * g, HEAD_DIM - 4u * g), g); }

fn column_value(begin_at: u32, g: u32) -> vec4<f32> { return load_dout(begin_at + 4u * g, VALUE_DIM - 4u * g); }

fn weights_of(at: Head, lane: Lane, tile: KeyTile, c: vec4<u32>, products: mat4x4<f32>, d_p: mat4x4<f32>) -> Weights {
    var a = vec4(true);
    var b = vec4(true);
    var g = vec4(true);
    var h = vec4(true);
    if (is_masked(tile)) {
        // By rows, which are keys here.
        let row = at.first_row + lane.r;
        let r0 = seen(tile, row, c);
        let r1 = seen(tile, row + LANES_R, c);
        let r2 = seen(tile, row + 2u * LANES_R, c);
        let r3 = seen(tile, row + 3u * LANES_R, c);
        a = vec4(r0.x, r1.x, r2.x, r3.x);
        b = vec4(r0.y, r1.y, r2.y, r3.y);
        g = vec4(r0.z, r1.z, r2.z, r3.z);
        h = vec4(r0.w, r1.w, r2.w, r3.w);
    }
    let i = columns_at(at, tile, c);
    let r = records_of(at, i);
    let w0 = pull(at.batch, at.head, i.x, own, r[0], products[0], d_p[0], a);
    let w1 = pull(at.batch, at.head, i.y, own, r[1], products[1], d_p[1], b);
    let w2 = pull(at.batch, at.head, i.z, own, r[2], products[2], d_p[2], g);
    let w3 = pull(at.batch, at.head, i.w, own, r[3], products[3], d_p[3], h);
    return Weights(mat4x4(w0.p, w1.p, w2.p, w3.p), mat4x4(w0.ds, w1.ds, w2.ds, w3.ds));
}
