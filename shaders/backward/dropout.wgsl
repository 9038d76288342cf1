// Dropout: of a pair that is kept, weight and do . v with the factor; of one that is dropped, neither.

var<private> dropout_head: vec2<u32>;       // the generator's key of the query head

fn begin_dropout(batch: u32, head: u32) {
    let keys = dropout_keys(batch, vec4(head));
    dropout_head = vec2(keys.x.x, keys.y.x);
}

// `mark` is NaN where something of the query is not finite: then all that it attends says so.
fn met_by(i: u32, j: vec4<u32>, e: vec4<f32>, d_p: vec4<f32>, mark: f32) -> Met {
    let is_kept = is_met(dropout_head, i, j);
    return Met(select(vec4(mark), params.dropout.factor * e, is_kept), select(vec4(0.0), params.dropout.factor * d_p, is_kept));
}
