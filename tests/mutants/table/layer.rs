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
    "few_rows" {
        "few rows: lanes past the first are idle": "var next = STEP * lane; next + STEP <= params.inner;" => "var next = STEP * lane; next + STEP <= STEP;";
        "few rows: all lanes have the same k": "var next = STEP * lane;" => "var next = 0u;";
        "few rows: the last whole step is left out": "next + STEP <= params.inner;" => "next + STEP < params.inner;";
        "few rows: what is less than a step is left out": "k < params.inner; k += 4u * select" => "k + 4u < params.inner; k += 4u * select";
        "few rows: the rest begins a step early": "var k = params.inner / STEP * STEP + 4u * lane" => "var k = params.inner / STEP * STEP - STEP + 4u * lane";
        "few rows: groups of columns are the first": "let columns = min(vec4(tile.first_column + 4u * g) + vec4(0u, 1u, 2u, 3u), vec4(params.columns - 1u));\n    if (fours" => "let columns = min(vec4(tile.first_column) + vec4(0u, 1u, 2u, 3u), vec4(params.columns - 1u));\n    if (fours";
        "few rows: rows are the first": "own_a[r * FOURS], own_b[0])" => "own_a[0], own_b[0])";
        "few rows: lanes that are rows are the first": "let row = select(0u, index, ROW_LANES)" => "let row = 0u";
        "few rows: rows of lanes lie without a gap": "min(row, last) * params.a_row" => "min(row, last) * params.inner";
        "few rows: the second row lies without a gap": "min(1u, last) * params.a_row" => "min(1u, last) * params.inner";
        "few rows: the second eight is the first": "read_eight(b_at, columns, k, 2u)" => "read_eight(b_at, columns, k, 0u)";
        "few rows: a four of the second eight is lost": "own_a[r * FOURS + 3u], own_b[3])" => "own_a[r * FOURS + 3u], mat4x4<f32>())";
        "few rows: no barrier before the parts are read": "        leave_group(index, 7u);\n    }\n    workgroupBarrier();" => "        leave_group(index, 7u);\n    }";
        "few rows: the eighth row is the first": "min(7u, last) * params.a_row" => "min(0u, last) * params.a_row";
        "few rows: the eighth row has no products": "        add_row(scales, fours, g, 7u);\n" => "";
        "few rows: the eighth group of columns is the first": "        add_group(tile, b_at, k, fours, 7u);" => "        add_group(tile, b_at, k, fours, 0u);";
        "few rows: the eighth row has the seventh's parts": "leave(index, g * OWN_ROWS + 7u);" => "leave(index, g * OWN_ROWS + 6u);";
        "few rows: a lane is lost": "for (var lane = 1u; lane < LANES; lane++) { sum += parts" => "for (var lane = 2u; lane < LANES; lane++) { sum += parts";
        "few rows: rows past the last are written": "if (r < params.rows) { write_sum(tile, r, n / OWN_ROWS" => "if (true) { write_sum(tile, r, n / OWN_ROWS";
        "few rows: lanes past the last row write": "if (tile.first_row + index >= params.rows) { return; }" => "";
        "few rows: columns go with other rows": "n / OWN_ROWS, total(n))" => "n / OWN_ROWS, total(n ^ 1u))";
        "few rows: one k is taken for another": "fma(vec4(a.y), b[1], fma(vec4(a.x), b[0], sum))" => "fma(vec4(a.y), b[2], fma(vec4(a.x), b[0], sum))";
    }
    "every_f32" {
        "exp loses its small part of ln 2": "fma(n, vec4(2.1219444e-4), difference)" => "difference";
        "exp forgets the rest": " + rest)), k)" => ")), k)";
        "the parts of ln 2 meet before the argument": "fma(n, vec4(2.1219444e-4), difference)" => "(t - n * 0.6931472)";
        "a tail of GELU ends early": "min(abs(x), vec4(15.0))" => "min(abs(x), vec4(9.0))";
        "a tail of SiLU ends early": "min(abs(s), vec4(128.0))" => "min(abs(s), vec4(80.0))";
        "the factor before a tail grows on": "let product = max(x, vec4(-128.0))" => "let product = x";
        "quick GELU is SiLU": "gated(x, 1.702 * x)" => "gated(x, x)";
        "Mish has no tail": "(select(e.m, vec4(1.0), above) * quotient)" => "quotient";
        "Mish's bottom is that of the other side": "select(fma(z, z + 2.0, vec4(2.0)), fma(2.0 * z, z + 1.0, vec4(1.0)), above)" => "fma(2.0 * z, z + 1.0, vec4(1.0))";
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
        "the largest element misses a lane": "max(max(max(largest[lane], largest[lane + 8u])" => "max(max(max(largest[lane + 8u], largest[lane + 8u])";
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
        "matrices: rows of k lie as rows": "to = k * A_PITCH + r / 4u;" => "to = r * A_PITCH + k / 4u;";
        "matrices: A's step is that of rows": "select(STEP, MATRIX * A_PITCH, A_BY_ROWS)" => "MATRIX * A_PITCH";
        "matrices: columns are taken for rows": "return coopLoad<mat_b>(&staged_b[at], B_PITCH);" => "return coopLoadT<mat_b>(&staged_b[at], B_PITCH);";
    }
    "rows" {
        "the mean is not subtracted": "if (CENTERED) { view.mean = mean_of(x_at, lane, view); }" => "";
        "the mean misses the last columns": "part += select(vec4(0.0), seen(view, load_x(x_at + c, count)), inside(count));" => "if (c < 256u) { part += select(vec4(0.0), seen(view, load_x(x_at + c, count)), inside(count)); }";
        "eps is left out": "mean_of_squares(x_at, lane, view) + params.eps" => "mean_of_squares(x_at, lane, view)";
        "padding counts in the variance": "let d = select(vec4(0.0), seen(view, load_x(x_at + c, count)), inside(count));" => "let d = seen(view, load_x(x_at + c, count));";
        "the sum of squares misses a lane": "eighths[lane] = sum8(partial[lane]," => "eighths[lane] = sum8(partial[lane - u32(lane == 7u)],";
        "the reduction stops early": "return sum8(x8[0], x8[1]," => "return sum8(x8[0], 0.0,";
        "no barrier in the reduction": "workgroupBarrier();\n    if (lane < 8u) {\n        eighths[lane] = sum8(" => "if (lane < 8u) {\n        eighths[lane] = sum8(";
        "no barrier between reductions": "let x8 = workgroupUniformLoad(&eighths); // with" => "let x8 = eighths; // with";
        "no weight": " * load_weight(c, count)" => "";
        "no norm bias": "y += load_bias(c, count);" => "";
        "rows of x follow without a gap": "row * params.x_row" => "row * params.width";
        "rows of out follow without a gap": "store_out(row * params.out_row + c, count, y)" => "store_out(row * params.width + c, count, y)";
        "the maximum is not subtracted": "let d = load_x(x_at + c, count) - m;" => "let d = load_x(x_at + c, count);";
        "the maximum misses a lane": "eighths[lane] = max8(partial[lane]," => "eighths[lane] = max8(partial[lane + 8u],";
        "padding counts in the sum": "select(vec4(0.0), or_nan(d, exps(d)), inside(count))" => "or_nan(d, exps(d))";
        "softmax is not divided": "- m) / l)" => "- m))";
        "other is not added": "let other = load_other(row * params.other_row + c, count);" => "let other = vec4(0.0);";
        "what is to be subtracted is added": "y -= other;" => "y += other;";
        "what is to be added is subtracted": "else { y += other; }" => "else { y -= other; }";
        "what out held is not x": "if (IN_PLACE) { y = load_out(at, count); }" => "";
        "other is added twice": "let other = load_other(row * params.other_row + c, count);" => "let other = 2.0 * load_other(row * params.other_row + c, count);";
        "a row takes its neighbour's id": "let id = ids[row];" => "let id = ids[row ^ 1u];";
        "an id is one too high": "let id = ids[row];" => "let id = ids[row] + 1u;";
        "looked-up rows follow without a gap": "params.out_at + row * params.out_row + c" => "params.out_at + row * params.width + c";
        "looked-up rows begin where out does": "params.out_at + row * params.out_row + c" => "row * params.out_row + c";
        "what out held is lost": "if (INTO) { y += load_out(at, count); }" => "";
    }
    "cross_entropy" {
        "the maximum is not subtracted from logits": "let d = scaled(load_x(x_at + c, count) - m);" => "let d = scaled(load_x(x_at + c, count));";
        "logits past the row count": "select(vec4(0.0), or_nan(d, exps(d)), inside(count))" => "or_nan(d, exps(d))";
        "gaps past the row count": "inside(count) & (q > vec4(0.0))" => "q > vec4(0.0)";
        "an infinite gap counts where nothing is wanted": "inside(count) & (q > vec4(0.0))" => "inside(count)";
        "blocks of weights are dropped": "weights += block_weights;" => "weights = block_weights;";
        "blocks of gaps are dropped": "gaps += block_gaps;" => "gaps = block_gaps;";
        "the loss has no logarithm": "return log(l) + gaps;" => "return gaps;";
        "the loss has no gap": "return log(l) + gaps;" => "return log(l);";
        "the loss loses NaN": "or_nan(vec4(l), vec4(loss_of(wanted, l, gaps))).x" => "max(loss_of(wanted, l, gaps), 0.0)";
        "the target is the next one": "== vec4(wanted);" => "== vec4(wanted + 1u);";
        "nothing is smoothed": "is_target) + params.wanted.at_all" => "is_target) + 0.0";
        "smoothing takes nothing from the target": "vec4(params.wanted.at_target), is_target" => "vec4(1.0), is_target";
        "every row has the first target": "row_target[0] = targets[row];" => "row_target[0] = targets[0];";
        "rows to be ignored count": "if (is_left_out(wanted))" => "if (false)";
        "target 0 is always ignored": "params.wanted.may_ignore != 0u && wanted == params.wanted.ignored" => "wanted == params.wanted.ignored";
        "the gradient of an ignored row is left": "store_out(row * params.kernel.out_row + c, params.kernel.width - c, vec4(0.0));" => "";
        "a target past the vocabulary passes": "wanted >= params.kernel.width" => "false";
        "the gradient has no factor": "(p - weights_wanted(wanted, c)) * params.kernel.factor" => "p - weights_wanted(wanted, c)";
        "the gradient is that of ln p": "(p - weights_wanted(wanted, c))" => "(weights_wanted(wanted, c) - p)";
        "the gradient's weights are not divided": "exps(scaled(load_x(x_at + c, count) - m)) / l;" => "exps(scaled(load_x(x_at + c, count) - m));";
        "rows of the gradient follow without a gap": "store_out(row * params.kernel.out_row + c, count, (p" => "store_out(row * params.kernel.width + c, count, (p";
        "rows of logits follow without a gap": "let x_at = row * params.kernel.x_row;" => "let x_at = row * params.kernel.width;";
        "the teacher has no temperature": "scaled(load_teacher(wanted.at + c, params.kernel.width - c) - wanted.top)" => "load_teacher(wanted.at + c, params.kernel.width - c) - wanted.top";
        "the temperature multiplies": "return d * params.wanted.scale;" => "return d / params.wanted.scale;";
        "the loss is not that of a temperature": "params.wanted.weight * (log(l / wanted.sum) + gaps)" => "log(l / wanted.sum) + gaps";
        "the loss keeps the teacher's entropy": "return d - teacher_gap(wanted, c);" => "return d;";
        "the loss keeps the teacher's sum": "log(l / wanted.sum)" => "log(l)";
        "the teacher's weights are not divided": "exps(teacher_gap(wanted, c)) / wanted.sum" => "exps(teacher_gap(wanted, c))";
        "every row has the first teacher": "let at = row * params.wanted.teacher_row;" => "let at = 0u;";
        "rows of the teacher follow without a gap": "row * params.wanted.teacher_row" => "row * params.kernel.width";
        "a teacher's NaN is lost": "or_nan(d, exps(d)), inside(count));\n        }\n        sum += part;" => "exps(d), inside(count));\n        }\n        sum += part;";
        "a teacher of nothing wants nothing": "if (bitcast<u32>(sum) == 0u) { sum = nan_of(bitcast<u32>(sum)); }" => "if (bitcast<u32>(sum) == 0u) { sum = 1.0; }";
        "blocks of the teacher are dropped": "or_nan(d, exps(d)), inside(count));\n        }\n        sum += part;" => "or_nan(d, exps(d)), inside(count));\n        }\n        sum = part;";
        "what is past the teacher's row counts": "part += select(vec4(0.0), or_nan(d, exps(d)), inside(count));" => "part += or_nan(d, exps(d));";
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
    "activation" {
        "a gate does not multiply": "if (GATED) { value *= load_gate(at, count); }" => "";
        "the last group of an activation is left out": "at >= params.len) { return; }\n    let count = params.len - at;\n    var value" => "at + 4u >= params.len) { return; }\n    let count = params.len - at;\n    var value";
        "a slope is not multiplied by the gate": "sloped(x, d * gate)" => "sloped(x, d)";
        "the gate's gradient is that of x": "store_dgate(at, count, d * value);" => "store_dgate(at, count, d * gate);";
        "the gate's gradient has the slope": "store_dgate(at, count, d * value);" => "store_dgate(at, count, sloped(x, d));";
        "ReLU has a slope at 0": "select(vec4(0.0), d, x > vec4(0.0))" => "select(vec4(0.0), d, x >= vec4(0.0))";
        "ReLU's slope loses NaN": "case RELU: { return or_nan(x, select" => "case RELU: { return (select";
        "GELU's slope is Phi": "fma(vec4(-0.3989423), y, normal_tail(y))" => "normal_tail(y)";
        "GELU's density is off by 1e-5": "vec4(-0.3989423), y" => "vec4(-0.3989523), y";
        "GELU's slope has one side": "1.0 - scaled(tail, e.k), x >= vec4(0.0)" => "scaled(tail, e.k), x >= vec4(0.0)";
        "the tanh form's argument is not differentiated": "vec4(0.21406445)" => "vec4(0.07135482)";
        "the tanh form's slope has another cube": "vec4(0.21406445)" => "vec4(0.21407445)";
        "quick GELU's slope is SiLU's": "let y = 1.702 * clamp" => "let y = clamp";
        "Mish's slope is that of one side": "select(curved, curved * z * z, above)" => "curved * z * z";
        "a slope overflows far out": "let y = clamp(x, vec4(-128.0), vec4(128.0));" => "let y = x;";
        "a logistic slope is that of one side": "select(vec4(1.0), z, above)" => "z";
        "a logistic slope lacks x": "fma(u, select(vec4(1.0), z, above), whole)" => "whole";
        "a logistic slope is divided once": "/ (whole * whole);\n    return select(scaled" => "/ whole;\n    return select(scaled";
        "a logistic slope below 0 lacks its tail": "return select(scaled(quotient * e.m, e.k), quotient, above);" => "return quotient;";
        "tanh's slope is that of half x": "logistic_power(2.0 * x)" => "logistic_power(x)";
        "tanh's slope is 1 less tanh": "scaled(4.0 * e.m / (whole * whole), e.k)" => "scaled(2.0 * e.m / whole, e.k)";
        "NaN is lost in a slope": "return or_nan(x, d * hyperbolic_slope(x));" => "return min(d, vec4(1e30)) * hyperbolic_slope(min(x, vec4(1e30)));";
    }
    "matmul_backward" {
        "columns are added up without their last block": "min(block * BLOCK + BLOCK, params.kernel.rows), column);" => "min(block * BLOCK + BLOCK - 8u, params.kernel.rows - 1u), column);";
        "rows that are added up follow without a gap": "row * params.terms.x_row + column" => "row * params.kernel.columns + column";
        "rows that are added up begin at the first": "params.terms.x_at + row" => "row";
        "sums of columns are stored over those before": "if (INTO) { sum += load_out(at, count); }" => "";
        "a lane's sums are lost": "{ partial[lane] += partial[lane + step]; }\n    }\n    if (lane >= COLUMN_LANES" => "{ partial[lane] = partial[lane + step]; }\n    }\n    if (lane >= COLUMN_LANES";
        "a gradient by A or B is stored over those before": "case ADD_INTO: { value += load_out(at, count); }" => "case ADD_INTO: {}";
        "the argument's slope is not taken": "store_dx(at, count, sloped(x, d));" => "store_dx(at, count, d);";
    }
    "feed_forward_backward" {
        "a chunk's gradients have the gate of another": "store_dgate(at, count, d * value);" => "store_dgate(at, count, value);";
        "what was hidden has no gate": "store_hidden(at, count, value * gate);" => "store_hidden(at, count, value);";
        "what was hidden is its argument": "store_hidden(at, count, activated(x));" => "store_hidden(at, count, x);";
        "what was hidden is left": "if (KEEPS_HIDDEN) { store_hidden(at, count, activated(x)); }" => "";
        "a chunk's weights begin at the first row of B": "params.b_at + tile.batch * params.b_batch" => "tile.batch * params.b_batch";
        "a chunk's weights begin at the first row of A": "params.a_at + tile.batch * params.a_batch" => "tile.batch * params.a_batch";
        "a chunk's dx is written to the first's place": "params.out_at + tile.batch" => "tile.batch";
    }
    "feed_forward" {
        "a chunk's rows are those of the first": "params.a_at + tile.batch" => "tile.batch";
        "a chunk is written to the first's place": "params.out_at + tile.batch" => "tile.batch";
        "a chunk has the first's residual": "params.residual_at + tile.batch" => "tile.batch";
        "the gate is not multiplied": "case MULTIPLY_INTO: { value *= load_out(at, count); }" => "case MULTIPLY_INTO: {}";
        "16 bits that are multiplied are their neighbours'": "vec4(widen_x2(word.x), widen_x2(word.y))" => "vec4(widen_x2(word.x), widen_x2(word.x))";
        "16 bits that are multiplied are the word's other half": "widen_x2(atomicLoad(&out[e / 2u]))[e % 2u]" => "widen_x2(atomicLoad(&out[e / 2u]))[0u]";
        "a hidden value that f16 does not hold is infinite": "clamp(x, vec2(-65504.0), vec2(65504.0))" => "x";
    }
    "rotary_tables" {
        "all rows of a table are the first position's": "let position = params.first + t;" => "let position = params.first;";
        "tables begin at position 0": "let position = params.first + t;" => "let position = t;";
        "the low word of a frequency is dropped": "position * f.y + high_product(position, f.x)" => "position * f.y";
        "a carry is lost": "let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);" => "let other = (a & 0xffffu) * (b >> 16u);";
        "half of the product is lost": "return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u);" => "return (middle >> 16u) + (other >> 16u);";
        "quarters are cut off": "let quarter = (angle + 0x20000000u) >> 30u;" => "let quarter = angle >> 30u;";
        "odd quarters keep cos and sin": "let is_odd = (quarter & 1u) == 1u;" => "let is_odd = false;";
        "cos is not negative in the third quarter": "quarter == 1u || quarter == 2u" => "quarter == 1u";
        "sin is never negative": "select(sine, -sine, quarter >= 2u)" => "sine";
        "cos has no attention factor": "cosines[item] = params.factor * select" => "cosines[item] = select";
        "sin has no attention factor": "    sines[item] = params.factor * select" => "    sines[item] = select";
        "the sine has a term less": "fma(y, fma(y, fma(y, 1.0 / 362880.0, -1.0 / 5040.0), 1.0 / 120.0), -1.0 / 6.0)" => "fma(y, 1.0 / 120.0, -1.0 / 6.0)";
        "the cosine has a term less": "let p = fma(y, fma(y, fma(y, -1.0 / 3628800.0, 1.0 / 40320.0), -1.0 / 720.0), 1.0 / 24.0);" => "let p = fma(y, -1.0 / 720.0, 1.0 / 24.0);";
        "pairs have the first one's frequency": "frequencies[item % params.half]" => "frequencies[0]";
    }
    "rotary" {
        "pairs turn the other way": "-partner, is_first != INVERSE)" => "-partner, is_first == INVERSE)";
        "what does not turn is turned": "if (c >= rotary_dim) { return own; }" => "";
        "halves are those of the row": "let half = rotary_dim / 2u;" => "let half = dim / 2u;";
        "every position is the first": "+ t * (params.rotary_dim / 2u)" => "";
        "tables are the first item's": "batch * params.table_batch + " => "";
        "heads of x are the first": "head * params.x_head + " => "";
        "heads of out are the first": "head * params.out_head + " => "";
        "neighbours share the angle of the next pair": "select(c % half, c / 2u, INTERLEAVED)" => "select(c % half, (c + 1u) / 2u, INTERLEAVED)";
    }
    "backward/rows" {
        "the mean of g is not subtracted": "if (CENTERED) { mean_g = sum_over_lanes(lane, own.g) / f32(params.width); }" => "";
        "an RMS norm subtracts the mean of g": "if (CENTERED) { mean_g = " => "if (true) { mean_g = ";
        "the row's direction is not taken out": " - z * mean_gz) * factor" => ") * factor";
        "means are sums": "let mean_gz = sum_over_lanes(lane, own.gz) / f32(params.width);" => "let mean_gz = sum_over_lanes(lane, own.gz);";
        "dx has no factor": "- z * mean_gz) * factor" => "- z * mean_gz)";
        "dx stays scaled": "let factor = record.w * record.x;" => "let factor = record.w;";
        "g has no weight": "count) * load_weight(c, count);\n}" => "count);\n}";
        "rows of dout follow without a gap": "load_dout(row * params.other_row + c" => "load_dout(row * params.width + c";
        "rows of dx follow without a gap": "let at = row * params.out_row + c;" => "let at = row * params.width + c;";
        "blocks of g are dropped": "sum_g += part_g;" => "sum_g = part_g;";
        "dx is not added to": "if (INTO) { dx += load_out(at, count); }" => "";
        "a row with infinity has a dx": "if (is_none(view)) {\n        let nan" => "if (false) {\n        let nan";
        "a row with infinity has no record": "records[row] = vec4(1.0, 0.0, 0.0, nan);" => "records[row] = vec4(1.0, 0.0, 0.0, 0.0);";
        "the record has no rest": "vec4(view.scale, view.mean, view.rest, " => "vec4(view.scale, view.mean, 0.0, ";
        "every row has the first record": "normalised(records[row], " => "normalised(records[0], ";
        "dweight is of x as it is": "(bitcast<vec4<f32>>(centred | vec4(nothing)) - record.z) * record.w" => "(bitcast<vec4<f32>>(centred | vec4(nothing)) - record.z)";
        "the sum is of the first block alone": "own_sum(block * BLOCK + lane / COLUMN_LANES, min(block * BLOCK + BLOCK, params.kernel.rows), column)" => "own_sum(lane / COLUMN_LANES, min(BLOCK, params.kernel.rows), column)";
        "a block goes on into the next": "min(block * BLOCK + BLOCK, params.kernel.rows), column)" => "params.kernel.rows, column)";
        "lanes of a column are lost": "step >= COLUMN_LANES; step /= 2u" => "step > COLUMN_LANES; step /= 2u";
        "no barrier among the lanes of a column": "workgroupBarrier();\n        if (lane < step) { partial[lane] += partial[lane + step]; }\n    }\n    if (lane >= COLUMN_LANES" => "if (lane < step) { partial[lane] += partial[lane + step]; }\n    }\n    if (lane >= COLUMN_LANES";
        "every block is written to the first": "params.kernel.out_at + block * params.kernel.columns + column" => "params.kernel.out_at + column";
        "columns are those of the first tile": "work % params.kernel.column_tiles * COLUMN_LANES" => "0u";
        "the sum of columns is not added": "if (INTO) { sum += load_out(at, count); }" => "";
        "rows of a sum follow without a gap": "params.terms.x_at + row * params.terms.x_row + column" => "params.terms.x_at + row * params.kernel.columns + column";
        "dout is that of the next row": "load_dout(row * params.terms.dout_row + column, count) * z" => "load_dout(max(row, 1u) * params.terms.dout_row - params.terms.dout_row + column, count) * z";
        "a softmax's gradient keeps its mean": "count) - sum);" => "count));";
        "a softmax's gradient has no weight": "var dx = y * (load_dout" => "var dx = (load_dout";
        "the gradient turns on": "-partner, is_first != INVERSE)" => "-partner, is_first)";
    }
    "backward/embed" {
        "the sum ends before its run": "end = n + 1u;" => "";
        "the sum goes on behind its block": "n < (block + 1u) * BLOCK; n++" => "n < params.rows; n++";
        "a run that goes on is written": "let is_whole = is_beginning && !goes_on(id, end);" => "let is_whole = is_beginning;";
        "the places are those of the sorted ids": "places[n] * params.dout_row + c" => "n * params.dout_row + c";
        "rows of dout begin where it does": "params.dout_at + places[n]" => "places[n]";
        "a run is not carried on": "|| place % BLOCK == 0u" => "";
        "a block carries one sum": "2u * block + u32(is_beginning)" => "2u * block";
        "only the beginning is carried": "n * BLOCK < params.rows; n++" => "n * BLOCK < 0u; n++";
        "the carry of the beginning is lost": "var sum = carried(carry_at(block, true) + c, count);" => "var sum = vec4(0.0);";
        "a run that began before is added up again": "let begins_here = ids[block * BLOCK] != id || begins(block * BLOCK);" => "let begins_here = true;";
        "a run that begins a block is lost": "ids[block * BLOCK] != id || begins(block * BLOCK)" => "ids[block * BLOCK] != id";
        "the first id begins no run": "place == 0u || ids[place - 1u] != ids[place]" => "ids[max(place, 1u) - 1u] != ids[place]";
        "the row of padding has a gradient": "!(params.has_padding != 0u && id == params.padding)" => "true";
        "row 0 never has a gradient": "params.has_padding != 0u && id == params.padding" => "id == params.padding";
        "the table's gradient is not added": "if (INTO) { value += load_out(at, count); }\n    store_out(at, count, value);\n}" => "store_out(at, count, value);\n}";
        "columns past the first 256 are lost": "for (var c = 4u * lane; c < params.width; c += 4u * LANES) {\n        let count = params.width - c;\n        var sum = vec4(0.0);\n        for (var n = place" => "for (var c = 4u * lane; c < min(params.width, 64u); c += 4u * LANES) {\n        let count = params.width - c;\n        var sum = vec4(0.0);\n        for (var n = place";
    }
}
