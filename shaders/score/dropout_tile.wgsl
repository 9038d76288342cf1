// Dropout in the forward pass: l has every weight, o those that are not dropped, and at its end the factor.

const WEIGHTS_MAY_DROP = true;

var<private> dropout_rows: Words;   // the generator's keys of the lane's 4 queries
var<private> others_dropout: Words; // and of its other 4: see tile/staged.wgsl

fn turn_dropout() {
    let own = dropout_rows;
    dropout_rows = others_dropout;
    others_dropout = own;
}

fn begin_dropout(at: Head, lane: Lane) {
    let row = at.first_row + lane.r;
    let heads = vec4(head_of(at, row), head_of(at, row + LANES_R), head_of(at, row + 2u * LANES_R), head_of(at, row + 3u * LANES_R));
    dropout_rows = dropout_keys(at.batch, heads);
}

// The weights that meet the values: 0 for those that are dropped.
fn met(at: Head, lane: Lane, tile: KeyTile, p: Scores) -> Scores {
    let key = tile.first + lane.c;
    let j = vec4(key_at(at, key), key_at(at, key + LANES_C), key_at(at, key + 2u * LANES_C), key_at(at, key + 3u * LANES_C));
    let row = at.first_row + lane.r;
    let keys = dropout_rows;
    return Scores(met_of(at, row, vec2(keys.x.x, keys.y.x), j, p.a),
                  met_of(at, row + LANES_R, vec2(keys.x.y, keys.y.y), j, p.b),
                  met_of(at, row + 2u * LANES_R, vec2(keys.x.z, keys.y.z), j, p.c),
                  met_of(at, row + 3u * LANES_R, vec2(keys.x.w, keys.y.w), j, p.d));
}

// Rows past the last repeat it, so that no index lies outside.
fn met_of(at: Head, row: u32, key: vec2<u32>, j: vec4<u32>, p: vec4<f32>) -> vec4<f32> {
    return select(vec4(0.0), p, is_met(key, query_at(at, min(row, params.kernel.q_count - 1u)), j));
}

// The factor of a row's output.
fn dropout_factor(x: f32) -> f32 { return params.dropout.factor * x; }
