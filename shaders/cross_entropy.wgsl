// Softmax cross-entropy of rows x against their targets t, and its gradient, one workgroup per row:
//
//     p_i  = exp(x_i - m) / l          m = max x,  l = sum_j exp(x_j - m)
//     q_i  = at_target [i = t] + at_all                                  label smoothing (Szegedy 2016, section 7)
//     loss = - sum_i q_i ln p_i  =  ln l + sum_i q_i (m - x_i)           no term is below 0: nothing cancels
//     dx_i = factor (p_i - q_i)
//
// A NaN or +infinity makes the row NaN, as does a row of nothing but -infinity, or a target past the row's end.

struct Params {
    first_work: u32,        // this dispatch computes rows first_work .. end_work
    end_work: u32,
    width: u32,             // elements of a row
    x_row: u32,             // strides in elements
    out_row: u32,
    may_ignore: u32,        // whether rows of target `ignored` are left out
    ignored: u32,
    at_target: f32,
    at_all: f32,
    factor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(BINDING_targets) var<storage, read> targets: array<u32>;       // [rows]
@group(0) @binding(BINDING_loss) var<storage, read_write> loss: array<f32>;       // [rows]

var<workgroup> row_target: array<u32, 1>;

// Sums over a row: of exp(x - m), and of q (m - x).
struct Sums { weights: f32, gaps: f32 }

@compute @workgroup_size(LANES)
fn cross_entropy(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let row = params.first_work + group.y * groups.x + group.x;
    if (row >= params.end_work) { return; }
    let t = target_of(lane, row);
    if (params.may_ignore != 0u && t == params.ignored) {
        leave_out(lane, row);
        return;
    }
    let x_at = row * params.x_row;
    let m = max_over_lanes(lane, own_max(x_at, lane));
    let own = own_sums(x_at, lane, m, t);
    var l = sum_over_lanes(lane, own.weights);
    let gaps = sum_over_lanes(lane, own.gaps);
    // A number has at least its maximum's weight of 1.
    if (bitcast<u32>(l) == 0u || t >= params.width) { l = nan_of(bitcast<u32>(l)); }
    if (lane == 0u) { loss[row] = or_nan(vec4(l), vec4(log(l) + gaps)).x; }
    if (HAS_GRADIENT) {
        // Each lane writes the elements that it has read, and no others: x may be where the gradient goes.
        for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
            let count = params.width - c;
            let p = exps(load_x(x_at + c, count) - m) / l;
            store_out(row * params.out_row + c, count, (p - target_weights(t, c)) * params.factor);
        }
    }
}

// The same for all lanes, so that all of them may stay away from a barrier.
fn target_of(lane: u32, row: u32) -> u32 {
    if (lane == 0u) { row_target[0] = targets[row]; }
    return workgroupUniformLoad(&row_target[0]);
}

// A row that does not count, whatever it holds.
fn leave_out(lane: u32, row: u32) {
    if (lane == 0u) { loss[row] = 0.0; }
    if (HAS_GRADIENT) {
        for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
            store_out(row * params.out_row + c, params.width - c, vec4(0.0));
        }
    }
}

// q of 4 elements from c on.
fn target_weights(t: u32, c: u32) -> vec4<f32> {
    return select(vec4(0.0), vec4(params.at_target), vec4(c) + vec4(0u, 1u, 2u, 3u) == vec4(t)) + params.at_all;
}

// The lane's share of both sums.
fn own_sums(x_at: u32, lane: u32, m: f32, t: u32) -> Sums {
    var weights = vec4(0.0);
    var gaps = vec4(0.0);
    for (var first = 4u * lane; first < params.width; first += BLOCK) {
        var block_weights = vec4(0.0);
        var block_gaps = vec4(0.0);
        for (var c = first; c < min(first + BLOCK, params.width); c += 4u * LANES) {
            let count = params.width - c;
            let d = load_x(x_at + c, count) - m;
            // NaN here is NaN in the sum, and so in the whole row. (inf - inf is one.)
            block_weights += select(vec4(0.0), or_nan(d, exps(d)), inside(count));
            // An infinite gap does not count where nothing is wanted.
            let q = target_weights(t, c);
            block_gaps -= select(vec4(0.0), q * d, inside(count) & (q > vec4(0.0)));
        }
        weights += block_weights;
        gaps += block_gaps;
    }
    return Sums(sum4(weights), sum4(gaps));
}
