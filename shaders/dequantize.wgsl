// The numbers that a tensor of integers stands for: 4 elements of a row per lane.

struct Params {
    first_work: u32,        // this dispatch computes groups of LANES lanes first_work .. end_work
    end_work: u32,
    rows: u32,
    inner: u32,             // elements of a row
    b_row: u32,             // words of a row
}

@group(0) @binding(0) var<uniform> params: Params;

const LANES = 64u;

@compute @workgroup_size(LANES)
fn dequantize(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    if (work >= params.end_work) { return; }
    let fours = (params.inner + 3u) / 4u;
    let n = work * LANES + lane;
    let row = n / fours;
    if (row >= params.rows) { return; }
    let k = 4u * (n % fours);
    let count = params.inner - k;
    store_out(row * params.inner + k, count, b_along_k(0u, row, k, count));
}
