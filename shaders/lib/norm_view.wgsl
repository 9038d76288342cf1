// A row as norms see it: less its mean, scaled where its squares would leave f32. Needs `params.width`, `params.eps`, CENTERED and `load_x`.

// How an element is seen: (x scale - mean) - rest. `variance` is that of the row so seen, with eps. `nothing` is 0, which the
// compiler does not know: it would add mean and rest, and lose the rest. `most`: the bits of the row's largest magnitude where that is a
// NaN or an infinity, else 0.
struct View { scale: f32, mean: f32, rest: f32, variance: f32, nothing: u32, most: u32 }

// Bits of 2^-96 and 2^120: between them no square that counts has been lost.
const LEAST = 0x0f800000u;
const MOST = 0x7b800000u;

fn view_of(x_at: u32, lane: u32) -> View {
    var view = View(1.0, 0.0, 0.0, 0.0, 0u, 0u);
    if (CENTERED) { view.mean = mean_of(x_at, lane, view); }
    view.variance = mean_of_squares(x_at, lane, view) + params.eps;
    if (!is_ordinary(view)) {
        let most = largest_over_lanes(lane, own_largest(x_at, lane));
        if (most >= INFINITY) { return View(1.0, 0.0, 0.0, 0.0, 0u, most); }
        view = carefully(x_at, lane, most);
    }
    return view;
}

// A NaN or an infinity: the row's mean is none.
fn is_none(view: View) -> bool { return view.most >= INFINITY; }

fn seen(view: View, x: vec4<f32>) -> vec4<f32> {
    let centred = bitcast<vec4<u32>>(fma(x, vec4(view.scale), vec4(-view.mean)));
    return bitcast<vec4<f32>>(centred | vec4(view.nothing)) - view.rest;
}

// NaN is outside, too: in integers. A mean of at most 4 spreads has an error that is small beside the spread.
fn is_ordinary(view: View) -> bool {
    let inside = bitcast<u32>(view.variance) - LEAST <= MOST - LEAST;
    return inside && (!CENTERED || abs(view.mean) <= 4.0 * sqrt(view.variance));
}

// Scaled by a power of two, so that neither the largest element's square nor eps leaves f32; the mean corrected by the mean of
// what is left, twice: a row of one value then has no spread at all, and `rest` is what no f32 near the mean can say.
fn carefully(x_at: u32, lane: u32, most: u32) -> View {
    let root = (bitcast<u32>(params.eps) >> 23u) / 2u + 64u; // the exponent of sqrt(eps), or one more
    let scale = bitcast<f32>((264u - max(most >> 23u, root)) << 23u); // to 2^10 .. 2^12
    var view = View(scale, 0.0, 0.0, 0.0, most >> 31u, 0u);
    if (CENTERED) {
        view.mean = mean_of(x_at, lane, view);
        view.mean += mean_of(x_at, lane, view);
        view.rest = mean_of(x_at, lane, view);
    }
    let eps = params.eps * scale * scale;
    // Where eps vanishes beside the largest element, a row without spread still has a finite factor.
    view.variance = max(mean_of_squares(x_at, lane, view) + eps, 0x1p-126f);
    return view;
}

fn mean_of(x_at: u32, lane: u32, view: View) -> f32 {
    return sum_over_lanes(lane, own_sum(x_at, lane, view)) / f32(params.width);
}

fn mean_of_squares(x_at: u32, lane: u32, view: View) -> f32 {
    return sum_over_lanes(lane, own_squares(x_at, lane, view)) / f32(params.width);
}

// The lane's share of the sum of what is seen.
fn own_sum(x_at: u32, lane: u32, view: View) -> f32 {
    var sum = vec4(0.0);
    for (var first = 4u * lane; first < params.width; first += BLOCK) {
        var part = vec4(0.0);
        for (var c = first; c < min(first + BLOCK, params.width); c += 4u * LANES) {
            let count = params.width - c;
            part += select(vec4(0.0), seen(view, load_x(x_at + c, count)), inside(count));
        }
        sum += part;
    }
    return sum4(sum);
}

// The lane's share of the sum of its squares.
fn own_squares(x_at: u32, lane: u32, view: View) -> f32 {
    var sum = vec4(0.0);
    for (var first = 4u * lane; first < params.width; first += BLOCK) {
        var part = vec4(0.0);
        for (var c = first; c < min(first + BLOCK, params.width); c += 4u * LANES) {
            let count = params.width - c;
            let d = select(vec4(0.0), seen(view, load_x(x_at + c, count)), inside(count));
            part = fma(d, d, part);
        }
        sum += part;
    }
    return sum4(sum);
}

// Bits of the lane's largest |x|; those of a NaN are larger than all.
fn own_largest(x_at: u32, lane: u32) -> u32 {
    var most = vec4(0u);
    for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
        most = max(most, magnitude(load_x(x_at + c, params.width - c)));
    }
    return max(max(most.x, most.y), max(most.z, most.w));
}
