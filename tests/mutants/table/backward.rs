//! Faults of the gradients: of the records, the two passes, their masks and sums.

wgpu_attention_testing::mutants! {
    "D is omitted" ["formula"]
        "e * (record.y * met.d_p - vec4(record.z))" => "e * record.y * met.d_p";
    "D is that of the next row" ["formula"]
        "records[row] = vec4(own.x, over_l, select(d, 0.0, (o_bits & 0x7fffffffu) == 0u), mark);" => "records[row] = vec4(own.x, over_l, records[row + 1u].z, mark);";
    "D is not over l" ["formula"]
        "let d = sum * over_l;" => "let d = sum;";
    "D misses the last elements" ["formula"]
        "fma(d.w, o.w, fma(d.z, o.z," => "fma(d.w, o.z, fma(d.z, o.z,";
    "dq lacks the scale" ["formula"]
        "var x = params.kernel.scale * dq;" => "var x = dq;";
    "log2 e is left in dk" ["formula"]
        "var x = params.kernel.scale * dk;" => "var x = params.kernel.q_scale * dk;";
    "weights are not over l in dv" ["formula", "count dv"]
        "select(vec4(0.0), record.y * met.e, kept)" => "select(vec4(0.0), met.e, kept)";
    "weights are not over l in the derivatives" ["formula"]
        "e * (record.y * met.d_p - vec4(record.z))" => "e * (met.d_p - vec4(record.z))";
    "dk and dv are of one head of the group" ["formula", "count dv"]
        "place < heads.y; place++" => "place < heads.x + 1u; place++";
    "the key head is the query head" ["formula"]
        "let kv_head = head / params.kernel.heads_per_kv_head;" => "let kv_head = head % 2u;";
    "records are those of head 0" ["formula"]
        "let first = (at.batch * params.kernel.heads + at.head) * params.kernel.q_len;" => "let first = at.batch * params.kernel.heads * params.kernel.q_len;";
    "the columns of a tile are all the first" ["formula", "count dv"]
        "let column = vec4(tile.first) + c;" => "let column = vec4(tile.first);";
    "the transposed bits are read by rows" ["formula", "count dv"]
        "a = vec4(r0.x, r1.x, r2.x, r3.x);" => "a = vec4(r0.x, r0.y, r0.z, r0.w);";
    "the mask is ignored in the pass over keys" ["formula", "count dv"]
        "if (is_masked(tile)) {\n        // By rows" => "if (false) {\n        // By rows";
    "the mask is ignored in the pass over queries" ["formula", "count dq"]
        "if (is_masked(tile)) { return seen(tile, row, c); }" => "";
    "bit tiles are read from the first column" ["formula", "count dq"]
        "min(t + tile.offset, vec4(BLOCK_K - 1u))" => "min(t, vec4(BLOCK_K - 1u))";
    "the last row of a lane is not written" ["formula"]
        "write_value(at, row + 3u * LANES_R, g, x[3]);" => "";
    "dq and dk of a tile replace those of the tiles before" ["formula", "count dq"]
        "head_sums[g] += x;" => "head_sums[g] = x;";
    "dv of a tile replaces that of those before" ["formula", "count dv"]
        "value_sums[g] += x;" => "value_sums[g] = x;";
    "dq of a part replaces that of those before" ["parts"]
        "if (ACCUMULATE) { x += load_dq(to, count); }" => "";
    "dv of a part replaces that of those before" ["parts"]
        "if (ACCUMULATE) { x += load_dv(to, count); }" => "";
    "narrow sums are those of the next row" ["parts in 16 bits"]
        "load_sums(row * DIM + element, DIM - element)" => "load_sums((row + 1u) * DIM + element, DIM - element)";
    "narrow gradients are those of head 0" ["parts in 16 bits"]
        "let head = row / params.kernel.len % params.kernel.heads;" => "let head = 0u;";
    "the second columns take the first's weights" ["formula"]
        "with_weighed(a, w.b, heads(at, starts.b, g), only_finite)" => "with_weighed(a, w.a, heads(at, starts.b, g), only_finite)";
    "columns past the first 16 are not in dq and dk" ["formula"]
        "if (KEYS > 16u) { x = with_weighed_heads(x, w1.ds, at, columns.h1, g, only_finite); }" => "";
    "columns past the first 16 are not in dv" ["formula", "count dv"]
        "if (KEYS > 16u) { x = with_weighed_values(x, w1.p, columns.v1, g, only_finite); }" => "";
    "softcap has no slope" ["terms"]
        "return fma(-t, t, vec4(1.0));" => "return vec4(1.0);";
    "the temperature has no slope" ["temperature"]
        "return vec4(1.0) / temperature[pairs.head];" => "return vec4(1.0);";
    "a power of e is taken for one of 2, backward" ["terms"]
        "vec4(0.5 * LATE)) * TWICE_LOG2_E" => "vec4(0.5 * LATE)) * 2.0";
    "relative rows are not in dq" ["relative"]
        "if (ROWS_ARE_QUERIES) { x = with_weighed_rows(x, at, tile, own, g); }" => "";
    "u is not in dk" ["relative"]
        "fn content(head: u32, q: vec4<f32>, g: u32) -> vec4<f32> { return with_u(q, head, g); }"
            => "fn content(head: u32, q: vec4<f32>, g: u32) -> vec4<f32> { return q; }";
    "the second columns weigh the first's rows of r" ["relative"]
        "weigh_rows(w0.ds.b, 4u);" => "weigh_rows(w0.ds.a, 4u);";
    "rows of r weigh in by the other sign of D" ["relative"]
        "related_rows(at.batch, at.head, distances(own, vec4(j)))" => "related_rows(at.batch, at.head, -distances(own, vec4(j)))";
    "rows of r meet the query of the next column" ["relative"]
        "let column = key_at(at, tile.first + c);" => "let column = key_at(at, tile.first + c + 1u);";
    "u and w begin one group late behind the records" ["relative"]
        "return records[first + at / 4u];" => "return records[first + at / 4u + 1u];";
    "segments are not in dq" ["segments"]
        "return weighed(weighed(x, same, segment_row(1u, at.head, g)), other, segment_row(2u, at.head, g));" => "return x;";
    "segments: dq takes the same for the others" ["segments"]
        "return weighed(weighed(x, same, segment_row(1u, at.head, g)), other, segment_row(2u, at.head, g));"
            => "return weighed(weighed(x, other, segment_row(1u, at.head, g)), same, segment_row(2u, at.head, g));";
    "segments: the pass over keys takes those of queries" ["segments"]
        "vec4(select(keys, queries, ROWS_ARE_QUERIES)) + own" => "vec4(queries) + own";
    "segments: the pass over keys has no number of the other kind" ["segments"]
        "return select(vec4(numbers.y), vec4(numbers.x), same);" => "return vec4(numbers.x);";
    "segments: d e lacks s" ["segments' tensor"]
        "let with_s = q + load_segments(segment_rows(0u, at.head) + from_g, count);" => "let with_s = q;";
    "segments: d s goes to e" ["segments' tensor"]
        "select(element, segment_rows(0u, head), g >= HEAD_GROUPS)" => "element";
    "segments: all pairs read the row of the same" ["segments' tensor"]
        "return select(vec4(segment_rows(2u, pairs.head)), vec4(segment_rows(1u, pairs.head)), same);"
            => "return vec4(segment_rows(1u, pairs.head));";
    "one copy of a tensor's gradient is left out" ["slopes"]
        "copy < params.copies; copy++" => "copy + 1u < params.copies; copy++";
    "what a tensor's gradient held before counts" ["bias"]
        "{ sums[n] = 0.0; }" => "{ sums[n] += 0.0; }";
    "half of the lanes add up nothing of their own" ["bias"]
        "if (owner(next) == lane.index) {" => "if (owner(next) == lane.index / 2u) {";
    "elements of a tile replace those of the tiles before" ["bias"]
        "sums[copy_at + element] += sum;" => "sums[copy_at + element] = sum;";
    "rows past the last count for a tensor" ["bias"]
        "let inside = vec4(at.first_row) + rows < vec4(at.end_row);" => "let inside = vec4(at.first_row) < vec4(at.end_row);";
    "a tensor's gradient is of the first batch item" ["slopes"]
        "vec3(work / p.batch_step % p.batch," => "vec3(0u,";
    "a pair's element is that of the next row" ["bias"]
        "score_element(pairs_of(at.batch, at.head, own[t], j))" => "score_element(pairs_of(at.batch, at.head, own[(t + 1u) % 4u], j))";
    "sinks pull the other way" ["sinks"]
        "sum -= select(p * record.z," => "sum += select(p * record.z,";
    "a sink has the rows of another head" ["sinks"]
        "let record = records[(row / params.q_len * params.heads + head)" => "let record = records[(row / params.q_len * params.heads + (head ^ 1u))";
    "a sink has the rows of the first batch item" ["sinks"]
        "row / params.q_len * params.heads + head" => "head";
    "the weight of a sink is 1" ["sinks"]
        "let p = weight(vec4(sink), record.x, record.y).x + record.w;" => "let p = 1.0;";
    "a sink's copies have the same rows" ["sinks"]
        "for (var row = n / params.heads; row" => "for (var row = 0u; row";
    "slopes pull the other way" ["slopes"]
        "return -alibi_distance(pairs);" => "return alibi_distance(pairs);";
    "the temperature's gradient is divided once" ["tensor under others"]
        "return -(s / temperature[pairs.head]) / temperature[pairs.head];" => "return -(s / temperature[pairs.head]);";
    "the temperature's gradient lacks the slope of softcap" ["tensor under others"]
        "slope *= softcap_slope(pairs, s);" => "";
    "d r lacks w" ["vectors"]
        "return with_w(load_q(row_at(params.q, at.batch, at.head, i) + 4u * g, HEAD_DIM - 4u * g), at.head, g);"
            => "return load_q(row_at(params.q, at.batch, at.head, i) + 4u * g, HEAD_DIM - 4u * g);";
    "d w is in the place of d u" ["vectors"]
        "element + select(params.relative.w_at, 0u, is_of_u(g))" => "element + select(0u, params.relative.w_at, is_of_u(g))";
    "d u is of the next key" ["vectors"]
        "load_k(at.k_at + j * params.k.row + from_g, count)" => "load_k(at.k_at + (j + 1u) % params.kernel.kv_len * params.k.row + from_g, count)";
    "rows of r get derivatives without the scale" ["vectors"]
        "+= params.kernel.scale * sum[t];" => "+= sum[t];";
    "a row of r begins with what is of the row before" ["vectors"]
        "element = next;\n                sum = vec4(0.0);" => "element = next;";
    "NaN of rows of r that a query leaves out leaks" ["leaks of rows"]
        "finite_where_masked(tile, related_row(rows.x, g))" => "related_row(rows.x, g)";
    "staged: NaN of rows of r that a query leaves out leaks" ["staged leaks of rows"]
        "return finite_where_masked(tile, related_row(row, min(g, HEAD_GROUPS - 1u)));" => "return related_row(row, min(g, HEAD_GROUPS - 1u));";
    "lanes whose share is of other rows add up nothing" ["vectors"]
        "if (n < SHARES * VECTOR_GROUPS) {" => "if (n < VECTOR_GROUPS) {";
    "staged: pairs of a tensor are those of the lane's first column" ["staged tensors"]
        "let c = vec4(lane.c) + LANES_C * vec4(0u, 1u, 2u, 3u);\n    keep_pulls" => "let c = vec4(lane.c);\n    keep_pulls";
    "staged: pairs are gathered before all of them are there" ["staged tensors"]
        "workgroupBarrier();\n    gather(at, lane, tile);" => "gather(at, lane, tile);";
    "staged: relative rows are not in dq" ["staged relative"]
        "if (ROWS_ARE_QUERIES) { x = with_added_rows(x, at, lane, tile); }" => "";
    "staged: the second columns' products have the first's rows of r" ["staged relative"]
        "added_products(at, tile, lane.c + LANES_C)," => "added_products(at, tile, lane.c),";
    "staged: rows of r are weighed from the next group on" ["staged relative"]
        "related_row(row, min(g, HEAD_GROUPS - 1u))" => "related_row(row, min(g + 1u, HEAD_GROUPS - 1u))";
    "staged: the second row of r has the first's weight" ["staged relative"]
        "fma(vec4(p.y), staged_row(tile, rows.y, g), x.b0)" => "fma(vec4(p.x), staged_row(tile, rows.y, g), x.b0)";
    "staged: numbers by segments are those of the first column" ["staged segments"]
        "segment_numbers(at, key_at(at, tile.first + c));" => "segment_numbers(at, key_at(at, tile.first));";
    "staged: keys of other segments are not in dq" ["staged segments"]
        "other += select(p, vec4(0.0), is_same);" => "";
    "staged: the numbers of queries are not made" ["staged segments"]
        "if (HAS_SEGMENTS && ROWS_ARE_QUERIES) { begin_segments(at, own); }" => "";
    "dropout takes queries for keys, backward" ["dropout", "dropout by pairs"]
        "let is_kept = is_met(dropout_head, i, j);" => "let is_kept = is_met(dropout_head, j.x, vec4(i));";
    "dropout of dk and dv is that of the group's first head" ["dropout"]
        "begin_dropout(batch, head);\n        walk" => "begin_dropout(batch, first);\n        walk";
    "dropout of dq is that of head 0" ["dropout"]
        "begin_dropout(batch, head);\n    walk" => "begin_dropout(batch, 0u);\n    walk";
    "dv lacks the factor of dropout" ["dropout", "dropout by pairs"]
        "params.dropout.factor * e" => "e";
    "ds lacks the factor of dropout" ["dropout", "dropout by tensors"]
        "params.dropout.factor * d_p" => "d_p";
    "dropped pairs meet their values, backward" ["dropout", "dropout by tensors"]
        "select(vec4(0.0), params.dropout.factor * d_p, is_kept)" => "params.dropout.factor * d_p";
    "dropped pairs of a query that is not finite look finite" ["strange dropout"]
        "select(vec4(mark), params.dropout.factor * e, is_kept)" => "select(vec4(0.0), params.dropout.factor * e, is_kept)";
    "a removed pair has a gradient" ["removed"]
        "kept = kept & !removed;" => "";
    "the state is lse" ["huge bias"]
        "records[row] = vec4(own.x, over_l, select(d, 0.0, (o_bits & 0x7fffffffu) == 0u), mark);"
            => "records[row] = vec4(own.x + log(own.y), select(1.0, 0.0, empty), select(sum, 0.0, empty), mark);";
    "NaN of queries that see nothing leaks" ["leaks"]
        "return select(x, vec4(0.0), not_finite(x));" => "return x;";
    "pairs that are left out have a derivative" ["formula"]
        "select(vec4(0.0), ds * slope, kept)" => "ds * slope";
    "what is not finite is not marked" ["strange"]
        "select(0u, bits.y | 0x7fc00000u, strange)" => "0u";
    "dout is that of head 0" ["formula"]
        "row_at(params.dout, at.batch, at.head, key_at(at, column))" => "row_at(params.dout, at.batch, 0u, key_at(at, column))";
    "the order of columns is ignored" ["parts"]
        "mask[params.keep.k_order_at + place]" => "place";
    "splits do not leave their total" ["state"]
        "total[end.stat] = vec2(end.m, end.l);" => "total[end.stat].x = end.m;";
    "the staged columns are those of the chunk before" ["staged"]
        "of_column(at, tile.first + column, by_values, chunk + g);" => "of_column(at, tile.first + column, by_values, g);";
    "staged products are of values with values alone" ["staged"]
        "if (by_values) { x = own_value(at, place, chunk + g); }" => "if (false) { x = own_value(at, place, chunk + g); }";
    "the second staged columns take the first's weights" ["staged"]
        "store_weight(lane, lane.c + LANES_C, w[1]);" => "store_weight(lane, lane.c + LANES_C, w[0]);";
    "staged sums of a tile replace those of the tiles before" ["staged"]
        "x.a0 + y.a0, x.a1" => "y.a0, x.a1";
    "the last staged row of a lane is not written" ["staged"]
        "write_group(at, row + 3u * LANES_R, g + LANES_C, x.d1, values);" => "";
    "weights are read while others of the tile are written" ["staged"]
        "stage_whole(at, lane, tile, column, values, groups);\n        workgroupBarrier();" => "stage_whole(at, lane, tile, column, values, groups);";
    "NaN of staged columns that a row leaves out leaks" ["staged leaks"]
        "x = finite_where_masked(tile, of_column(at, tile.first + first + j, values, g));" => "x = of_column(at, tile.first + first + j, values, g);";
    "wide staged sums are those of the near columns" ["wide"]
        "arena[v_at + 2u * LANES_C][n], arena[v_at + 3u * LANES_C][n]" => "arena[v_at][n], arena[v_at + LANES_C][n]";
}
