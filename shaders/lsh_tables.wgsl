// Tables that the attention over sorted places reads beside the order: what keep/lsh.wgsl and score/lsh.wgsl look up.
// One lane a place.
//
//     tables = [ order | bucket of each place | place of each round and position ]        each [B, H, R, L]
//
// A place counts from the head's first, over all rounds: round L + rank.

struct Params {
    first_work: u32,        // this dispatch computes work items first_work .. end_work, 256 places each
    end_work: u32,
    len: u32,               // L
    places: u32,            // R L
    total: u32,             // B H R L
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(BINDING_order) var<storage, read> order: array<u32>;             // [B, H, R, L]
@group(0) @binding(BINDING_buckets) var<storage, read> buckets: array<u32>;           // [B, H, R, L]
@group(0) @binding(BINDING_tables) var<storage, read_write> tables: array<u32>;      // [3, B, H, R, L]

@compute @workgroup_size(256)
fn lsh_tables(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    let n = work * 256u + lane;
    if (work >= params.end_work || n >= params.total) { return; }
    let position = order[n];
    let round_at = n - n % params.len;
    tables[n] = position;
    tables[params.total + n] = buckets[round_at + position];
    tables[2u * params.total + round_at + position] = n % params.places;
}
