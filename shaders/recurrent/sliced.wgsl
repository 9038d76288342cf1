// The lanes of a workgroup share the inner dimension: what a GPU wants, whose time per step is that of the longest chain of loads.
//
// Lanes are ITEMS items by SLICES slices; the groups of 4 k go round the slices, so that neighbours read one row of W side by side. Then
// the slices' sums meet in a tree.

const UNITS = 4u;

// By gate, slice, item.
var<workgroup> partial: array<vec4<f32>, GATES * LANES>;

fn multiply(at: Place, lane: u32) {
    let slice = lane / ITEMS;
    let item = at.first_item + lane % ITEMS;
    let known = min(item, params.kernel.batch - 1u);
    let inner = select(0u, params.kernel.hidden, has_before(at));
    let rows = rows_of(at.first_unit);
    var sums = mat4x4<f32>(); // a gate per column
    for (var k = 4u * slice; k < inner; k += 4u * SLICES) {
        let h = h_before(at, known, k);
        sums[0] = with_product(sums[0], weights_of(0u, rows, k), h);
        if (GATES > 1u) { sums[1] = with_product(sums[1], weights_of(1u, rows, k), h); }
        if (GATES > 2u) { sums[2] = with_product(sums[2], weights_of(2u, rows, k), h); }
        if (GATES > 3u) { sums[3] = with_product(sums[3], weights_of(3u, rows, k), h); }
    }
    put_sum(0u, lane, sums[0]);
    put_sum(1u, lane, sums[1]);
    put_sum(2u, lane, sums[2]);
    put_sum(3u, lane, sums[3]);
    for (var step = SLICES / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (slice < step) {
            for (var gate = 0u; gate < GATES; gate++) {
                put_sum(gate, lane, sum_of(gate, lane) + sum_of(gate, lane + step * ITEMS));
            }
        }
    }
    if (slice == 0u) {
        end(at, item, at.first_unit, mat4x4(sum_of(0u, lane), sum_of(1u, lane), sum_of(2u, lane), sum_of(3u, lane)));
    }
}

fn put_sum(gate: u32, lane: u32, sum: vec4<f32>) {
    if (gate < GATES) { partial[gate * LANES + lane] = sum; }
}

fn sum_of(gate: u32, lane: u32) -> vec4<f32> {
    if (gate >= GATES) { return vec4(0.0); }
    return partial[gate * LANES + lane];
}
