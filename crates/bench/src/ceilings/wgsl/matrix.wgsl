// Products of cooperative matrices, and nothing else: c <- a b + c, four independent chains a subgroup.
//
// Before this text stand the types `mat_a`, `mat_b`, `mat_c`, `SIZE` (their rows and columns) and `ROUNDS`. The elements of a
// are up, down, last, down by turns, those of b are 1: an element of c grows by SIZE a round, so that a step that is left out
// shows. Nobody but the host knows the elements, so that no step can be computed beforehand.

@group(0) @binding(0) var<uniform> given: vec4<f32>; // up, down = -up, last = up + 1, one
@group(0) @binding(1) var<storage, read_write> ends: array<f32>; // [workgroups, 4, SIZE, SIZE]

var<workgroup> plus: array<f16, SIZE * SIZE>;
var<workgroup> minus: array<f16, SIZE * SIZE>;
var<workgroup> more: array<f16, SIZE * SIZE>;
var<workgroup> ones: array<f16, SIZE * SIZE>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var e = lane; e < SIZE * SIZE; e += LANES) {
        plus[e] = f16(given.x);
        minus[e] = f16(given.y);
        more[e] = f16(given.z);
        ones[e] = f16(given.w);
    }
    workgroupBarrier();
    let up = coopLoadT<mat_a>(&plus[0], SIZE);
    let down = coopLoadT<mat_a>(&minus[0], SIZE);
    let last = coopLoadT<mat_a>(&more[0], SIZE);
    let b = coopLoadT<mat_b>(&ones[0], SIZE);
    var c0: mat_c;
    var c1: mat_c;
    var c2: mat_c;
    var c3: mat_c;
    for (var round = 0u; round < ROUNDS; round++) {
        c0 = coopMultiplyAdd(up, b, c0);
        c1 = coopMultiplyAdd(up, b, c1);
        c2 = coopMultiplyAdd(up, b, c2);
        c3 = coopMultiplyAdd(up, b, c3);
        c0 = coopMultiplyAdd(down, b, c0);
        c1 = coopMultiplyAdd(down, b, c1);
        c2 = coopMultiplyAdd(down, b, c2);
        c3 = coopMultiplyAdd(down, b, c3);
        c0 = coopMultiplyAdd(last, b, c0);
        c1 = coopMultiplyAdd(last, b, c1);
        c2 = coopMultiplyAdd(last, b, c2);
        c3 = coopMultiplyAdd(last, b, c3);
        c0 = coopMultiplyAdd(down, b, c0);
        c1 = coopMultiplyAdd(down, b, c1);
        c2 = coopMultiplyAdd(down, b, c2);
        c3 = coopMultiplyAdd(down, b, c3);
    }
    // One subgroup a workgroup: all lanes store the same.
    let at = group.x * 4u * SIZE * SIZE;
    coopStoreT(c0, &ends[at], SIZE);
    coopStoreT(c1, &ends[at + SIZE * SIZE], SIZE);
    coopStoreT(c2, &ends[at + 2u * SIZE * SIZE], SIZE);
    coopStoreT(c3, &ends[at + 3u * SIZE * SIZE], SIZE);
}
