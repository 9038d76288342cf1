// The lanes of a workgroup share the inner dimension: what a GPU wants, whose time per step is that of the longest chain of loads.
//
// Lanes are ITEMS items by SLICES slices; the groups of 4 k go round the slices, so that neighbours read one row of W side by side. Then
// the slices' sums meet in a tree.

const UNITS = 4u;

// By slice, then item.
var<workgroup> partial: array<mat4x4<f32>, LANES>;

fn multiply(at: Place, lane: u32) {
    let slice = lane / ITEMS;
    let item = at.first_item + lane % ITEMS;
    let known = min(item, params.kernel.batch - 1u);
    let inner = select(0u, params.kernel.hidden, has_before(at));
    var sums = mat4x4<f32>();
    for (var k = 4u * slice; k < inner; k += 4u * SLICES) {
        sums = with_products(sums, h_before(at, known, k), at.first_unit, k);
    }
    partial[lane] = sums;
    for (var step = SLICES / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (slice < step) { partial[lane] = partial[lane] + partial[lane + step * ITEMS]; }
    }
    if (slice == 0u) { end(at, item, at.first_unit, partial[lane]); }
}
