//! Faults of the gradients of LSH attention: roles, norms, slopes, the transposed walk, rounds.

wgpu_attention_testing::mutants! {
    "the norm is taken for a constant" ["rounds", "count dqk"]
        "let key = as_key[row * HEAD_GROUPS + g] - along * u;" => "let key = as_key[row * HEAD_GROUPS + g];";
    "the norm's part misses the last elements" ["rounds"]
        "along = fma(u.w, key.w, fma(u.z, key.z," => "along = fma(u.w, key.z, fma(u.z, key.z,";
    "the norm's part lacks the norm" ["rounds"]
        "let u = norm * load_q(x_at + 4u * g, count);" => "let u = load_q(x_at + 4u * g, count);";
    "the norm's part reads on into the next row" ["leaks"]
        "let u = norm * load_q(x_at + 4u * g, HEAD_DIM - 4u * g);" => "let u = norm * load_q(x_at + 4u * g, 4u);";
    "what a position gets as a query is lost" ["rounds", "count dqk"]
        "as_query[row * HEAD_GROUPS + g] + select(key, vec4(0.0), unseen)" => "select(key, vec4(0.0), unseen)";
    "what a position gets as a key is lost" ["rounds", "count dqk"]
        "select(key, vec4(0.0), unseen)" => "vec4(0.0)";
    "a norm that is none spoils a key that nobody sees" ["leaks"]
        "let unseen = (key_bits & 0x7fffffffu) == 0u;" => "let unseen = false;";
    "norms are not in the slopes" ["rounds"]
        "fn unit_key_slope(pairs: Pairs, products: vec4<f32>) -> vec4<f32> { return key_norms(pairs); }"
            => "fn unit_key_slope(pairs: Pairs, products: vec4<f32>) -> vec4<f32> { return vec4(1.0); }";
    "norms are those of the query, backward" ["rounds"]
        "params.kernel.q_len) + pairs.j;\n    return vec4(norm_at(at.x)" => "params.kernel.q_len) + vec4(pairs.i);\n    return vec4(norm_at(at.x)";
    "norms are read where records lie" ["rounds"]
        "records[params.kernel.records + at / 4u][at % 4u]" => "records[at / 4u][at % 4u]";
    "norms are not copied" ["rounds"]
        "records[params.kernel.rows + behind] = load_behind(at, params.kernel.behind - at);" => "";
    "one's own key has a slope" ["own keys", "count dqk"]
        "return select(slope, vec4(0.0), pairs.j == vec4(pairs.i));" => "return slope;";
    "slopes are those of products with keys that are no unit vectors" ["terms"]
        "slope *= unit_key_slope(pairs, s);\n    s = unit_key_score(pairs, s);" => "slope *= unit_key_slope(pairs, s);";
    "keys look where queries look" ["rounds", "count dv"]
        "return chunks_around(chunk, chunks, LOOK_AHEAD, LOOK_BACK);" => "return chunks_around(chunk, chunks, LOOK_BACK, LOOK_AHEAD);";
    "keys are seen by those before them" ["one line each", "count dv"]
        "seen = vec4(places[i]) <= vec4(places[j.x], places[j.y], places[j.z], places[j.w]);" => "seen = vec4(places[j.x], places[j.y], places[j.z], places[j.w]) <= vec4(places[i]);";
    "causal is forgotten where rows are keys" ["one line each", "count dv"]
        "if (CAUSAL && !ROWS_ARE_QUERIES)" => "if (CAUSAL && false)";
    "the mask hides queries from keys" ["one line each"]
        "if (!ROWS_ARE_QUERIES) { of_key = vec4(places[params.keep.buckets_at + i]); }" => "";
    "a round's dq replaces that of those before" ["rounds", "count dqk"]
        "if (ACCUMULATE) { x += load_dq(to, count); }" => "";
    "a round's gradient by keys replaces that of those before" ["rounds", "count dqk"]
        "if (ACCUMULATE) { x += load_dk(to, count); }" => "";
    "a round's dv replaces that of those before" ["rounds", "count dv"]
        "if (ACCUMULATE) { x += load_dv(to, count); }" => "";
    "a pair counts each time, backward" ["once", "count dv"]
        "{ s -= log2(times); }" => "{ }";
    "meetings are those of keys with queries" ["once"]
        "let seen = chunks_seen((query - line) / PLACES_PER_CHUNK, chunks);" => "let seen = chunks_met((query - line) / PLACES_PER_CHUNK, chunks);";
    "the own key's score has the terms, backward" ["terms"]
        "select(score, vec4(OWN_SCORE), own)" => "select(score, score + vec4(OWN_SCORE), own)";
    "the state of a round is not merged" ["rounds"]
        "state[end.stat] = vec2(end.m, end.l);" => "state[end.stat].x = end.m;";
    "columns that are no numbers meet weights of 0" ["leaks"]
        "if (only_finite) {" => "if (false) {";
    "columns that are no numbers are looked for among the first 16" ["leaks"]
        "strange_16(x0) | strange_16(x1)" => "strange_16(x0)";
}
