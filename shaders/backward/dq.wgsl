// What becomes of the derivatives of a tile: dq_i = scale sum_j f_ij ds_ij k_j, with relative rows k_j + r.

var<private> own_dq: array<mat4x4<f32>, HEAD_GROUPS>;

fn item_of(work: u32) -> vec3<u32> { return item_in_order(work, params.kernel.heads); }

fn begin(at: Head, lane: Lane) {
    for (var g = 0u; g < HEAD_GROUPS; g++) { own_dq[g] = mat4x4<f32>(); }
}

fn take(at: Head, lane: Lane, tile: KeyTile, ds: Slopes) {
    let k0 = keys_of(at, tile, 0u);
    let k1 = keys_of(at, tile, 4u);
    let k2 = keys_of(at, tile, 8u);
    let k3 = keys_of(at, tile, 12u);
    weigh_rows(ds.a, 0u);
    weigh_rows(ds.b, 4u);
    weigh_rows(ds.c, 8u);
    weigh_rows(ds.d, 12u);
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        // A sum of the tile by itself, then added: a chain of additions as long as the row would lose digits.
        var x = mat4x4<f32>();
        x = with_weighed(x, ds.a, tile, key(k0.x, g), key(k0.y, g), key(k0.z, g), key(k0.w, g));
        x = with_weighed(x, ds.b, tile, key(k1.x, g), key(k1.y, g), key(k1.z, g), key(k1.w, g));
        x = with_weighed(x, ds.c, tile, key(k2.x, g), key(k2.y, g), key(k2.z, g), key(k2.w, g));
        x = with_weighed(x, ds.d, tile, key(k3.x, g), key(k3.y, g), key(k3.z, g), key(k3.w, g));
        x = with_weighed_rows(x, at, tile, own_i, g);
        own_dq[g] += x;
    }
}

fn end(at: Head, lane: Lane) {
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let dq = transpose(own_dq[g]);
        write(at, lane, 0u, g, dq[0]);
        write(at, lane, 1u, g, dq[1]);
        write(at, lane, 2u, g, dq[2]);
        write(at, lane, 3u, g, dq[3]);
    }
}

fn write(at: Head, lane: Lane, t: u32, g: u32, dq: vec4<f32>) {
    if (at.first_row + lane.r + t * LANES >= at.end_row) { return; }
    let to = row_at(params.dq, at.batch, at.head, own_i[t]) + 4u * g;
    let count = HEAD_DIM - 4u * g;
    var x = params.kernel.scale * dq;
    if (ACCUMULATE) { x += load_dq(to, count); }
    store_dq(to, count, x);
}
