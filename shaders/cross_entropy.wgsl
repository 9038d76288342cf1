// Softmax cross-entropy of rows x against what is wanted of them, q, and its gradient, one workgroup per row:
//
//     p_i  = exp(x_i - m) / l          m = max x,  l = sum_j exp(x_j - m)
//     loss = - sum_i q_i ln p_i  =  ln l + sum_i q_i (m - x_i)           no term is below 0: nothing cancels
//     dx_i = factor (p_i - q_i)
//
// What is wanted is up to the provider (loss/targets.wgsl, loss/teacher.wgsl), which may scale x - m and take the entropy of q off.
//
// A NaN or +infinity makes the row NaN, as does a row of nothing but -infinity.

struct KernelParams {
    first_work: u32,        // this dispatch computes rows first_work .. end_work
    end_work: u32,
    width: u32,             // elements of a row
    x_row: u32,             // strides in elements
    out_row: u32,
    factor: f32,
}

@group(0) @binding(BINDING_loss) var<storage, read_write> loss: array<f32>;       // [rows]

// Sums over a row: of exp(x - m), and of q (m - x).
struct Sums { weights: f32, gaps: f32 }

@compute @workgroup_size(LANES)
fn cross_entropy(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let row = params.kernel.first_work + group.y * groups.x + group.x;
    if (row >= params.kernel.end_work) { return; }
    let wanted = wanted_of(lane, row);
    if (is_left_out(wanted)) {
        leave_out(lane, row);
        return;
    }
    let x_at = row * params.kernel.x_row;
    let m = max_over_lanes(lane, max_of_x(x_at, lane, params.kernel.width));
    let own = own_sums(x_at, lane, m, wanted);
    var l = sum_over_lanes(lane, own.weights);
    let gaps = sum_over_lanes(lane, own.gaps);
    // A number has at least its maximum's weight of 1.
    if (bitcast<u32>(l) == 0u || is_nothing(wanted)) { l = nan_of(bitcast<u32>(l)); }
    if (lane == 0u) { loss[row] = or_nan(vec4(l), vec4(loss_of(wanted, l, gaps))).x; }
    if (HAS_GRADIENT) {
        // Each lane writes the elements that it has read, and no others: x may be where the gradient goes.
        for (var c = 4u * lane; c < params.kernel.width; c += 4u * LANES) {
            let count = params.kernel.width - c;
            let p = exps(scaled(load_x(x_at + c, count) - m)) / l;
            store_out(row * params.kernel.out_row + c, count, (p - weights_wanted(wanted, c)) * params.kernel.factor);
        }
    }
}

// A row that does not count, whatever it holds.
fn leave_out(lane: u32, row: u32) {
    if (lane == 0u) { loss[row] = 0.0; }
    if (HAS_GRADIENT) {
        for (var c = 4u * lane; c < params.kernel.width; c += 4u * LANES) {
            store_out(row * params.kernel.out_row + c, params.kernel.width - c, vec4(0.0));
        }
    }
}

// The lane's share of both sums.
fn own_sums(x_at: u32, lane: u32, m: f32, wanted: Wanted) -> Sums {
    var weights = vec4(0.0);
    var gaps = vec4(0.0);
    for (var first = 4u * lane; first < params.kernel.width; first += BLOCK) {
        var block_weights = vec4(0.0);
        var block_gaps = vec4(0.0);
        for (var c = first; c < min(first + BLOCK, params.kernel.width); c += 4u * LANES) {
            let count = params.kernel.width - c;
            let d = scaled(load_x(x_at + c, count) - m);
            // NaN here is NaN in the sum, and so in the whole row. (inf - inf is one.)
            block_weights += select(vec4(0.0), or_nan(d, exps(d)), inside(count));
            // An infinite gap does not count where nothing is wanted.
            let q = weights_wanted(wanted, c);
            block_gaps -= select(vec4(0.0), q * beyond(wanted, c, d), inside(count) & (q > vec4(0.0)));
        }
        weights += block_weights;
        gaps += block_gaps;
    }
    return Sums(sum4(weights), sum4(gaps));
}
