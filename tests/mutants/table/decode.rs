//! Faults of decoding with a key cache: of what is appended, where it is found, which keys are seen, how splits share them.

wgpu_attention_testing::mutants! {
    "steps" {
        "heads of a group read the key head of their own number": "at.kv_head = place.kv_head;" => "at.kv_head = 0u;";
        "rows of a tile are of one head": "let head = at.kv_head * params.kernel.heads_per_kv_head + row % params.kernel.heads_per_kv_head;\n    return" => "let head = at.kv_head * params.kernel.heads_per_kv_head;\n    return";
        "rows of out are of one head": "let head = at.kv_head * params.kernel.heads_per_kv_head + row % params.kernel.heads_per_kv_head;\n    // No" => "let head = at.kv_head * params.kernel.heads_per_kv_head;\n    // No";
        "a stale length": "lengths[b] = min(min(lengths[b], params.cache.capacity) + count_of(b), params.cache.capacity);" => "";
        "all lengths rise as if all positions were new": "return min(counts[batch], params.cache.most_new);" => "return params.cache.most_new;";
        "all sequences have the first one's length": "return min(lengths[batch], params.cache.capacity);" => "return min(lengths[0], params.cache.capacity);";
        "new rows go one position too far": "fn position_of(batch: u32, t: u32) -> u32 { return length_of(batch) + t; }" => "fn position_of(batch: u32, t: u32) -> u32 { return length_of(batch) + t + 1u; }";
        "new rows go to one position": "fn position_of(batch: u32, t: u32) -> u32 { return length_of(batch) + t; }" => "fn position_of(batch: u32, t: u32) -> u32 { return length_of(batch); }";
        "rows behind the count are appended": "    if (!own.is_new) { return; }" => "";
        "a query does not see its own key": "return (vec4(key) <= own +" => "return (vec4(key) < own +";
        "a query sees what comes after it": "return (vec4(key) <= own +" => "return (vec4(key) <= own + vec4(1u) +";
        "new positions are not causal among themselves": "let whole = end <= at.seen_until &&" => "let whole = true &&";
        "queries stand at the cache's start": "return min(max(at.length + t + params.kernel.after + 1u, at.count) - at.count, at.length);" => "return min(t + params.kernel.after + 1u, at.length);";
        "the last key is not met": "at.end = end_of(at, last_t);" => "at.end = max(end_of(at, last_t), 1u) - 1u;";
        "rows behind the count are written": "let is_new = t < at.count;" => "let is_new = true;";
        "sequences share the first one's rows": "return (batch * params.cache.kv_heads + head) * params.cache.capacity + position;" => "return head * params.cache.capacity + position;";
        "heads share rows": "return (batch * params.cache.kv_heads + head) * params.cache.capacity + position;" => "return batch * params.cache.kv_heads * params.cache.capacity + position;";
        "the third of four values weighs as the second": "weight_of(weights, n.z, keys)" => "weight_of(weights, n.y, keys)";
        "the last value weighs again where a stretch ends": "min(n, keys - 1u)], n < keys); }" => "min(n, keys - 1u)], true); }";
        "queries are not scaled": "queries[4u * item + e] = x[e] * params.kernel.q_scale;" => "queries[4u * item + e] = x[e];";
        "subsets of keys are not added up": "for (var n = 1u; n < SUBSETS; n++) { x += scores" => "for (var n = 1u; n < 1u; n++) { x += scores";
        "every subset walks all keys": "    return lane / VALUE_GROUPS;" => "    return 0u;";
        "sums are those of one lane": "for (var n = 1u; n < 8u; n++) { x += partial[8u * lane + n]; }" => "";
        "a group of elements is multiplied twice": "x = with_group(x, g, c + 2u, begin, scales);" => "x = with_group(x, g, c + 1u, begin, scales);";
        "the second group of rows has the first's queries": "let at_q = 4u * (g * HEAD_GROUPS + c);" => "let at_q = 4u * c;";
    }
    "long" {
        "the last of eight values is the first": "x = with_key(x, weights, row, j + 7u * SUBSETS, column);" => "x = with_key(x, weights, row, j, column);";
        "eight values have the weights of the first": "add_value(x, scores[weights + j]," => "add_value(x, scores[weights],";
        "a lane's third key is its second": "vec4(first + n) + vec4(0u, LANES, 2u * LANES, 3u * LANES)" => "vec4(first + n) + vec4(0u, LANES, LANES, 3u * LANES)";
        "a split walks only its first chunk": "n += params.kernel.splits) {" => "n += params.kernel.splits + at.chunks) {";
        "every split walks all chunks": "for (var n = at.split; n < at.chunks; n += params.kernel.splits)" => "for (var n = 0u; n < at.chunks; n++)";
        "columns are not rescaled": "o[g] = mat4x4(o[g][0] * factor.x," => "o[g] = mat4x4(o[g][0],";
        "sums are not rescaled": "l[g] *= factor;" => "";
        "only the first stretch of a chunk has values": "let keys = min(STRETCH, end - j);" => "let keys = select(0u, min(STRETCH, end - j), j == first);";
        "a stretch has the weights of the first": "let weights = g * CHUNK + j - first;" => "let weights = g * CHUNK;";
        "no maximum is taken": "top[g] = max(top[g], s);" => "";
        "chunks do not wait for each other": "        workgroupBarrier();\n        attend(" => "        attend(";
        "splits without keys keep what was there": "        leave_nothing(at, lane);\n" => "";
    }
    "pages" {
        "the last elements of a key are not multiplied": "HEAD_GROUPS / 4u * 4u; c < HEAD_GROUPS; c++) { x = with" => "HEAD_GROUPS / 4u * 4u; c + 1u < HEAD_GROUPS; c++) { x = with";
        "a wrong page": "pages[batch * (params.cache.capacity / PAGE) + position / PAGE]" => "pages[batch * (params.cache.capacity / PAGE) + position / PAGE] ^ 1u";
        "sequences share the first one's table": "pages[batch * (params.cache.capacity / PAGE) + position / PAGE]" => "pages[position / PAGE]";
        "the page of the position before": "+ position / PAGE]" => "+ max(position, 1u) / PAGE - u32(position % PAGE == 0u && position > 0u)]";
        "heads share a page's rows": "return (page * params.cache.kv_heads + head) * PAGE + position % PAGE;" => "return page * params.cache.kv_heads * PAGE + position % PAGE;";
        "positions are not those within a page": "+ head) * PAGE + position % PAGE;" => "+ head) * PAGE + position;";
    }
    "packed" {
        "sequences have the first one's rows": "return min(offsets[batch], params.cache.most_new);" => "return 0u;";
        "queries are the first sequence's": "fn first_query(batch: u32) -> u32 { return offset_of(batch) * params.q.row; }" => "fn first_query(batch: u32) -> u32 { return 0u; }";
        "states are the first sequence's": "* params.cache.most_new + offset_of(batch) + t;" => "* params.cache.most_new + t;";
        "a sequence has no tile of its own": "return offset_of(batch) * params.kernel.heads_per_kv_head / ROWS + batch; }" => "return offset_of(batch) * params.kernel.heads_per_kv_head / ROWS; }";
        "the rows of the next sequence are written": "fn has_row(batch: u32, t: u32) -> bool { return t < count_of(batch); }" => "fn has_row(batch: u32, t: u32) -> bool { return offset_of(batch) + t < params.cache.most_new; }";
        "rows that are nobody's keep what was there": "if (batch > params.cache.batch) { return params.cache.most_new; }" => "if (batch > params.cache.batch) { return offsets[params.cache.batch]; }";
        "new rows are sought one sequence too late": "if (offset_of(middle) <= place) { low = middle; }" => "if (offset_of(middle) < place) { low = middle; }";
        "new rows are those of the sequence's own number": "head * params.x.head + place * params.x.row);" => "head * params.x.head + t * params.x.row);";
        "rows behind the last sequence are appended to it": "let is_new = low < params.cache.batch && t < count_of(low);" => "low = min(low, params.cache.batch - 1u); let is_new = true;";
    }
    "latent" {
        "values begin where keys do": "load_values(at + VALUE_AT + column," => "load_values(at + BEFORE_ROW + column,";
        "values in keys have no scale": "fn scale_of_values(at: u32) -> f32 { return scale_of_keys(at); }" => "fn scale_of_values(at: u32) -> f32 { return 1.0; }";
        "the last lane has no columns": "} else if (lane < VALUE_GROUPS) {" => "} else if (lane + 1u < VALUE_GROUPS) {";
        "eighths are those of 64 lanes": "const EIGHTHS = LANES / 8u;" => "const EIGHTHS = min(LANES / 8u, 8u);";
    }
    "own keys" {
        "sequences have the first one's keys": "return min(k_offsets[batch], params.cache.capacity);" => "return 0u;";
        "keys past the tensor's end": "return min(k_offsets[batch], params.cache.capacity);" => "return min(k_offsets[batch], params.cache.capacity + 8u);";
        "the first offset is believed": "fn first_key(batch: u32) -> u32 {\n    if (batch == 0u) { return 0u; }" => "fn first_key(batch: u32) -> u32 {";
        "keys are the next sequence's": "head * params.k.head + (first_key(batch) + position)" => "head * params.k.head + (first_key(batch + 1u) + position)";
        "values are the next sequence's": "head * params.v.head + (first_key(batch) + position)" => "head * params.v.head + (first_key(batch + 1u) + position)";
        "a sequence ends where the next one does": "return max(first_key(batch + 1u), first) - first;" => "return max(first_key(min(batch + 2u, params.cache.batch)), first) - first;";
        "values of all heads are the first's": "params.v.offset + head * params.v.head" => "params.v.offset";
        "values lie as in a cache": "fn value_step() -> u32 { return params.v.row; }" => "fn value_step() -> u32 { return VALUE_ROW; }";
        "nothing after a query's own position is seen": "return (vec4(key) <= own + vec4(params.kernel.after))" => "return (vec4(key) <= own)";
        "queries and keys begin together": "let own = vec4(at.length) + t;" => "let own = vec4(at.count) + t;";
        "queries before the first key see it": "params.kernel.after + 1u, at.count) - at.count, at.length);" => "params.kernel.after + 1u, at.count + 1u) - at.count, at.length);";
    }
    "int8" {
        "all keys have the first one's scale": "fn scale_of_keys(at: u32) -> f32 { return bitcast<f32>(keys[at / 4u]); }" => "fn scale_of_keys(at: u32) -> f32 { return bitcast<f32>(keys[0]); }";
        "all values have the first one's scale": "fn scale_of_values(at: u32) -> f32 { return bitcast<f32>(values[at / 4u]); }" => "fn scale_of_values(at: u32) -> f32 { return bitcast<f32>(values[0]); }";
        "keys are read from their scale on": "let begin = rows + vec4(BEFORE_ROW);" => "let begin = rows;";
        "values are read from their scale on": "load_values(at + VALUE_AT + column," => "load_values(at + column,";
        "steps are cut, not rounded": "clamp(round(x)," => "clamp(trunc(x),";
        "half of the elements are not looked at": "lane_largest = max(lane_largest, max(max(size.x, size.y), max(size.z, size.w)));" => "lane_largest = max(lane_largest, max(size.x, size.y));";
        "one lane's elements make the scale": "    atomicMax(&largest, lane_largest);" => "    if (lane == 0u) { atomicMax(&largest, lane_largest); }";
        "the scale does not wait for all lanes": "    workgroupBarrier();\n    let most" => "    let most";
        "a row has no room for its scale": "* (1u + GROUPS);" => "* GROUPS;";
        "scales have digits that products round": "return (bitcast<u32>(scale) + 0x80u) & 0xffffff00u;" => "return bitcast<u32>(scale);";
        "scales are cut off": "return (bitcast<u32>(scale) + 0x80u) & 0xffffff00u;" => "return bitcast<u32>(scale) & 0xffffff00u;";
    }
    "window" {
        "the window's first chunk is left out": "at.first_chunk = first_seen(at, first_t) / CHUNK;" => "at.first_chunk = (first_seen(at, first_t) + CHUNK / 2u) / CHUNK;";
        "rows see a key before their window": "((vec4(key + params.kernel.before) >= own)" => "((vec4(key + params.kernel.before + 1u) >= own)";
        "there is one sink less": "| vec4(j < params.kernel.sinks)" => "| vec4(j + 1u < params.kernel.sinks)";
        "the window's chunks are taken for whole": "&& (first >= at.seen_from || end <= params.kernel.sinks);" => ";";
        "sinks out of the window are not walked": "at.sink_chunks = min(chunks_of(min(params.kernel.sinks, at.end)), at.first_chunk);" => "at.sink_chunks = 0u;";
        "the window's chunks follow those of the sinks": "select(at.first_chunk + n - at.sink_chunks, n, n < at.sink_chunks)" => "n";
    }
    "strange" {
        "what is not finite is not noted": "spoilt[g] |= select(vec4(0u), vec4(NAN_BITS), seen & strange);" => "";
        "strange values are not noted": "bitcast<vec4<u32>>(l[g]) | strange)" => "bitcast<vec4<u32>>(l[g]) | spoilt[g])";
        "a row of int8 forgets that it was not finite": "if (most >= INFINITY_BITS) { return 0x7fc00000u; }" => "";
        "values of hidden keys count": "let hidden = p == vec4(0.0);" => "let hidden = vec4(false);";
    }
    "words" {
        "a length past the capacity": "lengths[b] = min(min(lengths[b], params.cache.capacity) + count_of(b), params.cache.capacity);" => "lengths[b] = lengths[b] + count_of(b);";
        "counts past the most": "return min(counts[batch], params.cache.most_new);" => "return counts[batch];";
    }
    "rotary" {
        "keys turn at their place among the new": "let table_at = position * (ROTARY_DIM / 2u);" => "let table_at = (position % 2u) * (ROTARY_DIM / 2u);";
        "keys turn one position too late": "let table_at = position * (ROTARY_DIM / 2u);" => "let table_at = (position + 1u) * (ROTARY_DIM / 2u);";
        "queries turn at the positions after theirs": "return max(length_of(batch) + t, count) - count;" => "return length_of(batch) + t;";
        "turned queries lie where others do": "return new_row.number; }" => "return new_row.number ^ 1u; }";
    }
}
