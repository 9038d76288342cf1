//! Faults of linear attention: of features, chunks, their scan, rows; of what Linformer takes from other kernels.

wgpu_attention_testing::mutants! {
    "means" {
        "the last key of a chunk is not in its state": "for (var j = first; j < end; j++) {\n        let place" => "for (var j = first; j + 1u < end; j++) {\n        let place";
        "a chunk is left its own sum, too": "states[of_chunk * params.kernel.width + e] = total;" => "states[of_chunk * params.kernel.width + e] = total + own;";
        "a chunk forgets those before the last": "total = fma(own, vec4(weight(own_top, top)), total * weight(aged, top));" => "total = own * weight(own_top, top);";
        "without causal the first chunk is all": "if (!CAUSAL && inside) {" => "if (false) {";
        "a query does not see its own key": "log, (distance >= vec2(0))" => "log, (distance > vec2(0))";
        "causal is aligned at the start": "let distance = at.p - vec2(i32(at.first + j));" => "let distance = at.p - vec2(params.kernel.shift) - vec2(i32(at.first + j));";
        "masked keys are seen": "return key_mask[key] == 0u;" => "return false;";
        "batch items share the first one's mask": "is_hidden(batch * params.kernel.len + row)" => "is_hidden(row)";
        "query heads read the key head of their own number": "let kv_head = head / params.kernel.heads_per_kv_head * params.kernel.kv_heads_per_head + params.kernel.nth_kv_head;" => "let kv_head = (head + params.kernel.nth_kv_head) % kv_heads;";
        "the second batch item's states are the first's": "let kv_line = batch * kv_heads + kv_head;" => "let kv_line = kv_head;";
        "a lane's second query is its first": "vec2(0, i32(LANES))" => "vec2(0, 0)";
        "rows without keys are divided by 0": "vec4(end.x == 0.0)" => "vec4(false)";
    }
    "single keys" {
        "the products of the last features are lost": "product(wa.w, a, k3)" => "product(wa.w, a, k2)";
        "columns past 16 are the first": "let c = vec4(4u * column_tile) + vec4(0u, 1u, 2u, 3u);" => "let c = vec4(0u, 1u, 2u, 3u);";
    }
    "favor" {
        "features past 4 groups are the first": "let g = min(vec4(f) + vec4(0u, 1u, 2u, 3u)" => "let g = min(vec4(0u, 1u, 2u, 3u)";
        "the sum of features is that of the next": "states[at.state + f * (VALUE_GROUPS + 1u) + VALUE_GROUPS].x" => "states[at.state + (f ^ 1u) * (VALUE_GROUPS + 1u) + VALUE_GROUPS].x";
        "features are not stabilised": "return exp(max(y - top, vec4(-100.0))) + params.kernel.feature_eps;" => "return exp(y) + params.kernel.feature_eps;";
        "keys' weights forget their length": "return top - half;" => "return top;";
        "eps is forgotten": "exp(max(y - top, vec4(-100.0))) + params.kernel.feature_eps" => "exp(max(y - top, vec4(-100.0)))";
        "the projection is not scaled": "return y * params.kernel.scale;" => "return y;";
        "the projection's last row is the one before": "at.w + 4u * c, count)" => "at.z + 4u * c, count)";
        "states are not rescaled when the top rises": "total * weight(aged, top)" => "total";
        "a state is not rescaled for its query": "let of_state = vec2(weight(log.x, top.x), weight(log.y, top.y));" => "let of_state = vec2(1.0);";
    }
    "retention" {
        "chunks do not age": "let aged = older(top, kv_head, min(CHUNK, params.kernel.kv_len - chunk * CHUNK));" => "let aged = top;";
        "all heads decay as the first": "fma(decays[kv_head]," => "fma(decays[0],";
        "a state is one step too young": "max(at.p - vec2(i32(at.first)) + vec2(1), vec2(0))" => "max(at.p - vec2(i32(at.first)), vec2(0))";
        "elu is not moved up": "y + 1.0, y > vec4(0.0)" => "y, y > vec4(0.0)";
        "the denominator's eps is forgotten": "fma(vec2(params.kernel.denominator_eps), q_sum," => "fma(vec2(0.0), q_sum,";
    }
    "published" {
        "the largest y is that of the first keys": "let tile = work / params.kernel.columns % params.kernel.tiles;" => "let tile = 0u;";
        "a key's length is forgotten": "y - half - top" => "y - top";
    }
    "relu" {
        "below 0 is not 0": "select(vec4(0.0), y, y > vec4(0.0))" => "y";
    }
    "softmax" {
        "keys are not normalised": "return select(q / z, vec4(0.0), z == vec4(0.0));" => "return q;";
    }
    "steps" {
        "a step forgets the sums before it": "    return state[line * (width + 1u) + e];" => "    return vec4(0.0);";
        "a state forgets its top": "vec4(top, 1.0, 0.0, 0.0)" => "vec4(0.0, 1.0, 0.0, 0.0)";
        "heads leave one state": "state[line * (width + 1u) + e] = sums;" => "state[e] = sums;";
        "a state is what a chunk began with": "leave_state(line, params.kernel.width, e, total, top)" => "leave_state(line, params.kernel.width, e, states[((line + 1u) * params.kernel.chunks - 1u) * params.kernel.width + e], top)";
        "no key weighs 1": "select(end.x, DROPPED, end.y == 0.0)" => "end.x";
        "a step is not told the top before it": "top_before(line, width * (VALUE_GROUPS + 1u))" => "DROPPED";
        "the scan begins without a top": "if (CARRIED) { top = top_before_chunk(" => "if (false) { top = top_before_chunk(";
    }
    "shares" {
        "places do not count from the end": "fn placed(n: u32, len: u32) -> u32 { return len - 1u - n; }" => "fn placed(n: u32, len: u32) -> u32 { return n; }";
        "the last query head of a group is all": "return vec4(weight(before, most), weight(top, most), most, 0.0);" => "return vec4(0.0, weight(top, most), most, 0.0);";
        "the first query head of a group is all": "return vec4(weight(before, most), weight(top, most), most, 0.0);" => "return vec4(weight(before, most), 0.0, most, 0.0);";
        "a query's vector is not divided": "return select(1.0 / l, 0.0, l == 0.0);" => "return select(1.0, 0.0, l == 0.0);";
        "queries past the last are met": "(distance >= vec2(0)) & vec2(at.first + j < params.kernel.kv_len)" => "distance >= vec2(0)";
    }
    "gradients" {
        "what means lose is forgotten": "fn last_of(product: f32, factor: f32) -> f32 { return -product * factor; }" => "fn last_of(product: f32, factor: f32) -> f32 { return 0.0; }";
        "a key's vector has no 1": "fn last_of(product: f32, factor: f32) -> f32 { return factor; }" => "fn last_of(product: f32, factor: f32) -> f32 { return 0.0; }";
        "the denominator's eps has no gradient": "let of_eps = params.kernel.denominator_eps *" => "let of_eps = 0.0 *";
        "a mean's last columns are not multiplied": "product = with_product(product, last," => "product += 0.0 * with_product(product, last,";
        "logarithms of queries are those of keys": "logs[query] = select(-top," => "logs[query] = select(top,";
        "sums of keys stay relative": "return select(exp(clamp(log + top, -100.0, 1.0)), 1.0, log == -top);" => "return 1.0;";
        "an eps has a slope, running": "return max(phi - params.kernel.feature_eps, vec4(0.0));" => "return phi + 0.01;";
        "an eps has a slope, global": "return max(phi - ROOT_OF_FEATURES * params.kernel.feature_eps, vec4(0.0));" => "return phi + 0.01;";
        "below 0 ReLU has a slope": "phi > vec4(params.kernel.feature_eps)" => "phi >= vec4(0.0)";
        "elu has the slope of an exponential": "min(phi, vec4(1.0))" => "phi";
        "an exponential has no slope": "fn slope(phi: vec4<f32>) -> vec4<f32> { return phi; }" => "fn slope(phi: vec4<f32>) -> vec4<f32> { return vec4(1.0); }";
        "a row's length has no gradient": "return fma(x, vec4(-params.kernel.half_scale * total), dx);" => "return dx;";
        "rows of P are one further": "fma(p3, vec4(g.w), fma(p2, vec4(g.z)" => "fma(p2, vec4(g.w), fma(p3, vec4(g.z)";
        "shares are not divided": "return select(phi / z, vec4(0.0), z == vec4(0.0));" => "return phi;";
        "what shares lose to others is forgotten": "return fma(-phi, z, products[at]);" => "return products[at];";
        "sums of features are those of the first head": "let row = line * params.kernel.chunks * 4u * params.kernel.groups + f;" => "let row = f;";
        "all features have the sum of the first": "let z = vec4(sum_of(line, 4u * g), sum_of(line, 4u * g + 1u)," => "let z = vec4(sum_of(line, 4u * g), sum_of(line, 4u * g),";
        "the projection back is not scaled": "own_dx[c] * params.kernel.scale" => "own_dx[c]";
    }
    "projections" {
        "masked rows are projected": "return key_mask[key] == 0u;" => "return key_mask[key] == 2u;";
        "heads share the first one's projection": "params.a_at + tile.batch * params.a_batch" => "params.a_at";
        "every head projects the first one's values": "params.b_at + tile.batch * params.b_batch" => "params.b_at";
        "all heads leave their rows in one place": "params.out_at + tile.batch * params.out_batch" => "params.out_at";
        "the last keys are not projected": "let chunk = min(CHUNK, (params.inner - k + 3u) / 4u);" => "let chunk = min(CHUNK, (params.inner - k) / 4u);";
    }
    "projected keys" {
        "projected keys are those of the next lane": "rows_of_a(tile, a_at, 4u * index, k + 1u)" => "rows_of_a(tile, a_at, 4u * index + 4u, k + 1u)";
    }
    "behind" {
        "rows behind the last key are met": "if (tile.first_row + r >= params.rows || k >= params.inner) { return vec4(0.0); }" => "if (tile.first_row + r >= params.rows) { return vec4(0.0); }";
    }
    "strange" {
        "no value is strange": "return any_lane(lane, any(found));" => "return false;";
    }
    "projected gradients" {
        "what a product is added to is forgotten": "case ADD_INTO: { value += load_out(at, count); }" => "case ADD_INTO: {}";
        "projected rows have the gradients of one head of the group": "place < heads.y; place++" => "place < heads.x + 1u; place++";
        "projected values get weights that are not over l": "select(vec4(0.0), record.y * met.e, kept)" => "select(vec4(0.0), met.e, kept)";
        "every head's gradients are projected back by the first one's": "params.a_at + tile.batch * params.a_batch" => "params.a_at + 0u * tile.batch";
        "gradients of projected rows are those of the first line": "params.b_at + tile.batch * params.b_batch" => "params.b_at + 0u * tile.batch";
    }
    "gradients behind" {
        "gradients of masked rows are kept": "vec4(is_hidden(batch * params.kernel.len + i))" => "vec4(false)";
        "gradients are masked as in the first batch item": "vec4(is_hidden(batch * params.kernel.len + i))" => "vec4(is_hidden(i))";
    }
    "linformer gradients" {
        "what projected rows lose to the mean is forgotten": "e * (record.y * met.d_p - vec4(record.z))" => "e * record.y * met.d_p";
        "dq over projected rows lacks the scale": "var x = params.kernel.scale * dq;" => "var x = dq;";
        "log2 e is left in the gradients of projected keys": "var x = params.kernel.scale * dk;" => "var x = params.kernel.q_scale * dk;";
    }
}
