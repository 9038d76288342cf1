// A pass whose rows are queries and whose columns are keys: dq, and the gradients of the tensors of the score's terms.

var<private> own_records: mat4x4<f32>;      // of the lane's 4 queries

fn run(batch: u32, head: u32, rows: vec2<u32>, lane: Lane) {
    let kv_head = head / params.kernel.heads_per_kv_head;
    let at = Head(batch, head, row_at(params.k, batch, kv_head, 0u), row_at(params.v, batch, kv_head, 0u), rows.x, rows.y, 0u);
    own = own_places(at, lane);
    own_records = records_of(at, own);
    begin(at, lane);
    begin_dropout(batch, head);
    walk(at, lane);
    end(at, lane);
}

fn own_head(at: Head, i: u32, g: u32) -> vec4<f32> {
    return content(at.head, load_q(row_at(params.q, at.batch, at.head, i) + 4u * g, HEAD_DIM - 4u * g), g);
}

fn own_value(at: Head, i: u32, g: u32) -> vec4<f32> {
    return load_dout(row_at(params.dout, at.batch, at.head, i) + 4u * g, VALUE_DIM - 4u * g);
}

fn column_head_at(at: Head, column: u32) -> u32 { return key_offset(at, column); }

fn column_value_at(at: Head, column: u32) -> u32 { return value_offset(at, column); }

fn column_head(at: Head, begin_at: u32, g: u32) -> vec4<f32> { return load_k(begin_at + 4u * g, HEAD_DIM - 4u * g); }

fn column_value(begin_at: u32, g: u32) -> vec4<f32> { return load_v(begin_at + 4u * g, VALUE_DIM - 4u * g); }

fn weights_of(at: Head, lane: Lane, tile: KeyTile, c: vec4<u32>, products: mat4x4<f32>, d_p: mat4x4<f32>) -> Weights {
    let s = transpose(products);
    let d = transpose(d_p);
    let j = columns_at(at, tile, c);
    let row = at.first_row + lane.r;
    let r = own_records;
    let w0 = pull(at.batch, at.head, own.x, j, r[0], s[0], d[0], attended(tile, row, c));
    let w1 = pull(at.batch, at.head, own.y, j, r[1], s[1], d[1], attended(tile, row + LANES_R, c));
    let w2 = pull(at.batch, at.head, own.z, j, r[2], s[2], d[2], attended(tile, row + 2u * LANES_R, c));
    let w3 = pull(at.batch, at.head, own.w, j, r[3], s[3], d[3], attended(tile, row + 3u * LANES_R, c));
    return Weights(transpose(mat4x4(w0.p, w1.p, w2.p, w3.p)), transpose(mat4x4(w0.ds, w1.ds, w2.ds, w3.ds)));
}

fn attended(tile: KeyTile, row: u32, c: vec4<u32>) -> vec4<bool> {
    if (is_masked(tile)) { return seen(tile, row, c); }
    return vec4(true);
}
