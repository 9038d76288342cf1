// Product of bytes, whose sums are exact in i32:
//
//     sum_mn = sum_k (a_mk - za_m) (b_nk - zb_n)  =  sum a b - za sum b - zb sum a + K za zb
//
// Words are multiplied 4 by 4 as signed bytes: unsigned ones are taken less 128, and so are their zero points. All of it is modulo
// 2^32, and the host has seen to it that the sum is within i32. What becomes of it is up to the provider (integers/*.wgsl): `finish`.

struct Params {
    first_work: u32,        // this dispatch computes tiles first_work .. end_work
    end_work: u32,
    row_tiles: u32,         // tiles along the rows
    rows: u32,              // M
    inner: u32,             // K
    columns: u32,           // N
    row_words: u32,         // words of a row of A, and of B
    last_mask: u32,         // bits of the last word that are elements
    out_factor: f32,        // 1 / the scale of out
    out_zero_point: i32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(BINDING_a) var<storage, read> a: array<u32>;
@group(0) @binding(BINDING_b) var<storage, read> b: array<u32>;

const LANES_R = 8u;
const LANES_C = 8u;
const ONES = 0x01010101u;
const FLIP = 0x80808080u;       // a byte less 128

// Where the 4 rows and 4 columns of a lane begin.
struct Place { row: u32, column: u32 }

@compute @workgroup_size(64)
fn integer_matmul(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) index: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    if (work >= params.end_work) { return; }
    let place = Place(4u * (work % params.row_tiles * LANES_R + index / LANES_C),
                      4u * (work / params.row_tiles * LANES_C + index % LANES_C));
    if (place.row >= params.rows || place.column >= params.columns) { return; }
    var sums: array<vec4<i32>, 4>;
    var of_a = vec4(0);
    var of_b = vec4(0);
    for (var w = 0u; w < params.row_words; w++) {
        let mask = select(0xffffffffu, params.last_mask, w + 1u == params.row_words);
        let a_words = four_a(place.row, w, mask);
        let b_words = four_b(place.column, w, mask);
        sums[0] += dots(a_words.x, b_words);
        sums[1] += dots(a_words.y, b_words);
        sums[2] += dots(a_words.z, b_words);
        sums[3] += dots(a_words.w, b_words);
        of_a += dots(ONES, a_words);
        of_b += dots(ONES, b_words);
    }
    let zb = vec4(zero_point_b(place.column), zero_point_b(place.column + 1u), zero_point_b(place.column + 2u),
                  zero_point_b(place.column + 3u));
    for (var n = 0u; n < 4u; n++) {
        let row = place.row + n;
        if (row >= params.rows) { break; }
        let za = zero_point_a(row);
        finish(row, place.column, sums[n] - za * of_b - of_a[n] * zb + i32(params.inner) * za * zb);
    }
}

// Word w of 4 rows; those past the last row are that row again.
fn four_a(row: u32, w: u32, mask: u32) -> vec4<u32> {
    let at = min(vec4(row) + vec4(0u, 1u, 2u, 3u), vec4(params.rows - 1u)) * params.row_words + w;
    return (vec4(a[at.x], a[at.y], a[at.z], a[at.w]) ^ vec4(select(FLIP, 0u, SIGNED_a))) & vec4(mask);
}

fn four_b(column: u32, w: u32, mask: u32) -> vec4<u32> {
    let at = min(vec4(column) + vec4(0u, 1u, 2u, 3u), vec4(params.columns - 1u)) * params.row_words + w;
    return (vec4(b[at.x], b[at.y], b[at.z], b[at.w]) ^ vec4(select(FLIP, 0u, SIGNED_b))) & vec4(mask);
}

fn dots(x: u32, y: vec4<u32>) -> vec4<i32> {
    return vec4(dot4I8Packed(x, y.x), dot4I8Packed(x, y.y), dot4I8Packed(x, y.z), dot4I8Packed(x, y.w));
}

// Of a row, less 128 as its elements are.
fn zero_point_a(row: u32) -> i32 {
    return zero_point_of_a(select(0u, row, ROWS_OF_a)) - select(128, 0, SIGNED_a);
}

fn zero_point_b(column: u32) -> i32 {
    return zero_point_of_b(select(0u, min(column, params.columns - 1u), ROWS_OF_b)) - select(128, 0, SIGNED_b);
}
