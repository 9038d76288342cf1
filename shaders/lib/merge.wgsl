// The end of a row: its place, and its weight against what earlier parts left of it.
//
// Disjoint sets of keys merge by their maxima and sums, which stay apart: ln(l) + m would lose l behind a huge m.

// What is written of a row: where, its state over all parts so far, and how its output weighs against the earlier parts'.
struct RowEnd { inside: bool, stat: u32, out_at: u32, m: f32, l: f32, new_weight: f32, old_weight: f32 }

fn row_end(at: Head, row: u32, row_m: f32, row_l: f32) -> RowEnd {
    if (row >= at.end_row) { return RowEnd(); }
    let i = query_at(at, row);
    let head = head_of(at, row);
    // Splits leave their results beside each other, like so many batches.
    let batch = at.split * params.kernel.batch + at.batch;
    let stat = (batch * params.kernel.heads + head) * params.kernel.q_len + i;
    var all_m = row_m;
    var all_l = row_l;
    var old_weight = 0.0;
    var new_weight = 1.0;
    if (ACCUMULATE) {
        let old = earlier(stat);
        all_m = max(row_m, old.x);
        old_weight = old.y * shrink(old.x, all_m);
        new_weight = shrink(row_m, all_m);
        all_l = fma(row_l, new_weight, old_weight);
    }
    // An empty row is exactly 0.
    let factor = select(1.0 / all_l, 0.0, is_zero(all_l));
    return RowEnd(true, stat, row_at(params.out, batch, head, i), all_m, all_l, dropout_factor(factor) * new_weight, factor * old_weight);
}

// A split without keys: no state, and rows of 0, for what is left there from an earlier call may be anything. What earlier parts
// of this one left would stay as it is.
fn leave_nothing(at: Head, lane: Lane) {
    if (ACCUMULATE) { return; }
    for (var n = lane.index; n < ROWS * VALUE_GROUPS; n += LANES) {
        let end = row_end(at, at.first_row + n / VALUE_GROUPS, DROPPED, 0.0);
        write_group(end, n % VALUE_GROUPS, vec4(0.0));
        if (n % VALUE_GROUPS == 0u) { write_stats(end); }
    }
}

fn write_group(end: RowEnd, group: u32, o: vec4<f32>) {
    if (!end.inside || group >= VALUE_GROUPS) { return; }
    let to = end.out_at + 4u * group;
    let count = VALUE_DIM - 4u * group;
    var x = o * end.new_weight;
    if (ACCUMULATE) { x = fma(load_out(to, count), vec4(end.old_weight), x); }
    store_out(to, count, x);
}
