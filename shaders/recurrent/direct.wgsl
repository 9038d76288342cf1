// Each lane works alone, without workgroup memory and barriers: what a CPU wants (`product/direct.wgsl` says why).
//
// Lanes differ in their items only, so that every load of W has one address for all of them. A lane walks k in chunks of 4 CHUNK: it reads its
// part of h once per chunk, for all units of the tile.

const ITEMS = LANES;
const UNITS = 4u * GROUPS;

var<private> own_h: array<vec4<f32>, CHUNK>;
// By groups of 4 units.
var<private> own_sums: array<mat4x4<f32>, GROUPS>;

// Sums in the order of k.
fn multiply(at: Place, lane: u32) {
    let item = min(at.first_item + lane, params.kernel.batch - 1u);
    for (var g = 0u; g < GROUPS; g++) { own_sums[g] = mat4x4<f32>(); }
    let inner = select(0u, params.kernel.hidden, has_before(at));
    for (var k = 0u; k < inner; k += 4u * CHUNK) {
        let chunk = min(CHUNK, (inner - k + 3u) / 4u);
        for (var c = 0u; c < chunk; c++) { own_h[c] = h_before(at, item, k + 4u * c); }
        for (var g = 0u; g < GROUPS; g++) {
            var sums = own_sums[g];
            for (var c = 0u; c < chunk; c++) {
                sums = with_products(sums, own_h[c], at.first_unit + 4u * g, k + 4u * c);
            }
            own_sums[g] = sums;
        }
    }
    for (var g = 0u; g < GROUPS; g++) { end(at, at.first_item + lane, at.first_unit + 4u * g, own_sums[g]); }
}
