// What a teacher's row y wants, at a temperature T (Hinton 2015): q = softmax(y / T), p = softmax(x / T), and the loss is T^2 KL(q, p), so that
// its gradient, T (p - q), is of one size at all temperatures. With l of x and k of y, each the sum of exponentials, and both gaps divided by T,
//
//     KL = sum_i q_i (ln q_i - ln p_i)  =  ln(l / k) + sum_i q_i ((m - x_i) - (n - y_i))           n = max y
//
// A row of y with a NaN or +infinity, or of nothing but -infinity, makes the row NaN.

struct WantedParams {
    teacher_row: u32,       // from row to row
    scale: f32,             // 1 / T
    weight: f32,            // T^2
}

struct Wanted { at: u32, top: f32, sum: f32 }

fn wanted_of(lane: u32, row: u32) -> Wanted {
    let at = row * params.wanted.teacher_row;
    let top = max_over_lanes(lane, max_of_teacher(at, lane, params.kernel.width));
    var sum = sum_over_lanes(lane, own_weights(at, lane, top));
    if (bitcast<u32>(sum) == 0u) { sum = nan_of(bitcast<u32>(sum)); }
    return Wanted(at, top, sum);
}

fn is_left_out(wanted: Wanted) -> bool { return false; }

fn is_nothing(wanted: Wanted) -> bool { return magnitude(vec4(wanted.sum)).x > INFINITY; }

fn scaled(d: vec4<f32>) -> vec4<f32> { return d * params.wanted.scale; }

fn teacher_gap(wanted: Wanted, c: u32) -> vec4<f32> {
    return scaled(load_teacher(wanted.at + c, params.kernel.width - c) - wanted.top);
}

fn weights_wanted(wanted: Wanted, c: u32) -> vec4<f32> { return exps(teacher_gap(wanted, c)) / wanted.sum; }

fn beyond(wanted: Wanted, c: u32, d: vec4<f32>) -> vec4<f32> { return d - teacher_gap(wanted, c); }

fn loss_of(wanted: Wanted, l: f32, gaps: f32) -> f32 { return params.wanted.weight * (log(l / wanted.sum) + gaps); }

// The lane's share of the sum of y's exponentials.
fn own_weights(at: u32, lane: u32, top: f32) -> f32 {
    var sum = vec4(0.0);
    for (var first = 4u * lane; first < params.kernel.width; first += BLOCK) {
        var part = vec4(0.0);
        for (var c = first; c < min(first + BLOCK, params.kernel.width); c += 4u * LANES) {
            let count = params.kernel.width - c;
            let d = scaled(load_teacher(at + c, count) - top);
            part += select(vec4(0.0), or_nan(d, exps(d)), inside(count));
        }
        sum += part;
    }
    return sum4(sum);
}
