//! Faults of attention: of the online softmax, the sets of keys, the terms, the parts, the tiles.

wgpu_attention_testing::mutants! {
    // --- the online softmax ---
    "o is not rescaled" ["bound"]
        "o = scaled(o, rescale);" => "";
    "the second half of o is not rescaled" ["resident"]
        "if (WIDE) { wide = scaled(wide, rescale); }" => "";
    "l is not rescaled" ["bound"]
        "fma(l, rescale, " => "fma(l, vec4(1.0), ";
    "o is rescaled by another row's factor" ["bound"]
        "o.b0 * f.y" => "o.b0 * f.x";
    "o gets another row's weight" ["bound"]
        "fma(vec4(p.z), v0, o.c0)" => "fma(vec4(p.y), v0, o.c0)";
    "the maximum misses a lane" ["steep"]
        "for (var c = 1u; c < LANES_C; c++) { result = max" => "for (var c = 2u; c < LANES_C; c++) { result = max";
    "the maximum is of this tile alone" ["steep", "bound"]
        "max(m, max_over_lanes(lane, maxima(s)))" => "max_over_lanes(lane, maxima(s))";
    "the sum misses a lane" ["count"]
        "for (var c = 1u; c < LANES_C; c++) { result += " => "for (var c = 2u; c < LANES_C; c++) { result += ";
    "the sum takes one row's for another's" ["bound"]
        "sum4(p.c), sum4(p.d))" => "sum4(p.d), sum4(p.c))";
    "scale is not applied" ["bound"]
        " * params.q_scale" => "";
    // --- which keys ---
    "the last tile of keys of a stretch is skipped" ["count"]
        "offset < stretch; offset += params" => "offset + KEYS < stretch; offset += params";
    "the last run is skipped" ["count"]
        "run < end; run++" => "run + 1u < end; run++";
    "partial is taken as full" ["count"]
        "let kind = mask[params.runs_at + 3u * run + 2u];" => "let kind = FULL;";
    "the blocks of a partial run are all the first" ["gather", "bound"]
        "first_block * BLOCK_K + done + offset" => "first_block * BLOCK_K + offset";
    "bit tiles are read with another pitch" ["count"]
        "(tile * BLOCK_Q + row) * WORDS_A_TILE_ROW" => "(tile * BLOCK_Q + row) * (WORDS_A_TILE_ROW - 1u)";
    "bit tiles are read from the first key of the block" ["count"]
        "min(t + tile.offset, vec4(BLOCK_K - 1u))" => "min(t, vec4(BLOCK_K - 1u))";
    "bit tiles are read from the first row of the block" ["count"]
        "return row % BLOCK_Q;" => "return row % ROWS;";
    "the bit of a key is that of its neighbour" ["count"]
        "(words >> (key % vec4(32u)))" => "(words >> ((key ^ vec4(1u)) % vec4(32u)))";
    "a short tile of keys is not masked" ["short tiles"]
        "min(KEYS, stretch - offset)" => "KEYS";
    "heads share the first head's mask" ["count"]
        " + at.head * params.mask_head" => "";
    "batch items share the first item's mask" ["count"]
        "at.batch * params.mask_batch + at.head" => "at.head";
    "dropped keys weigh as much as a row's maximum" ["count"]
        "p.b = select(vec4(0.0), p.b, s.b > vec4(DROPPED));" => "";
    // --- where tensors lie ---
    "the key/value head is the query head" ["bound"]
        "let kv_head = head / params.heads_a_kv_head;" => "let kv_head = head % 2u;";
    "k lies at the query head" ["gather"]
        "kv_head * params.k_head" => "head * params.k_head";
    "v lies at the query head" ["gather"]
        "kv_head * params.v_head" => "head * params.v_head";
    "q lies at k's head stride" ["bound"]
        "head_of(at, own) * params.q_head" => "head_of(at, own) * params.k_head";
    "out lies at q's head stride" ["bound"]
        "head * params.out_head + i * params.out_row;\n    return" => "head * params.q_head + i * params.out_row;\n    return";
    "the chunks of k are all the first" ["bound"]
        "load_k(at.k_at + j * params.k_row, chunk + g)" => "load_k(at.k_at + j * params.k_row, g)";
    "the chunks of a resident q are all the first" ["resident"]
        "select(0u, chunk, Q_RESIDENT)" => "0u";
    "the pieces of v are all the first" ["bound"]
        "stage_v(at, lane, tile, key)" => "stage_v(at, lane, tile, 0u)";
    "rows past the last are written" ["bound"]
        "if (row >= at.end_row) { return RowEnd(); }" => "";
    "columns past the last are written" ["bound"]
        " || group >= VALUE_GROUPS" => "";
    // --- barriers: all show on a software adapter, which runs 8 lanes in step and the next 8 after them. One is not here:
    // the first of sum_over_lanes, which those around v make redundant ---
    "no barrier after k is staged" ["bound"]
        "stage_k(at, lane, tile.first, chunk, groups);\n        workgroupBarrier();"
            => "stage_k(at, lane, tile.first, chunk, groups);";
    "no barrier before q and k are staged" ["bound"]
        "workgroupBarrier(); // the last tile's v" => "// the last tile's v";
    "no barrier between the pieces of v" ["bound"]
        "if (key > 0u) { workgroupBarrier(); }" => "";
    "no barrier after v is staged" ["bound"]
        "tile, key);\n        workgroupBarrier();" => "tile, key);";
    "no barrier within the maximum" ["bound"]
        "vec4<f32> {\n    arena[REDUCE_AT + lane.c * LANES_R + lane.r] = x;\n    workgroupBarrier();"
            => "vec4<f32> {\n    arena[REDUCE_AT + lane.c * LANES_R + lane.r] = x;";
    "no barrier within the sum" ["resident"]
        "read to its end\n    arena[REDUCE_AT + lane.c * LANES_R + lane.r] = x;\n    workgroupBarrier();"
            => "read to its end\n    arena[REDUCE_AT + lane.c * LANES_R + lane.r] = x;";
    // --- few queries ---
    "splits take the same tiles" ["split"]
        "var wait = at.split;" => "var wait = 0u;";
    "a split takes every tile from its first on" ["split"]
        "offset += params.splits * KEYS" => "offset += KEYS";
    "splits overwrite each other" ["split"]
        "let batch = at.split * params.batch + at.batch;" => "let batch = at.batch;";
    "the splits' maximum is the first one's" ["split"]
        "m = max(m, state[2u * (s * params.rows + row)]);" => "m = state[2u * row];";
    "splits weigh by their sums alone" ["split"]
        "select(exp2(max(m_s - m, -200.0)), 1.0, m_s == m)" => "1.0";
    "the rows of all splits are the first one's" ["split"]
        "merged[s * params.rows * VALUE_GROUPS + item]" => "merged[item]";
    "merged rows are not divided by the sum" ["split"]
        "else { o *= select(0.0, 1.0 / l, l > 0.0); }" => "";
    "packed rows are all of the first head" ["packed"]
        "at.head + min(row, params.q_count - 1u) / params.q_len" => "at.head";
    "packed rows see what their place says" ["packed"]
        "if (PACKED) { return row % params.q_len; }\n    return row % BLOCK_Q;" => "return row % BLOCK_Q;";
    "packed rows are all of the first query" ["packed"]
        "min(row, params.q_count - 1u) % params.q_len; }" => "0u; }";
    "packed groups of heads are all the first" ["packed"]
        "if (PACKED) { head *= params.heads_a_kv_head; }" => "if (PACKED) { head = 0u; }";
    // --- the direct tile ---
    "direct: o is not rescaled" ["direct"]
        "mat4x4(o[0] * rescale, o[1] * rescale, " => "mat4x4(o[0] * rescale, o[1], ";
    "direct: a column of keys is another's" ["direct"]
        "let j2 = keys_of(at, tile, 2u);" => "let j2 = keys_of(at, tile, 1u);";
    "direct: the maximum misses a column" ["direct"]
        "max(maxima(s2), maxima(s3))" => "maxima(s2)";
    "direct: the maximum is of this tile alone" ["direct"]
        "raise_maximum(max(m, max(max(maxima(s0), maxima(s1)), max(maxima(s2), maxima(s3)))))"
            => "raise_maximum(max(max(maxima(s0), maxima(s1)), max(maxima(s2), maxima(s3))))";
    "direct: the sum misses a column" ["direct"]
        " + (sums(p2) + sums(p3))" => " + sums(p2)";
    "direct: scores are masked as another column's" ["direct"]
        "Lane(lane.index, lane.r, 3u)" => "Lane(lane.index, lane.r, 0u)";
    "direct: weights are those of another column" ["direct"]
        "let w1 = by_key(p1);" => "let w1 = by_key(p0);";
    "direct: an element of q meets another of k" ["direct"]
        "fma(q[2], vec4(k.z)" => "fma(q[2], vec4(k.w)";
    "direct: a column of v is its neighbour's" ["direct"]
        "fma(p, vec4(v.z), o[2])" => "fma(p, vec4(v.w), o[2])";
    "direct: the queries of a lane are all the first" ["direct"]
        "scaled_query(at, lane.r + 2u * LANES_R, g)" => "scaled_query(at, lane.r, g)";
    "direct: the groups of q are all the first" ["direct"]
        "let q_g = own_q[g];" => "let q_g = own_q[0u];";
    "direct: rows are written for each other" ["direct"]
        "write_group(b, g, o[1]);" => "write_group(b, g, o[2]);";
    "direct: a row's state is not written" ["direct"]
        "    write_stats(b);\n    write_stats(c);\n    write_stats(d);\n}\n\nfn keys_of"
            => "    write_stats(b);\n    write_stats(c);\n}\n\nfn keys_of";
    // --- the tile of cooperative matrices ---
    "matrix: the output is not rescaled" ["matrix"]
        "workgroupUniformLoad(&raised) != 0u" => "workgroupUniformLoad(&raised) > 1u";
    "matrix: the sum is not rescaled" ["matrix"]
        "    l *= factor;" => "";
    "matrix: a maximum is never raised" ["matrix"]
        "late | empty" => "empty";
    "matrix: the maximum misses a lane" ["matrix"]
        "for (var c = 0u; c < LANES_C; c++) {\n        result = max(" => "for (var c = 1u; c < LANES_C; c++) {\n        result = max(";
    "matrix: a row is rescaled by another's factor" ["matrix"]
        "row_factor[lane.r + LANES_R] = factor.y;" => "row_factor[lane.r + LANES_R] = factor.x;";
    "matrix: a patch is rescaled by the first rows' factors" ["matrix"]
        "row_factor[subgroup / SUBGROUPS_C * 2u * MATRIX + e % PATCH / MATRIX]" => "row_factor[e % PATCH / MATRIX]";
    "matrix: the lower rows get the upper rows' weights" ["matrix"]
        "o11 = coopMultiplyAdd(p1, v1, o11);" => "o11 = coopMultiplyAdd(p0, v1, o11);";
    "matrix: a column of matrices is its neighbour's" ["matrix"]
        "o03 = coopMultiplyAdd(p0, v3, o03);" => "o03 = coopMultiplyAdd(p0, v2, o03);";
    "matrix: the lower scores are those of the upper rows" ["matrix"]
        "s10 = coopMultiplyAdd(q1, k0, s10);" => "s10 = coopMultiplyAdd(q0, k0, s10);";
    "matrix: keys lie as columns" ["matrix"]
        "let k0 = coopLoad<mat_b>(" => "let k0 = coopLoadT<mat_b>(";
    "matrix: the weights keep their factor" ["matrix"]
        "sum_over_lanes(lane, l) * UNBOOST" => "sum_over_lanes(lane, l)";
    "matrix: weights are rounded to 8 bits" ["matrix"]
        "0xffffe000u" => "0xffff0000u";
    "matrix: sums are of the weights before rounding" ["matrix"]
        "return sum4(rounded);" => "return sum4(BOOST * p);";
    "matrix: the second columns are written from the first" ["matrix"]
        "write_patch(share, o01, o11);\n    write_columns" => "write_patch(share, o00, o10);\n    write_columns";
    "matrix: the keys of a tile are all the first" ["matrix"]
        "load_k(at.k_at + key_at(at, tile.first + key)" => "load_k(at.k_at + key_at(at, tile.first)";
    "matrix: a row's state is another's" ["matrix"]
        "keep_row(lane.r + 2u * LANES_R, m.z, l.z);" => "keep_row(lane.r + 2u * LANES_R, m.y, l.y);";
    "matrix: no barrier after k is staged" ["matrix"]
        "stage_k(at, lane, tile);\n    workgroupBarrier();" => "stage_k(at, lane, tile);";
    "matrix: no barrier after the scores" ["matrix"]
        "multiply_keys(share);\n    workgroupBarrier();" => "multiply_keys(share);";
    "matrix: no barrier before a patch is read" ["matrix"]
        "coopStoreT(lower, &products[share.patch_at + MATRIX * MATRIX], MATRIX);\n    workgroupBarrier();"
            => "coopStoreT(lower, &products[share.patch_at + MATRIX * MATRIX], MATRIX);";
    // --- score terms ---
    "log2(e) is missing" ["terms"]
        "vec4(2.3e38)) * LOG2_E" => "vec4(2.3e38))";
    "softcap comes after the bias" ["terms"]
        "if (HAS_SOFTCAP) { s = params.softcap * tanh_of(s / params.softcap); }" => "",
        "    // Times log2(e)"
            => "    if (HAS_SOFTCAP) { s = params.softcap * tanh_of(s / params.softcap); }\n    // Times log2(e)";
    "softcap loses the sign" ["terms"]
        "return sign(x) * " => "return ";
    "the bias is that of query 0" ["terms"]
        " + i * params.bias_query" => "";
    "the bias is that of head 0" ["terms"]
        " + head * params.bias_head" => "";
    "a bias of minus infinity does not remove" ["removed"]
        "return select(s, vec4(DROPPED), removed);" => "return s;";
    "ALiBi looks the other way" ["terms"]
        "vec4<i32>(j) - vec4(i32(i))" => "vec4(i32(i)) - vec4<i32>(j)";
    "ALiBi takes head 0's slope" ["terms"]
        "mask[params.slopes_at + head]" => "mask[params.slopes_at]";
    // --- the end of a row ---
    "an empty row is not 0" ["count"]
        "select(0.0, 1.0 / all_l, all_l > 0.0)" => "1.0 / all_l";
    "lse is in base 2" ["lse"]
        "(end.m + log2(end.l)) * 0.6931471805599453" => "(end.m + log2(end.l))";
    "lse of an empty row is not f32::MIN" ["lse"]
        "select(DROPPED, (end.m + log2(end.l)) * 0.6931471805599453, end.l > 0.0)"
            => "(end.m + log2(max(end.l, 1.0e-30))) * 0.6931471805599453";
    "lse of several parts is in base 2" ["parts"]
        "(m + log2(l)) * 0.6931471805599453" => "(m + log2(l))";
    "NaN in v reaches rows that do not attend it" ["isolated"]
        "{ return select(x, vec4(0.0), not_finite(x)); }" => "{ return x; }";
    // --- parts ---
    "the sum forgets the earlier parts" ["parts"]
        "all_l = fma(row_l, new_weight, old_weight);" => "all_l = row_l * new_weight;";
    "the output takes the earlier parts' unweighted" ["parts"]
        "vec4(end.old_weight), x)" => "vec4(1.0), x)";
    "parts merge by the last one's maximum" ["floor parts"]
        "all_m = max(row_m, old_m);" => "all_m = row_m;";
    "a part's weight is not that of its maximum" ["parts"]
        "new_weight = exp2(max(row_m - all_m, -200.0));" => "new_weight = 1.0;";
    "a part leaves no state" ["parts"]
        "stats[2u * end.stat] = end.m;" => "";
    "a part's sum is not left" ["parts"]
        "stats[2u * end.stat + 1u] = end.l;" => "stats[2u * end.stat + 1u] = 1.0;";
    "the state is replaced before all lanes have read it" ["resident parts"]
        "if (STATS == STATS_STATE) { storageBarrier(); }" => "";
    "the order of queries is ignored" ["parts"]
        "return mask[params.q_order_at + min(row, params.q_count - 1u)];" => "return row;";
    "the bias of a gathered key is read within the part's keys" ["gathered terms"]
        "+ j * params.bias_key;" => "+ min(j, vec4(params.k_count - 1u)) * params.bias_key;";
    "the order of keys is that of queries" ["parts"]
        "mask[params.k_order_at + place]" => "mask[params.q_order_at + place]";
    "rows of several parts are narrowed into head 0" ["f16 parts"]
        "batch * params.out_batch + head * params.out_head + i" => "batch * params.out_batch + i";
    // --- element types ---
    "f16 halves are swapped when written" ["f16"]
        "pack2x16float(clamp(x, " => "pack2x16float(clamp(x.yx, ";
    "f16 halves are swapped when read" ["f16"]
        "vec4(unpack2x16float(word.x), unpack2x16float(word.y))"
            => "vec4(unpack2x16float(word.y), unpack2x16float(word.x))";
    "an odd f16 is read as its neighbour" ["odd f16"]
        "unpack2x16float(word)[index % 2u]" => "unpack2x16float(word)[0]";
    "bf16 is read with its neighbour's bits" ["bf16"]
        "word.x & 0xffff0000u, word.y << 16u" => "word.x, word.y << 16u";
    "an odd bf16 is read as its neighbour" ["odd bf16"]
        "index % 2u == 1u" => "index % 2u == 0u";
    "bf16 is cut instead of rounded" ["rounding"]
        "bits + vec2(0x7fffu) + ((bits >> vec2(16u)) & vec2(1u))" => "bits";
    "an odd 16-bit store clears its neighbour" ["odd f16"]
        "0xffff0000u >> shift" => "0u";
    "an odd 16-bit store keeps the old bits" ["odd f16"]
        "atomicAnd(&out[e / 2u], 0xffff0000u >> shift);" => "";
    "odd rows of f32 are written to whole groups" ["odd f32"]
        "min(4u, VALUE_DIM - 4u * group); t++) { out[" => "4u; t++) { out[";
    "odd rows are padded with their last element" ["odd f32"]
        "k[w.z], e.z), widen_x1(k[w.w], e.w));\n    return select(vec4(0.0), x, c < vec4(HEAD_DIM));"
            => "k[w.z], e.z), widen_x1(k[w.w], e.w));\n    return x;",
        "widen_x1(q[w.w], e.w));\n    return select(vec4(0.0), x, c < vec4(HEAD_DIM));"
            => "widen_x1(q[w.w], e.w));\n    return x;";
    "odd rows of v are read one element late" ["odd f32"]
        "let e = vec4(row) + min(c, vec4(VALUE_DIM - 1u));"
            => "let e = vec4(row) + min(c + vec4(1u), vec4(VALUE_DIM - 1u));";
}
