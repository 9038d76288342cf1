// Each lane works alone, without workgroup memory and barriers: what a CPU wants (`product/direct.wgsl` says why).
//
// Lanes differ in their items only, so that every load of W has one address for all of them. A lane has one item, or two (lane and lane + LANES), and
// walks k in chunks of 4 CHUNK: it reads its part of h once per chunk, for all units of the tile. Then it takes 4 rows of W at a time, whose sums
// stay in registers for the chunk.

const UNITS = 4u * GROUPS;
const ITEMS = select(LANES, 2u * LANES, PAIRED);

// Of the first item, then of the second.
var<private> own_h: array<vec4<f32>, 2u * CHUNK>;
// By groups of 4 units, and as own_h.
var<private> own_sums: array<mat4x4<f32>, 2u * GROUPS>;

// Sums in the order of k.
fn multiply(at: Place, lane: u32) {
    let last = params.kernel.batch - 1u;
    let items = min(vec2(at.first_item) + vec2(lane, lane + LANES), vec2(last));
    for (var g = 0u; g < 2u * GROUPS; g++) { own_sums[g] = mat4x4<f32>(); }
    let inner = select(0u, params.kernel.hidden, has_before(at));
    for (var k = 0u; k < inner; k += 4u * CHUNK) {
        let chunk = min(CHUNK, (inner - k + 3u) / 4u);
        for (var c = 0u; c < chunk; c++) {
            own_h[c] = h_before(at, items.x, k + 4u * c);
            if (PAIRED) { own_h[CHUNK + c] = h_before(at, items.y, k + 4u * c); }
        }
        for (var g = 0u; g < GROUPS; g++) {
            let rows = rows_of(at.first_unit + 4u * g);
            add_gate(0u, g, rows, k, chunk);
            if (GATES > 1u) { add_gate(1u, g, rows, k, chunk); }
            if (GATES > 2u) { add_gate(2u, g, rows, k, chunk); }
            if (GATES > 3u) { add_gate(3u, g, rows, k, chunk); }
        }
    }
    for (var g = 0u; g < GROUPS; g++) {
        end(at, at.first_item + lane, at.first_unit + 4u * g, own_sums[g]);
        if (PAIRED) { end(at, at.first_item + lane + LANES, at.first_unit + 4u * g, own_sums[GROUPS + g]); }
    }
}

fn add_gate(gate: u32, g: u32, rows: vec4<u32>, first: u32, chunk: u32) {
    var a = own_sums[g][gate];
    var b = own_sums[GROUPS + g][gate];
    for (var c = 0u; c < chunk; c++) {
        let columns = weights_of(gate, rows, first + 4u * c);
        a = with_product(a, columns, own_h[c]);
        if (PAIRED) { b = with_product(b, columns, own_h[CHUNK + c]); }
    }
    own_sums[g][gate] = a;
    if (PAIRED) { own_sums[GROUPS + g][gate] = b; }
}
