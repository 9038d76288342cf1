//! Faults of the kernels around attention.

wgpu_attention_testing::mutants! {
    "matmul" {
        "the last chunk is skipped": "k < params.inner; k += 4u * CHUNK" => "k + 4u * CHUNK < params.inner; k += 4u * CHUNK";
        "a direct lane skips the last chunk": "let chunk = min(CHUNK, (params.inner - k + 3u) / 4u);" => "let chunk = min(CHUNK, (params.inner - k) / 8u);";
        "a direct lane stops after a chunk": "k < params.inner; k += 4u * CHUNK) {\n        let chunk" => "k < 1u; k += 4u * CHUNK) {\n        let chunk";
        "a direct lane takes its first rows twice": "of_a(tile, a_at, index + LANES, k)" => "of_a(tile, a_at, index, k)";
        "a direct lane mixes up columns": "of_b(b_at, k + 4u * g, column + 8u)" => "of_b(b_at, k + 4u * g, column + 4u)";
        "a direct lane writes past the last row": "if (tile.first_row + r < params.rows) { write_group" => "if (true) { write_group";
        "a direct lane takes B past its last k": "if (!WHOLE_K && k >= params.inner) { return vec4(0.0); }" => "";
        "half of a chunk is multiplied": "g < CHUNK; g++" => "g < CHUNK / 2u; g++";
        "no barrier before staging": "workgroupBarrier(); // the last chunk is read to its end" => "";
        "no barrier behind staging": "stage_b(tile, lane, b_at, k);\n        workgroupBarrier();" => "stage_b(tile, lane, b_at, k);";
        "tall rows are the first ones": "quad(a_from + 4u * LANES_R * A_PITCH, " => "quad(a_from, ";
        "wide columns are the first ones": "c01 = multiplied(a0, quad(b_from + LANES_C * B_LANE, B_STEP), c01)" => "c01 = multiplied(a0, b0, c01)";
        "the last quad is the one above": "c11 = multiplied(a1" => "c11 = multiplied(a0";
        "a direct lane has the rows of A stored by rows": "select(4u * index + n, index + n * LANES, A_BY_ROWS)" => "index + n * LANES";
        "a direct lane takes the first k of A four times": "rows_of_a(tile, a_at, 4u * index, k + 2u)" => "rows_of_a(tile, a_at, 4u * index, k)";
        "A's tile begins at the first row": "select(1u, params.a_row, A_BY_ROWS)" => "select(0u, params.a_row, A_BY_ROWS)";
        "A's tile begins at another k": "select(1u, params.a_row, A_BY_ROWS)" => "params.a_row";
        "A is not transposed on the way": "let rows = transpose(mat4x4(rows_of_a(tile, a_at, r, k)" => "let rows = (mat4x4(rows_of_a(tile, a_at, r, k)";
        "rows of k follow without a gap": "a_at + k * params.a_row + r" => "a_at + k * params.rows + r";
        "k past the last of A counts": "if (tile.first_row + r >= params.rows || k >= params.inner) { return vec4(0.0); }" => "if (tile.first_row + r >= params.rows) { return vec4(0.0); }";
        "a lane stages the rows of its neighbour": "arena[(r + 1u) * A_PITCH + g] = rows[1];" => "arena[(r + 1u) * A_PITCH + g] = rows[0];";
        "every batch item is the first of A": "params.a_at + tile.batch * params.a_batch" => "params.a_at";
        "every batch item is the first of B": "params.b_at + tile.batch * params.b_batch" => "params.b_at";
        "every batch item is written to the first": "params.out_at + tile.batch * params.out_batch" => "params.out_at";
        "the residual is of the first batch item": "params.residual_at + tile.batch * params.residual_batch" => "params.residual_at";
        "rows of A follow without a gap": "a_at + r * params.a_row + k" => "a_at + r * params.inner + k";
        "rows of C follow without a gap": "r * params.out_row + column" => "r * params.columns + column";
        "panels overlap": "(panel * PANEL + rest % tall) * ROWS" => "(rest % tall) * ROWS";
        "the last panel is as tall as the others": "min(PANEL, params.row_tiles - panel * PANEL)" => "PANEL";
        "what is past k is not 0": "tile.first_row + r < params.rows && k < params.inner" => "tile.first_row + r < params.rows";
        "columns are dealt out in order": "4u * (slot % COLUMN_GROUPS) + slot / COLUMN_GROUPS" => "slot";
        "a weight of [out, in] is taken along n": "dot_add(a, b.b, sum.y)" => "dot_add(a, b.a, sum.y)";
        "one k is taken for another": "fma(vec4(a.y), b.b, " => "fma(vec4(a.z), b.b, ";
        "rows past the last are written": "if (r >= params.rows) { break; }" => "";
        "no bias": "if (HAS_BIAS) { value += load_bias(column, count); }" => "";
        "the bias is added behind the activation": "value = activated(value);" => "value = activated(sum);";
        "the residual is not added": "value += load_residual(there, count);" => "";
        "out is not added to": "case ADD_INTO: { value += load_out(at, count); }" => "case ADD_INTO: {}";
        "out is added to instead of multiplied": "value *= load_out(at, count);" => "value += load_out(at, count);";
        "rows of the two halves are mixed up": "case 4u: { return c10.a; }" => "case 4u: { return c10.b; }";
        "ReLU keeps negative values": "case RELU: { return select(" => "case RELU: { return x + 0.0 * select(";
        "a coefficient of erfc is off by 1e-5": "8.5076123e-1" => "8.5077123e-1";
        "erf's factor 1/2 is missing in the exponent": "exp_minus(0.5 * high * high" => "exp_minus(high * high";
        "erf's exponent lacks the rest of the square": "0.5 * (y - high) * (y + high)" => "vec4(0.0)";
        "GELU's cube has another factor": "0.07135481" => "0.07135";
        "a sigmoid of negative values is mirrored": "select(e.m, vec4(1.0), above) / " => "vec4(1.0) / ";
        "tanh of negative values is positive": "select(-quotient, quotient, x >= vec4(0.0))" => "quotient";
        "a term of tanh's series is missing": "fma(q, vec4(0.021869488), vec4(-0.053968254))" => "vec4(0.0)";
        "a row of 16 bits overwrites its neighbour": "0xffff0000u >> shift" => "0u >> shift";
        "bf16 is cut off instead of rounded": "vec2(0x7fffu) + " => "";
    }
    "every_f32" {
        "exp loses its small part of ln 2": "fma(n, vec4(2.1219444e-4), difference)" => "difference";
        "exp forgets the rest": " + rest)), k)" => ")), k)";
        "the parts of ln 2 meet before the argument": "fma(n, vec4(2.1219444e-4), difference)" => "(t - n * 0.6931472)";
        "a tail of GELU ends early": "min(abs(x), vec4(15.0))" => "min(abs(x), vec4(9.0))";
        "a tail of SiLU ends early": "min(abs(s), vec4(128.0))" => "min(abs(s), vec4(80.0))";
        "the factor before a tail grows on": "max(x, vec4(-128.0))" => "x";
        "a tail of GELU times infinity": "max(x, vec4(-15.0))" => "x";
        "a tail wraps below the normal numbers": "select(vec4(0u), bits - (k << vec4(23u)), normal)" => "bits - (k << vec4(23u))";
        "NaN is lost in an activation": "let bits = select(bitcast<vec4<u32>>(y), bitcast<vec4<u32>>(x), magnitude(x) > vec4(INFINITY));" => "let bits = bitcast<vec4<u32>>(y);";
        "ReLU takes NaN for negative": "select(x, vec4(0.0), (bitcast<vec4<u32>>(x) ^ vec4(0x80000000u)) <= vec4(INFINITY))" => "max(x, vec4(0.0))";
        "infinity saturates in f16": "endless, size >= vec2(0x7f800000u)" => "endless, size > vec2(0x7f800000u)";
        "NaN saturates in f16": "select(vec2(0x7c00u), vec2(0x7e00u), size > vec2(0x7f800000u))" => "vec2(0x7c00u)";
        "NaN is rounded in bf16": "select(nearest, bits | vec2(0x400000u), " => "select(nearest, nearest, ";
    }
    "far_rows" {
        "rows are never scaled": "let inside = bitcast<u32>(view.variance) - LEAST <= MOST - LEAST;" => "let inside = true;";
        "eps is not scaled": "params.eps * scale * scale" => "params.eps";
        "eps does not count in the scale": "max(most >> 23u, root)" => "max(most >> 23u, 11u)";
        "a row without spread has no factor": "max(mean_of_squares(x_at, lane, view) + eps, 0x1p-126f)" => "mean_of_squares(x_at, lane, view) + eps";
        "a far mean is not corrected": "(!CENTERED || abs(view.mean) <= 4.0 * sqrt(view.variance))" => "true";
        "what an f32 mean misses is left": "view.rest = mean_of(x_at, lane, view);" => "";
        "the largest element misses a lane": "max(largest[lane], largest[lane + step])" => "largest[lane]";
        "a row with infinity counts": "if (most >= INFINITY)" => "if (most > INFINITY)";
        "blocks of a sum are dropped": "part = fma(d, d, part);\n        }\n        sum += part;" => "part = fma(d, d, part);\n        }\n        sum = part;";
        "blocks of a softmax are dropped": "l += part;" => "l = part;";
        "a softmax loses NaN": "or_nan(d, exps(d))" => "exps(d)";
        "a softmax of nothing is 0": "{ l = nan_of(bitcast<u32>(l)); }" => "{ l = 1.0; }";
    }
    "cooperative" {
        "matrices: the last chunk is skipped": "k < params.inner; k += DEPTH" => "k + DEPTH < params.inner; k += DEPTH";
        "matrices: half of a chunk is multiplied": "step < DEPTH; step += MATRIX" => "step < DEPTH / 2u; step += MATRIX";
        "matrices: no barrier behind staging": "stage_b(tile, index, b_at, k);\n        workgroupBarrier();" => "stage_b(tile, index, b_at, k);";
        "matrices: no barrier before the patches are read": "workgroupBarrier();\n        // By quarters" => "// By quarters";
        "matrices: one takes its neighbour's rows": "c10 = coopMultiplyAdd(a1, b0, c10)" => "c10 = coopMultiplyAdd(a0, b0, c10)";
        "matrices: one takes its neighbour's columns": "c23 = coopMultiplyAdd(a2, b3, c23)" => "c23 = coopMultiplyAdd(a2, b2, c23)";
        "matrices: a quarter is written elsewhere": "n / 4u % 2u * 2u + n % 2u" => "n % 4u";
        "matrices: rows past the last are written": "if (r < params.rows) { write_group" => "if (true) { write_group";
        "matrices: what is past k is not 0": "if (first_k + k < params.inner && column < params.columns)" => "if (column < params.columns)";
        "matrices: A's columns are taken for rows": "return coopLoad<mat_a>(&staged_a[at], A_PITCH);" => "return coopLoadT<mat_a>(&staged_a[at], A_PITCH);";
        "matrices: rows of k lie as rows": "to = k * A_PITCH + r;" => "to = r * A_PITCH + k;";
        "matrices: A's step is that of rows": "select(MATRIX, MATRIX * A_PITCH, A_BY_ROWS)" => "MATRIX * A_PITCH";
        "matrices: columns are taken for rows": "return coopLoad<mat_b>(&staged_b[at], B_PITCH);" => "return coopLoadT<mat_b>(&staged_b[at], B_PITCH);";
    }
    "rows" {
        "the mean is not subtracted": "if (CENTERED) { view.mean = mean_of(x_at, lane, view); }" => "";
        "the mean misses the last columns": "part += select(vec4(0.0), seen(view, load_x(x_at + c, count)), inside(count));" => "if (c < 256u) { part += select(vec4(0.0), seen(view, load_x(x_at + c, count)), inside(count)); }";
        "eps is left out": "mean_of_squares(x_at, lane, view) + params.eps" => "mean_of_squares(x_at, lane, view)";
        "padding counts in the variance": "let d = select(vec4(0.0), seen(view, load_x(x_at + c, count)), inside(count));" => "let d = seen(view, load_x(x_at + c, count));";
        "the sum of squares misses a lane": "partial[lane] += partial[lane + step]" => "partial[lane] += partial[lane + step - u32(lane == 7u)]";
        "the reduction stops early": "step > 0u; step /= 2u) {\n        workgroupBarrier();\n        if (lane < step) { partial[lane] +=" => "step > 1u; step /= 2u) {\n        workgroupBarrier();\n        if (lane < step) { partial[lane] +=";
        "no barrier in the reduction": "workgroupBarrier();\n        if (lane < step) { partial[lane] +=" => "if (lane < step) { partial[lane] +=";
        "no barrier between reductions": "workgroupUniformLoad(&partial[0]); // with" => "partial[0]; // with";
        "no weight": " * load_weight(c, count)" => "";
        "no norm bias": "y += load_bias(c, count);" => "";
        "rows of x follow without a gap": "row * params.x_row" => "row * params.width";
        "rows of out follow without a gap": "store_out(row * params.out_row + c, count, y)" => "store_out(row * params.width + c, count, y)";
        "the maximum is not subtracted": "let d = load_x(x_at + c, count) - m;" => "let d = load_x(x_at + c, count);";
        "the maximum misses a lane": "max(partial[lane], partial[lane + step])" => "partial[lane]";
        "padding counts in the sum": "select(vec4(0.0), or_nan(d, exps(d)), inside(count))" => "or_nan(d, exps(d))";
        "softmax is not divided": "- m) / l)" => "- m))";
        "other is not added": " + load_other(row * params.other_row + c, count)" => "";
        "a row takes its neighbour's id": "let id = ids[row];" => "let id = ids[row ^ 1u];";
        "an id is one too high": "let id = ids[row];" => "let id = ids[row] + 1u;";
        "what out held is lost": "if (INTO) { y += load_out(at, count); }" => "";
    }
    "cross_entropy" {
        "the maximum is not subtracted from logits": "let d = load_x(x_at + c, count) - m;" => "let d = load_x(x_at + c, count);";
        "logits past the row count": "select(vec4(0.0), or_nan(d, exps(d)), inside(count))" => "or_nan(d, exps(d))";
        "gaps past the row count": "inside(count) & (q > vec4(0.0))" => "q > vec4(0.0)";
        "an infinite gap counts where nothing is wanted": "inside(count) & (q > vec4(0.0))" => "inside(count)";
        "blocks of weights are dropped": "weights += block_weights;" => "weights = block_weights;";
        "blocks of gaps are dropped": "gaps += block_gaps;" => "gaps = block_gaps;";
        "the loss has no logarithm": "vec4(log(l) + gaps)" => "vec4(gaps)";
        "the loss has no gap": "vec4(log(l) + gaps)" => "vec4(log(l))";
        "the loss loses NaN": "or_nan(vec4(l), vec4(log(l) + gaps)).x" => "max(log(l) + gaps, 0.0)";
        "the target is the next one": "== vec4(t)) + params.at_all" => "== vec4(t + 1u)) + params.at_all";
        "nothing is smoothed": "== vec4(t)) + params.at_all" => "== vec4(t)) + 0.0";
        "smoothing takes nothing from the target": "vec4(params.at_target), vec4(c)" => "vec4(1.0), vec4(c)";
        "every row has the first target": "row_target[0] = targets[row];" => "row_target[0] = targets[0];";
        "rows to be ignored count": "if (params.may_ignore != 0u && t == params.ignored)" => "if (false)";
        "target 0 is always ignored": "params.may_ignore != 0u && t == params.ignored" => "t == params.ignored";
        "the gradient of an ignored row is left": "store_out(row * params.out_row + c, params.width - c, vec4(0.0));" => "";
        "a target past the vocabulary passes": "|| t >= params.width" => "";
        "the gradient has no factor": "(p - target_weights(t, c)) * params.factor" => "p - target_weights(t, c)";
        "the gradient is that of ln p": "(p - target_weights(t, c))" => "(target_weights(t, c) - p)";
        "the gradient's weights are not divided": "exps(load_x(x_at + c, count) - m) / l;" => "exps(load_x(x_at + c, count) - m);";
        "rows of the gradient follow without a gap": "store_out(row * params.out_row + c, count, (p" => "store_out(row * params.width + c, count, (p";
        "rows of logits follow without a gap": "let x_at = row * params.x_row;" => "let x_at = row * params.width;";
        "a gradient in place of 16 bits overwrites its neighbour": "0xffff0000u >> shift" => "0u >> shift";
        "halves of a word are swapped in place": "atomicLoad(&out[e / 2u]))[e % 2u]" => "atomicLoad(&out[e / 2u]))[(e + 1u) % 2u]";
    }
    "optimizer" {
        "the gradient has no decay": "fma(vec4(params.rule.decay), p, gradient)" => "gradient";
        "momentum is lost": "fma(vec4(params.rule.momentum), before(load_first(at, count)), g)" => "g";
        "the first step reads a state": "select(state, vec4(0.0), params.kernel.is_first != 0u)" => "state";
        "every step is the first": "params.kernel.is_first != 0u" => "true";
        "no step looks ahead": "params.rule.nesterov != 0u" => "false";
        "every step looks ahead": "params.rule.nesterov != 0u" => "true";
        "the step is uphill": "fma(vec4(-params.rule.rate), select" => "fma(vec4(params.rule.rate), select";
        "AdamW does not decay": "params.rule.kept * p" => "p";
        "the second moment is of the gradient": "params.rule.new2 * g * g" => "params.rule.new2 * abs(g)";
        "the second moment forgets": "fma(vec4(params.rule.beta2), before(load_second(at, count))" => "fma(vec4(0.0), before(load_second(at, count))";
        "the second moment is not corrected": "vec4(params.rule.root), vec4(params.rule.eps)" => "vec4(1.0), vec4(params.rule.eps)";
        "the optimizer leaves out eps": "vec4(params.rule.root), vec4(params.rule.eps)" => "vec4(params.rule.root), vec4(0.0)";
        "the second moment has no root": "sqrt(max(v, vec4(SMALLEST)))" => "max(v, vec4(SMALLEST))";
        "the states are exchanged": "store_second(at, count, v);" => "store_second(at, count, m);";
        "the copy is of the old parameters": "store_rounded(at, count, p);" => "store_rounded(at, count, load_gradient(at, count));";
        "the gradient is not clipped": "return clip[1];" => "return 1.0;";
        "the gradient is multiplied by the norm": "return clip[1];" => "return clip[0];";
        "a workgroup misses its last lane": "at >= params.kernel.len" => "at + 4u >= params.kernel.len";
    }
    "clip" {
        "squares are not scaled": "clamp(i32(most >> 23u) - 127, -100, 126)" => "0";
        "the exponent of a chunk is lost": "vec2(f32(exponent), " => "vec2(0.0, ";
        "chunks meet as they are scaled": "y * power_of_two(-2 * i32(min(below, 60.0)))" => "y";
        "chunks are scaled once": "-2 * i32(min(below, 60.0))" => "-i32(min(below, 60.0))";
        "the norm stays scaled": "root * power_of_two(i32(exponent))" => "root";
        "the norm is a square": "sqrt(max(sum, 0x1p-126f))" => "max(sum, 0x1p-126f)";
        "a norm of nothing is something": "select(sqrt(max(sum, 0x1p-126f)), 0.0, bitcast<u32>(sum) == 0u)" => "sqrt(max(sum, 1e-6))";
        "gradients grow": "select(a / max(b, a), 1.0, b <= a)" => "a / b";
        "large norms have the factor of small ones": "if (exponent > 60.0)" => "if (false)";
        "every tensor's sums lie where the first one's do": "params.partials_at + work" => "work";
        "every chunk is the first": "let first = work * BLOCK + 4u * lane;" => "let first = 4u * lane;";
        "a chunk goes on into the next": "min(work * BLOCK + BLOCK, params.len)" => "params.len";
        "NaN is lost in a chunk": "select(sum, nan_of(most), most >= INFINITY)" => "select(sum, 1.0, most >= INFINITY)";
        "NaN is lost in the norm": "or_nan(vec4(sum), vec4(norm)).x" => "min(norm, 1e30)";
        "blocks of chunks are dropped": "total += part;" => "total = part;";
        "the sums of other lanes are lost": "sum_over_lanes(lane, own_sum(lane, exponent))" => "own_sum(lane, exponent)";
    }
    "feed_forward" {
        "a chunk's rows are those of the first": "params.a_at + tile.batch" => "tile.batch";
        "a chunk is written to the first's place": "params.out_at + tile.batch" => "tile.batch";
        "a chunk has the first's residual": "params.residual_at + tile.batch" => "tile.batch";
        "the gate is not multiplied": "case MULTIPLY_INTO: { value *= load_out(at, count); }" => "case MULTIPLY_INTO: {}";
    }
    "rotary" {
        "pairs turn the other way": "select(partner, -partner, is_first)" => "select(-partner, partner, is_first)";
        "what does not turn is turned": "if (c >= params.rotary_dim) { return own; }" => "";
        "halves are those of the row": "let half = params.rotary_dim / 2u;" => "let half = params.head_dim / 2u;";
        "every position is the first": "+ t * (params.rotary_dim / 2u)" => "";
        "tables are the first item's": "batch * params.table_batch + " => "";
        "heads of x are the first": "head * params.x_head + " => "";
        "heads of out are the first": "head * params.out_head + " => "";
        "neighbours share the angle of the next pair": "select(c % half, c / 2u, INTERLEAVED)" => "select(c % half, (c + 1u) / 2u, INTERLEAVED)";
    }
}
