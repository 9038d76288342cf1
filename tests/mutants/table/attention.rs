//! Faults of attention: of the online softmax, the sets of keys, the terms, the parts, the tiles.

wgpu_attention_testing::mutants! {
    // --- the online softmax ---
    "o is not rescaled" ["bound"]
        "o.near = rescaled(o.near, own.rescale, x.near);" => "o.near = rescaled(o.near, vec4(1.0), x.near);";
    "the second half of o is not rescaled" ["resident"]
        "o.more = rescaled(o.more, own.rescale, x.more);" => "o.more = rescaled(o.more, vec4(1.0), x.more);";
    "l is not rescaled" ["bound"]
        "fma(l, rescale, " => "fma(l, vec4(1.0), ";
    "o is rescaled by another row's factor" ["bound"]
        "fma(o.b0, vec4(f.y), x.b0)" => "fma(o.b0, vec4(f.x), x.b0)";
    "o gets another row's weight" ["bound"]
        "fma(vec4(p.z), v0, o.c0)" => "fma(vec4(p.y), v0, o.c0)";
    "the maximum misses a lane" ["steep"]
        "for (var c = 1u; c < LANES_C; c++) { result = max" => "for (var c = 2u; c < LANES_C; c++) { result = max";
    "the maximum is of this tile alone" ["steep", "bound"]
        "max(m, max_over_lanes(lane))" => "max_over_lanes(lane)";
    "the sum misses a lane" ["count"]
        "for (var c = 1u; c < LANES_C; c++) { result += " => "for (var c = 2u; c < LANES_C; c++) { result += ";
    "the sum takes one row's for another's" ["bound"]
        "sum4(p.c), sum4(p.d))" => "sum4(p.d), sum4(p.c))";
    "scale is not applied" ["bound"]
        "return content(at, row, group) * params.kernel.q_scale;" => "return content(at, row, group);";
    // --- which keys ---
    "the last tile of keys of a stretch is skipped" ["count"]
        "var end_key = stretch;" => "var end_key = stretch - min(stretch, KEYS);";
    "the last run is skipped" ["count"]
        "run < end; run++" => "run + 1u < end; run++";
    "partial is taken as full" ["count"]
        "let kind = mask[params.keep.runs_at + 3u * run + 2u];" => "let kind = FULL;";
    "the blocks of a partial run are all the first" ["gather", "bound"]
        "first_block * BLOCK_K + done + offset" => "first_block * BLOCK_K + offset";
    "bit tiles are read with another pitch" ["count"]
        "(tile * BLOCK_Q + row) * WORDS_PER_TILE_ROW" => "(tile * BLOCK_Q + row) * (WORDS_PER_TILE_ROW - 1u)";
    "bit tiles are read from the first key of the block" ["count"]
        "min(t + tile.offset, vec4(BLOCK_K - 1u))" => "min(t, vec4(BLOCK_K - 1u))";
    "bit tiles are read from the first row of the block" ["count"]
        "return row % BLOCK_Q;" => "return row % ROWS;";
    "the bit of a key is that of its neighbour" ["count"]
        "mask[row_at + key.x / 32u] >> (key.x % 32u);" => "mask[row_at + key.x / 32u] >> ((key.x ^ 1u) % 32u);";
    "the bit of a key is that of its neighbour, where words are several" ["resident"]
        "mask[row_at + key.z / 32u] >> (key.z % 32u);" => "mask[row_at + key.z / 32u] >> ((key.z ^ 1u) % 32u);";
    "the keys of two words change places" ["resident"]
        "((near & 0x10001u) | ((far & 0x10001u) << 8u))" => "((far & 0x10001u) | ((near & 0x10001u) << 8u))";
    "a row attends the strange keys of the next one" ["strange"]
        "(rows.z << 2u) | (rows.w << 3u)" => "(rows.z << 3u) | (rows.w << 2u)";
    "the bits of a word are those of other keys" ["count"]
        "min(KEY_STRIDE, 8u) * vec4" => "min(KEY_STRIDE, 4u) * vec4";
    "a short tile of keys is not masked" ["short tiles"]
        "min(KEYS, stretch - offset)" => "KEYS";
    "heads share the first head's mask" ["count"]
        " + at.head * params.keep.head" => "";
    "batch items share the first item's mask" ["count"]
        "at.batch * params.keep.batch + at.head" => "at.head";
    "dropped keys weigh as much as a row's maximum" ["count"]
        "p.b = attended(p.b, s.b);" => "";
    // --- where tensors lie ---
    "the key/value head is the query head" ["bound"]
        "let kv_head = head / params.kernel.heads_per_kv_head;" => "let kv_head = head % 2u;";
    "k lies at the query head" ["gather"]
        "row_at(params.k, batch, kv_head, 0u)" => "row_at(params.k, batch, head, 0u)";
    "v lies at the query head" ["gather"]
        "row_at(params.v, batch, kv_head, 0u)" => "row_at(params.v, batch, head, 0u)";
    "q lies at k's head stride" ["bound"]
        "row_at(params.q, at.batch, head_of(at, own)" => "row_at(Rows(params.q.offset, params.q.batch, params.k.head, params.q.row), at.batch, head_of(at, own)";
    "out lies at q's head stride" ["bound"]
        "row_at(params.out, " => "row_at(Rows(params.out.offset, params.out.batch, params.q.head, params.out.row), ";
    "the chunks of k are all the first" ["bound"]
        "load_k(key_offset(at, first + key) + 4u * (chunk + g), HEAD_DIM - 4u * (chunk + g))"
            => "load_k(key_offset(at, first + key) + 4u * g, HEAD_DIM - 4u * g)";
    "the chunks of a resident q are all the first" ["resident"]
        "select(0u, chunk / CHUNK * ROWS, Q_RESIDENT)" => "0u";
    "the last step of a chunk is left out" ["bound"]
        "if (is_group(chunk, 3u)) { s = with_group(s, q, k, 3u); }" => "";
    "a step of values is taken twice" ["bound"]
        "with_column(with_column(sum, p_at, v_at, 2u), p_at, v_at, 3u)" => "with_column(with_column(sum, p_at, v_at, 2u), p_at, v_at, 2u)";
    "a query of a narrow tile has the weights of another" ["narrow"]
        "sum.near.d0 = fma(vec4(p.w), v0, x.near.d0);" => "sum.near.d0 = fma(vec4(p.z), v0, x.near.d0);";
    "NaN in the columns of a narrow tile is lost" ["narrow"]
        "any(not_finite(o.c0)), any(not_finite(o.d0)));" => "any(not_finite(o.c0)), false);";
    "subgroups of a row have the keys of the first" ["narrow"]
        "subgroup % per_row * size + own));" => "own));";
    "subgroups of a row have rows of their own" ["narrow"]
        "subgroup / per_row, " => "subgroup, ";
    "far keys are masked as the near ones" ["far"]
        "s.far = scores(at, beyond(lane), tile, products.far);" => "s.far = scores(at, lane, tile, products.far);";
    "lower queries are masked as the upper ones" ["tall"]
        "lower = compared(at, below(lane), tile, products.lower);" => "lower = compared(at, lane, tile, products.lower);";
    "lower queries are multiplied as the upper ones" ["tall"]
        "fours(q + LANES_R / 2u, n)" => "fours(q, n)";
    "values are weighed for lower queries as for the upper ones" ["tall"]
        "arena[p_at + LANES_R / 2u][n], v0, v1" => "p, v0, v1";
    "the output of lower queries is rescaled as that of the upper ones" ["tall"]
        "rescaled(o.more, others_own.rescale, x.more)" => "rescaled(o.more, own.rescale, x.more)";
    "lower queries begin as the upper ones" ["tall"]
        "begin_rows(at, below(lane));" => "begin_rows(at, lane);";
    "lower queries have the segments of the upper ones" ["tall"]
        "    turn_segments();\n" => "";
    "weights of lower queries are dropped as those of the upper ones" ["tall"]
        "    turn_dropout();\n" => "";
    "NaN in values that lower queries attend is lost" ["tall"]
        "note_strange_keys(below(lane), others_own.pairs);" => "";
    "lower queries are written in the rows of the upper ones" ["tall"]
        "write_fours(at, below(lane), strange_columns(o.more)" => "write_fours(at, lane, strange_columns(o.more)";
    "far keys do not count in the sum" ["far"]
        "new_l += sums(p_far);" => "";
    "the pieces of v are all the first" ["bound"]
        "stage_v(at, lane, tile, key)" => "stage_v(at, lane, tile, 0u)";
    "rows past the last are written" ["bound"]
        "if (row >= at.end_row) { return RowEnd(); }" => "";
    "columns past the last are written" ["bound"]
        " || group >= VALUE_GROUPS" => "";
    // --- barriers: all show on a software adapter, which runs 8 lanes in step and the next 8 after them. One is not here:
    // the first of sum_over_lanes, which those around v make redundant ---
    "no barrier after k is staged" ["bound"]
        "stage_k(at, lane, tile.first, chunk);\n        workgroupBarrier();" => "stage_k(at, lane, tile.first, chunk);";
    "no barrier before q and k are staged" ["bound"]
        "workgroupBarrier(); // the last tile's v" => "// the last tile's v";
    "no barrier between the pieces of v" ["bound"]
        "if (key > 0u || REDUCE_UNDER_V) { workgroupBarrier(); }" => "";
    "no barrier between the maximum and v, which lie at one place" ["far"]
        "if (key > 0u || REDUCE_UNDER_V)" => "if (key > 0u)";
    "no barrier after v is staged" ["bound"]
        "tile, key);\n        workgroupBarrier();" => "tile, key);";
    "no barrier within the maximum" ["bound"]
        "workgroupBarrier();\n    // Every lane is past the scores" => "// Every lane is past the scores";
    "no barrier within the sum" ["resident"]
        "read to their end\n    arena[strip_of_lane(lane, lane.c)][lane.c % CHUNK] = x;\n    workgroupBarrier();"
            => "read to their end\n    arena[strip_of_lane(lane, lane.c)][lane.c % CHUNK] = x;";
    // --- few queries ---
    "splits take the same tiles" ["split"]
        "var before = at.split * params.kernel.tiles_per_split;" => "var before = 0u;";
    "a split takes every tile from its first on" ["split"]
        "let taken = min(left, tiles - passed);" => "let taken = tiles - passed;";
    "tiles of earlier splits count anew in each run" ["split"]
        "                before -= passed;\n" => "";
    "a split takes its share of each run" ["split"]
        "                left -= taken;\n" => "";
    "a split with a tile is taken for one without" ["split"]
        "return at.split * params.kernel.tiles_per_split < tiles;" => "return at.split * params.kernel.tiles_per_split + 1u < tiles;";
    "runs of blocks count as one" ["split"]
        "select(blocks * tiles_of(BLOCK_K), tiles_of(blocks * BLOCK_K), full)" => "tiles_of(BLOCK_K)";
    "a split without keys leaves what was there" ["stale scratch"]
        "        leave_nothing(at, lane);\n" => "";
    "splits overwrite each other" ["split"]
        "let batch = at.split * params.kernel.batch + at.batch;" => "let batch = at.batch;";
    "the splits' maximum is the first one's" ["split"]
        "m = max(m, state[s * params.kernel.rows + row].x);" => "m = state[row].x;";
    "splits weigh by their sums alone" ["split"]
        "let w = split.y * shrink(split.x, m);" => "let w = split.y;";
    "the rows of all splits are the first one's" ["split"]
        "merged_group(s * params.kernel.rows * VALUE_GROUPS + group_at)" => "merged_group(group_at)";
    "merged rows are not divided by the sum" ["split"]
        " else { o *= select(1.0 / l, 0.0, is_zero(l)); }" => "";
    "packed rows are all of the first head" ["packed"]
        "at.head + min(row, params.kernel.q_count - 1u) / params.kernel.q_len" => "at.head";
    "packed rows see what their place says" ["packed"]
        "if (PACKED) { return row % params.kernel.q_len; }\n    return row % BLOCK_Q;" => "return row % BLOCK_Q;";
    "packed rows are all of the first query" ["packed"]
        "min(row, params.kernel.q_count - 1u) % params.kernel.q_len; }" => "0u; }";
    "packed groups of heads are all the first" ["packed"]
        "var head = n * params.kernel.heads_per_kv_head;" => "var head = 0u;";
    // --- the direct tile ---
    "direct: o is not rescaled" ["direct"]
        "fma(o[1], rescale, x[1])" => "o[1] + x[1]";
    "direct: a column of keys is another's" ["direct"]
        "let k2 = keys_of(at, tile, 2u);" => "let k2 = keys_of(at, tile, 1u);";
    "direct: the maximum misses a column" ["direct"]
        "max(maxima(s2), maxima(s3))" => "maxima(s2)";
    "direct: the maximum is of this tile alone" ["direct"]
        "raise_maximum(max(m, max(max(maxima(s0), maxima(s1)), max(maxima(s2), maxima(s3)))))"
            => "raise_maximum(max(max(maxima(s0), maxima(s1)), max(maxima(s2), maxima(s3))))";
    "direct: the sum misses a column" ["direct"]
        " + (sums(p2) + sums(p3))" => " + sums(p2)";
    "direct: scores are masked as another column's" ["direct"]
        "scores(at, Lane(lane.index, lane.r, 3u)" => "scores(at, Lane(lane.index, lane.r, 0u)";
    "direct: weights are those of another column" ["direct"]
        "let w1 = by_key(met(at, Lane(lane.index, lane.r, 1u), tile, p1));" => "let w1 = w0;";
    "direct: an element of q meets another of k" ["direct"]
        "fma(q[2], vec4(k.z)" => "fma(q[2], vec4(k.w)";
    "direct: a column of v is its neighbour's" ["direct"]
        "fma(p, vec4(v.z), x[2])" => "fma(p, vec4(v.w), x[2])";
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
    "cooperative: the output is not rescaled" ["cooperative"]
        "if (CARRIED) { rescale(lane, share); }" => "";
    "cooperative: the output is rescaled only where no row had any" ["cooperative"]
        "select(MAXIMUM, RESCALE, any(" => "select(RESCALE, MAXIMUM, any(";
    "cooperative: weights are those of the old maximum" ["cooperative"]
        "{ more = settle(lane, share, tile, s, wanted); }" => "{ let ignored = settle(lane, share, tile, s, wanted); }";
    "cooperative: nobody asks again" ["cooperative"]
        "if (wanted != 0u) {" => "if (wanted == MAXIMUM) {";
    "cooperative: a row has the maximum of another" ["cooperative"]
        "agreed_maximum(lane.r + 3u * LANES_R)" => "agreed_maximum(lane.r + 2u * LANES_R)";
    "cooperative: maxima below 0 are in the wrong order" ["cooperative"]
        "return bits ^ ((bits >> 31u) & 0x7fffffff);" => "return bits;";
    "cooperative: maxima begin at 0" ["cooperative"]
        "atomicStore(&row_maximum[row], in_order(DROPPED));" => "atomicStore(&row_maximum[row], 0);";
    "cooperative: the sum is not rescaled" ["cooperative"]
        "    l *= factor;" => "";
    "cooperative: a maximum is never raised" ["cooperative"]
        "if (!any(late)) { return; }" => "if (!any(late & (m == vec4(DROPPED)))) { return; }";
    "cooperative: the maximum misses a lane" ["cooperative"]
        "ask_for_maximum(lane.r, late.x, seen.x);" => "ask_for_maximum(lane.r, late.x && lane.c > 0u, seen.x);";
    "cooperative: a row is rescaled by another's factor" ["cooperative"]
        "tell_rows(lane, factor);" => "tell_rows(lane, factor.xxzw);";
    "cooperative: a patch is rescaled by the first rows' factors" ["cooperative"]
        "products[e] *= row_factor[row_of_piece(e)];" => "products[e] *= row_factor[e % PATCH / STEP];";
    "cooperative: the lower rows get the upper rows' weights" ["cooperative"]
        "o11 = coopMultiplyAdd(p1, v1, o11);" => "o11 = coopMultiplyAdd(p0, v1, o11);";
    "cooperative: a column of matrices is its neighbour's" ["cooperative"]
        "o03 = coopMultiplyAdd(p0, v3, o03);" => "o03 = coopMultiplyAdd(p0, v2, o03);";
    "cooperative: the lower scores are those of the upper rows" ["cooperative"]
        "s10 = coopMultiplyAdd(q1, k0, s10);" => "s10 = coopMultiplyAdd(q0, k0, s10);";
    "cooperative: keys lie as columns" ["cooperative"]
        "let k0 = coopLoad<mat_b>(" => "let k0 = coopLoadT<mat_b>(";
    "cooperative: the weights keep their factor" ["cooperative"]
        "sum_over_lanes(lane, marked(l)) * UNBOOST" => "sum_over_lanes(lane, marked(l))";
    "cooperative: weights are rounded to 8 bits" ["cooperative"]
        "0xffffe000u" => "0xffff0000u";
    "cooperative: sums are of the weights before rounding" ["cooperative"]
        "return sum4(rounded);" => "return sum4(BOOST * p);";
    "cooperative: the second columns are written from the first" ["cooperative"]
        "lay_down(lane, share, o01, o11, sums1);" => "lay_down(lane, share, o00, o10, sums0);";
    "cooperative: the keys of a tile are all the first" ["cooperative"]
        "key_offset(at, tile.first + key_of(slot))" => "key_offset(at, tile.first)";
    "cooperative: a row's state is another's" ["cooperative"]
        "row_factor[lane.r + 2u * LANES_R] = x.z;" => "row_factor[lane.r + 2u * LANES_R] = x.y;";
    "cooperative: no barrier after k is staged" ["cooperative"]
        "stage_k(at, lane, tile);\n    workgroupBarrier();" => "stage_k(at, lane, tile);";
    "cooperative: no barrier after the scores" ["cooperative"]
        "multiply_keys(share);\n    workgroupBarrier();" => "multiply_keys(share);";
    "cooperative: no barrier before a patch is read" ["cooperative"]
        "coopStoreT(lower, &products[share.patch_at + MATRIX * STEP], STEP);\n    workgroupBarrier();"
            => "coopStoreT(lower, &products[share.patch_at + MATRIX * STEP], STEP);";
    "cooperative: keys lie in the order of the tile, and nobody knows" ["cooperative"]
        "return slot % 4u * LANES_C + slot / 4u;" => "return slot;";
    "cooperative: values lie as one of their neighbours" ["cooperative"]
        "var c = value_group(at, tile, key + 2u * LANES_C, g);" => "var c = b;";
    "cooperative: values are not turned over" ["cooperative"]
        "vec4(a.y, b.y, c.y, d.y)" => "b";
    "cooperative: groups of columns are skipped" ["cooperative"]
        "let g = 4u * stripe + e % 4u;" => "let g = e % 4u;";
    // --- the same with sums in lanes ---
    "sums in lanes: products of the tile before are added again" ["sums in lanes"]
        "    if (!CARRIED) { forget_products(); }\n" => "";
    "sums in lanes: one matrix keeps what it held" ["sums in lanes"]
        "        o13 = nothing;\n" => "";
    "sums in lanes: they are not rescaled" ["sums in lanes"]
        "if (!joins_scaled) {" => "if (true) {";
    "sums in lanes: a piece takes another's products" ["sums in lanes"]
        "all.b = joined_piece(lane.index + LANES, sums.b);" => "all.b = joined_piece(lane.index, sums.b);";
    "sums in lanes: the last piece is lost" ["sums in lanes"]
        "            products[lane.index + 3u * LANES] = sums.d;\n" => "";
    "sums in lanes: no barrier before they are laid down" ["sums in lanes"]
        "workgroupBarrier(); // all lanes have read their rows' sums" => "";
    "sums in lanes: the third columns are the second's" ["sums in lanes"]
        "sums2 = joined(lane, sums2);" => "sums2 = joined(lane, sums1);";
    "sums in lanes: the tile's products are not taken" ["sums in lanes"]
        "if (!CARRIED) { take_products(lane, share, (wanted & RESCALE) != 0u); }" => "";
    // --- score terms ---
    "a power of e is taken for one of 2" ["terms"]
        "vec4(-100.0)) * TWICE_LOG2_E" => "vec4(-100.0)) * 2.0";
    "a power of e is taken for one of 2 where a maximum rises" ["terms"]
        "-0.5 * new_maximum), -100.0) * TWICE_LOG2_E" => "-0.5 * new_maximum), -100.0) * 2.0";
    "softcap comes after the bias" ["terms"]
        "    s = softcap_score(pairs, s);\n" => "",
        "    s = bias_score(pairs, s);\n" => "    s = bias_score(pairs, s);\n    s = softcap_score(pairs, s);\n";
    "softcap loses the sign" ["terms"]
        "select(-quotient, quotient, x >= vec4(0.0))" => "quotient";
    "the temperature is that of another head" ["temperature"]
        "let t = temperature[pairs.head];" => "let t = temperature[pairs.head ^ 1u];";
    "a sink is that of another head" ["sinks"]
        "let x = vec4(sinks[head_of(at, row)]," => "let x = vec4(sinks[head_of(at, row) ^ 1u],";
    "a packed row has the sink of its first head" ["sinks"]
        "sinks[head_of(at, row + LANES_R)]" => "sinks[at.head]";
    "a sink counts in every part" ["sinks"]
        "if (ACCUMULATE || at.split > 0u) { return; }" => "if (at.split > 0u) { return; }";
    "a sink counts in every split" ["sinks"]
        "if (ACCUMULATE || at.split > 0u) { return; }" => "if (ACCUMULATE) { return; }";
    "a sink counts in every lane of a row" ["sinks"]
        "vec4(lane.c == 0u) & !none" => "!none";
    "a sink of minus infinity counts" ["sinks"]
        "let none = bitcast<vec4<u32>>(x) == vec4(0xff800000u);" => "let none = vec4(false);";
    "a sink has a value" ["sinks"]
        "strange_rows = not_finite(x) & !none;" => "strange_rows = not_finite(x) & !none; o.near.a0 = vec4(1.0);";
    "a row begins without its sink's maximum" ["sinks"]
        "m = select(x, vec4(DROPPED), none);" => "m = vec4(DROPPED);";
    "dropout takes queries for keys" ["dropout"]
        "Words(vec4(i), j)).x" => "Words(j, vec4(i))).x";
    "dropout is that of head 0" ["dropout"]
        "Words(vec4(batch), heads)" => "Words(vec4(batch), vec4(0u))";
    "dropout is that of the first batch item" ["dropout"]
        "Words(vec4(batch), heads)" => "Words(vec4(0u), heads)";
    "the seed has one word" ["dropout"]
        "vec4(params.dropout.seed_low), vec4(params.dropout.seed_high)" => "vec4(params.dropout.seed_high), vec4(params.dropout.seed_high)";
    "a packed row drops what its first head does" ["dropout"]
        "head_of(at, row), head_of(at, row + LANES_R)" => "head_of(at, row), at.head";
    "kept weights lack the factor" ["dropout"]
        "return params.dropout.factor * x;" => "return x;";
    "the factor counts once more in every part" ["dropout"]
        "factor * old_weight);" => "dropout_factor(factor) * old_weight);";
    "dropped weights are not in l" ["dropout"]
        "var new_l = sums(p);" => "var new_l = sums(met(at, lane, tile, p));";
    "dropout follows the order of queries" ["dropout"]
        "is_met(key, query_at(at, min(row, params.kernel.q_count - 1u)), j)" => "is_met(key, row, j)";
    "a round of the generator rotates by another number" ["dropout"]
        "mixed(mixed(mixed(mixed(w, 17u), 29u), 16u), 24u)" => "mixed(mixed(mixed(mixed(w, 17u), 29u), 16u), 23u)";
    "a column drops what the first does" ["direct dropout"]
        "met(at, Lane(lane.index, lane.r, 1u), tile, p1)" => "met(at, Lane(lane.index, lane.r, 0u), tile, p1)";
    "the bias is that of query 0" ["terms"]
        " + pairs.i * p.query" => "";
    "the bias is that of head 0" ["terms"]
        " + pairs.head * p.head" => "";
    "the second bias is read where the first lies" ["two biases"]
        "let p = params.second_bias;" => "let p = params.bias;";
    "a bias of minus infinity does not remove" ["removed"]
        "if (SCORES_MAY_DROP) { s = select(s, vec4(DROPPED), removed); }" => "";
    "ALiBi looks the other way" ["terms"]
        "return s - slope * " => "return s + slope * ";
    "ALiBi takes head 0's slope" ["terms"]
        "slopes[pairs.head]" => "slopes[0]";
    "ALiBi counts from the first key" ["terms"]
        "let position = i32(i + params.kernel.kv_len - params.kernel.q_len);" => "let position = i32(i);";
    "an edge belongs to the bucket before it" ["buckets"]
        "edges <= n)" => "edges < n)";
    "keys before the query have the buckets of those after it" ["buckets"]
        "both & (distance < vec4(0))" => "both & (distance > vec4(0))";
    "the table of buckets is head 0's" ["buckets"]
        "bucket(pairs.distance) * params.kernel.heads + pairs.head" => "bucket(pairs.distance) * params.kernel.heads";
    "relative rows: D has the other sign" ["relative"]
        "vec4(params.relative.first_distance) - distance" => "vec4(params.relative.first_distance) + distance";
    "relative rows: one row off" ["relative"]
        "vec4(params.relative.first_distance) - distance" => "vec4(params.relative.first_distance - 1) - distance";
    "relative rows: distances count from the first key" ["relative"]
        "pairs_of(at.batch, head, query_at(at, own), j)" => "pairs_of(at.batch, head, query_at(at, own) + params.kernel.q_len - params.kernel.kv_len, j)";
    "relative rows: u and w are exchanged" ["relative"]
        "return q + relative_bias(0u, head" => "return q + relative_bias( params.relative.w_at, head",
        "return q + relative_bias(params.relative.w_at, head" => "return q + relative_bias(0u, head";
    "relative rows: u is that of the key head" ["relative"]
        "return q + relative_bias(0u, head, group)"
            => "return q + relative_bias(0u, head / params.kernel.heads_per_kv_head, group)";
    "relative rows: all heads have those of the first" ["relative"]
        "row_at(params.relative.rows, batch, head, 0u)" => "row_at(params.relative.rows, batch, 0u, 0u)";
    "relative rows: distances past the rows are not clipped" ["relative"]
        "- distance, vec4(0), vec4(i32(params.relative.count) - 1));" => "- distance, vec4(0), vec4(i32(params.relative.count) - 2));";
    "relative rows, ring: one row off" ["relative ring"]
        "i32(lane.c) - i32(lane.r));" => "i32(lane.c) - i32(lane.r) + 1);";
    "relative rows, ring: distances count from the first key" ["relative ring"]
        "at.first_row + params.kernel.kv_len - params.kernel.q_len;" => "at.first_row;";
    "relative rows, ring: keys that jump meet the rows before" ["relative ring"]
        "select(first, ring_end, follows)" => "max(first, ring_end)";
    "relative rows, ring: the rows of the first keys are not made" ["relative ring"]
        "select(first, ring_end, follows)" => "select(end - i32(KEYS), ring_end, follows)";
    "relative rows, ring: a query has the products of another" ["relative ring"]
        "ring[c.y].z" => "ring[c.y].w";
    "relative rows, ring: it is too short" ["relative ring"]
        "LANES_C, 2u * LANES_C, 3u * LANES_C)) % vec4(RING)" => "LANES_C, 2u * LANES_C, 3u * LANES_C)) % vec4(RING / 2u)";
    "relative rows, ring: all heads have those of the first" ["relative ring"]
        "row_at(params.relative.rows, at.batch, at.head, 0u)" => "row_at(params.relative.rows, at.batch, 0u, 0u)";
    "segments: the same and the others are exchanged" ["segments"]
        "keys == vec4(own_segment[k])" => "keys != vec4(own_segment[k])";
    "segments: a query has the segment of another" ["segments"]
        "own_segment = vec4(a.z, b.z, c.z, d.z);" => "own_segment = vec4(a.z, a.z, c.z, d.z);";
    "segments: s is missing" ["segments"]
        "(query + load_segments(segment_rows(0u, head) + 4u * g, count))" => "query";
    "segments: they are not scaled" ["segments"]
        "4u * g, count)) * params.kernel.q_scale;" => "4u * g, count));";
    "segments: all heads have the rows of the first" ["segments"]
        "return (n * params.kernel.heads + head) * HEAD_DIM;" => "return n * params.kernel.heads * HEAD_DIM;";
    "segments: the first of packed heads has those of all" ["segments"]
        "let head = head_of(at, own);\n    var sums" => "let head = at.head;\n    var sums";
    "segments: queries have those of the first batch item" ["segments"]
        "segments[segments_of_queries(at.batch) + query_at" => "segments[segments_of_queries(0u) + query_at";
    "segments: keys have those of the first batch item" ["segments"]
        "segments_of_queries(params.kernel.batch) + batch * params.kernel.kv_len;" => "segments_of_queries(params.kernel.batch);";
    "segments: keys have the segments of their places in the part" ["segments"]
        "let place = vec4(segments_of_keys(at.batch)) + j;"
            => "let place = vec4(segments_of_keys(at.batch) + key) + vec4(0u, LANES_C, 2u * LANES_C, 3u * LANES_C);";
    // --- the end of a row ---
    "an empty row is not 0" ["count"]
        "select(1.0 / all_l, 0.0, is_zero(all_l))" => "1.0 / all_l";
    "lse is in base 2" ["lse"]
        "return (maximum + log2(sum)) * 0.6931471805599453;" => "return maximum + log2(sum);";
    "lse is in base 2 where terms are" ["terms"]
        "return maximum + log2(sum) * 0.6931471805599453;" => "return maximum + log2(sum);";
    "lse of an empty row is not f32::MIN" ["lse"]
        "if (is_zero(sum)) { return DROPPED; }" => "";
    "lse of several parts is their maximum" ["parts"]
        "write_stats(RowEnd(column_group == 0u, row, m, l));" => "write_stats(RowEnd(column_group == 0u, row, m, 1.0));";
    // --- NaN and infinity ---
    "NaN in v reaches rows that do not attend it" ["strange"]
        "return select(x, vec4(0.0), strange);" => "return x;";
    "NaN in v is lost in masked tiles" ["strange"]
        "note_values(lane, tile, p);" => "if (!is_masked(tile)) { note_values(lane, tile, p); }";
    "staged: NaN in v is lost in masked tiles" ["strange"]
        "if (is_masked(tile) || SCORES_MAY_DROP) {\n        note_strange_keys(" => "if (SCORES_MAY_DROP) {\n        note_strange_keys(";
    "NaN in the values of far keys is lost" ["far"]
        "if (FAR) { note_strange_values(beyond(lane), pairs.y); }" => "";
    "NaN in v of a tile before is taken for one of this" ["strange"]
        "forget_strange_keys(lane);\n        if (!Q_RESIDENT)" => "if (!Q_RESIDENT)";
    "sums are not marked" ["strange"]
        "sum_over_lanes(lane, marked(l));" => "sum_over_lanes(lane, l);";
    "a cap hides infinity" ["strange"]
        "s = select(s, products, not_finite(products));" => "";
    "a cap hides a temperature that is no number" ["strange terms"]
        "spoilt = spoilt | not_finite(vec4(t)) |" => "spoilt = spoilt |";
    "minus infinity in a table of buckets weighs nothing" ["strange terms"]
        "spoilt = spoilt | not_finite(b);" => "";
    "direct: NaN in v reaches rows that do not attend it" ["strange"]
        "return select(v, vec4(0.0), strange);" => "return v;";
    "direct: NaN in v is lost in masked tiles" ["strange"]
        "strange_keys |= select(0u, 1u << key, any(strange));" => "";
    "direct: NaN in v of a tile before is taken for one of this" ["strange"]
        "note_values(by_key(p3), 3u);\n        strange_keys = 0u;" => "note_values(by_key(p3), 3u);";
    "direct: NaN in v is another key's" ["strange"]
        "select(0u, 1u << key, any(strange))" => "select(0u, 1u << (key ^ 1u), any(strange))";
    "direct: NaN in v is not in lse" ["strange"]
        "        strange_rows = strange_rows | not_finite(o[0])" => "        let ignored = strange_rows | not_finite(o[0])";
    "cooperative: one of four values is looked at" ["strange"]
        "any(not_finite(a + b + c + d))" => "any(not_finite(b))";
    "cooperative: nobody looks at NaN in v" ["strange"]
        "            atomicOr(&asked[0], STRANGE);\n" => "";
    "cooperative: NaN in v is another key's" ["strange"]
        "d = finite_or_noted(key + 3u * LANES_C, d);" => "d = finite_or_noted(key + 2u * LANES_C, d);";
    "cooperative: sums are not marked" ["strange"]
        "sum_over_lanes(lane, marked(l)) * UNBOOST" => "sum_over_lanes(lane, l) * UNBOOST";
    // --- parts ---
    "the sum forgets the earlier parts" ["parts"]
        "all_l = fma(row_l, new_weight, old_weight);" => "all_l = row_l * new_weight;";
    "the output takes the earlier parts' unweighted" ["parts"]
        "vec4(end.old_weight), x)" => "vec4(1.0), x)";
    "parts merge by the last one's maximum" ["floor parts"]
        "all_m = max(row_m, old.x);" => "all_m = row_m;";
    "a part's weight is not that of its maximum" ["parts"]
        "new_weight = shrink(row_m, all_m);" => "new_weight = 1.0;";
    "a part leaves no state" ["parts"]
        "state[end.stat] = vec2(end.m, end.l);" => "state[end.stat].y = end.l;";
    "a part's sum is not left" ["parts"]
        "state[end.stat] = vec2(end.m, end.l);" => "state[end.stat] = vec2(end.m, 1.0);";
    "the state is replaced before all lanes have read it" ["resident parts"]
        "if (ACCUMULATE) { storageBarrier(); }" => "";
    "the order of queries is ignored" ["parts"]
        "return mask[params.keep.q_order_at + min(row, params.kernel.q_count - 1u)];" => "return row;";
    "the bias of a gathered key is read within the part's keys" ["gathered terms"]
        "+ pairs.j * p.key;" => "+ min(pairs.j, vec4(params.kernel.k_count - 1u)) * p.key;";
    "permutation: queries come in the order of the keys" ["permutation"]
        "return mask[params.keep.q_order_at + min(row, params.kernel.q_count - 1u)];"
            => "return mask[params.keep.k_order_at + min(row, params.kernel.q_count - 1u)];";
    "permutation: keys come in their natural order" ["permutation"]
        "mask[params.keep.k_order_at + place]" => "place";
    "the order of keys is that of queries" ["parts"]
        "mask[params.keep.k_order_at + place]" => "mask[params.keep.q_order_at + place]";
    "rows of several parts are narrowed into head 0" ["f16 parts"]
        " + head * params.out.head + i" => " + i";
    // --- element types ---
    "f16 halves are swapped when written" ["f16"]
        "pack2x16float(clamp(x, " => "pack2x16float(clamp(x.yx, ";
    "f16 halves are swapped when read" ["f16"]
        "let word = k[at / 4u];\n    return vec4(unpack2x16float(word.x), unpack2x16float(word.y));"
            => "let word = k[at / 4u];\n    return vec4(unpack2x16float(word.y), unpack2x16float(word.x));";
    "an odd f16 is read as its neighbour" ["odd f16"]
        "unpack2x16float(k[e.y / 2u])[e.y % 2u]" => "unpack2x16float(k[e.y / 2u])[0]";
    "bf16 is read with its neighbour's bits" ["bf16"]
        "let word = k[at / 4u];\n    return bitcast<vec4<f32>>(vec4(word.x << 16u, word.x & 0xffff0000u,"
            => "let word = k[at / 4u];\n    return bitcast<vec4<f32>>(vec4(word.x << 16u, word.x,";
    "an odd bf16 is read as its neighbour" ["odd bf16"]
        "k[e.w / 2u]);\n    let bits = select(words << vec4(16u), words & vec4(0xffff0000u), e % vec4(2u) == vec4(1u));"
            => "k[e.w / 2u]);\n    let bits = select(words << vec4(16u), words & vec4(0xffff0000u), e % vec4(2u) == vec4(0u));";
    "bf16 is cut instead of rounded" ["rounding"]
        "bits + vec2(0x7fffu) + ((bits >> vec2(16u)) & vec2(1u))" => "bits";
    "an odd 16-bit store clears its neighbour" ["odd f16"]
        "0xffff0000u >> shift" => "0u";
    "an odd 16-bit store keeps the old bits" ["odd f16"]
        "atomicAnd(&out[e / 2u], 0xffff0000u >> shift);" => "";
    "odd rows of f32 are written to whole groups" ["odd f32"]
        "t < min(4u, count); t++) { out[" => "t < 4u; t++) { out[";
    "odd rows are padded with their last element" ["odd f32"]
        "select(vec4(0.0), vec4(k[e.x], k[e.y], k[e.z], k[e.w]), c < vec4(count))"
            => "vec4(k[e.x], k[e.y], k[e.z], k[e.w])",
        "select(vec4(0.0), vec4(q[e.x], q[e.y], q[e.z], q[e.w]), c < vec4(count))"
            => "vec4(q[e.x], q[e.y], q[e.z], q[e.w])";
    "odd rows of v are read one element late" ["odd f32"]
        "fn load_v(at: u32, count: u32) -> vec4<f32> {\n    let c = vec4(0u, 1u, 2u, 3u);\n    let e = vec4(at) + min(c, "
            => "fn load_v(at: u32, count: u32) -> vec4<f32> {\n    let c = vec4(0u, 1u, 2u, 3u);\n    let e = vec4(at) + min(c + vec4(1u), ";
    // --- tensors that begin behind the start ---
    "element offsets are ignored" ["offsets"]
        "return rows.offset + batch * rows.batch" => "return batch * rows.batch";
    "the element offset of the bias is ignored" ["offsets"]
        "vec4(p.offset + pairs.batch * p.batch" => "vec4(pairs.batch * p.batch";
    "the element offset of merged rows is ignored" ["offsets"]
        "params.out.offset + batch * params.out.batch" => "batch * params.out.batch";
    // --- weights of chosen rows ---
    "weights are not over l" ["weights"]
        "own_over_l * weight(" => "weight(";
    "weights: the bits of the mask are ignored" ["weights"]
        "kept = kept & keep(tile.kind, at.first_row % BLOCK_Q, min(places + vec4(tile.offset), vec4(BLOCK_K - 1u)));" => "";
    "weights: the state is that of the first head" ["weights"]
        "state[(row.x * params.kernel.heads + row.y) * params.kernel.q_len + own_i]" => "state[own_i]";
    "weights: rows are not in the part's order" ["weights"]
        "own_i = query_at(at, row.z);" => "own_i = row.z;";
    "weights: a key has its neighbour's" ["weights"]
        "weights[at.w] = p.w;" => "weights[at.w] = p.z;";
    "weights: equal ones are named from the last key on" ["weights"]
        "a.y == b.y && a.x < b.x" => "a.y == b.y && a.x > b.x";
    "weights: the summary forgets earlier parts" ["weights"]
        "entropy += select(0.0, bitcast<f32>(earlier.x), lane == 0u);" => "";
    "weights: the entropy has l in bits" ["weights"]
        "select(log2(own.y) * LN_2, 0.0, empty)" => "select(log2(own.y), 0.0, empty)";
    "weights: a lane hands on its largest alone" ["weights"]
        "bests[lane * TOP + n] = best[n];" => "bests[lane * TOP + n] = best[0];";
}
