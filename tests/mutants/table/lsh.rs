//! Faults of LSH attention: of the hash, the sort, and attention over sorted places.

wgpu_attention_testing::mutants! {
    "rounds" {
        "the negated projections are forgotten": "select(half + lowest_at, highest_at, highest >= -lowest)" => "highest_at";
        "rounds share the first round's projection": " + round * COLUMNS;" => ";";
        "heads share the first head's projection": "head * params.projection_head + round" => "round";
        "keys are not normalised by their own norm": "norms[line * params.len + row]" => "norms[line * params.len + row / 2u]";
        "the norm lacks its root": "return inverseSqrt(ordinary);" => "return 1.0 / ordinary;";
        "the chunk before is not seen": "back % chunks) % chunks, min(back + 1u + ahead" => "0u) % chunks, min(1u + ahead";
        "the line does not go round": "turn < 2u" => "turn < 1u";
        "a chunk cut off by its round goes on": "min(chunk_at + PLACES_PER_CHUNK, first_place + params.kernel.q_len)" => "chunk_at + PLACES_PER_CHUNK";
        "heads share the first head's order": "(at.batch * params.kernel.heads + at.head) * params.kernel.k_count" => "0u";
        "one's own key is an ordinary one": "pairs.j == vec4(pairs.i)" => "vec4(false)";
        "norms are those of the query": "* params.kernel.q_len) + pairs.j;" => "* params.kernel.q_len) + vec4(pairs.i);";
        "rounds do not merge": "all_l = fma(row_l, new_weight, old_weight);" => "all_l = row_l * new_weight;";
        "(m, l) is not left for the next round": "state[end.stat] = vec2(end.m, end.l);" => "state[end.stat].x = end.m;";
    }
    "unit keys" {
        "keys are never scaled": "if (bitcast<u32>(ordinary) - 0x0f800000u <= 0x7b800000u - 0x0f800000u)" => "if (true)";
        "a key's scale stays in its norm": "norm_eps * scale * scale) * scale;" => "norm_eps * scale * scale);";
        "a key's eps is not scaled": "params.norm_eps * scale * scale)" => "params.norm_eps)";
    }
    "factors" {
        "the factors do not multiply": "place_value *= 2u * half;" => "";
        "the factors share their columns": "first_column += half;" => "";
        "the chunks of x are all the first": "let g = first + e % GROUPS;" => "let g = e % GROUPS;";
        "the columns past the first tile are the first": "let at = column + 4u * (e % 4u) + t;" => "let at = 4u * (e % 4u) + t;";
        "masked positions are not set apart": "is_hidden(batch * params.len + row)" => "false";
        "without a wrap the first chunk looks back": "chunk - min(chunk, back)" => "chunk";
        "masked keys are seen": "seen = seen & (of_key != vec4(BUCKETS));" => "";
    }
    "once" {
        "ties go to the highest index": "products[t] > highest)" => "products[t] >= highest)";
        "buckets of other rounds are one's own": "seen & same_round & (" => "seen & (";
        "other buckets are seen": " & (bucket == vec4(places[params.keep.buckets_at + i]))" => "";
        "a pair counts each time": "{ s -= log2(times); }" => "{ }";
    }
    "one round" {
        "rows of a chunk's later tiles are lost": "row_tile % ROW_TILES_PER_CHUNK * ROWS, end" => "0u, end";
        "causal goes by places": "vec4(places[j.x], places[j.y], places[j.z], places[j.w]) <= vec4(places[i])" => "j <= vec4(i)";
    }
    "three rounds" {
        "meetings are counted in one's own round only": "let first = select(round, 0u, CHAIN_ROUNDS);" => "let first = round;";
    }
    "terms" {
        "a bias is asked at a place for a query": "s = bias_score(pairs, s);" => "s = bias_score(Pairs(pairs.batch, pairs.head, places[pairs.i], pairs.j, pairs.distance), s);";
        "a bias is asked at places for keys": "s = bias_score(pairs, s);" => "s = bias_score(Pairs(pairs.batch, pairs.head, pairs.i, vec4(places[pairs.j.x], places[pairs.j.y], places[pairs.j.z], places[pairs.j.w]), pairs.distance), s);";
        "all terms are asked at a query's place": "score(pairs_of(at.batch, head_of(at, own), i, j), products)" => "score(pairs_of(at.batch, head_of(at, own), own % params.kernel.q_len, j), products)";
        "later rounds have no bias": "s = bias_score(pairs, s);" => "if (!ACCUMULATE) { s = bias_score(pairs, s); }";
        "later rounds have no cap": "s = softcap_score(pairs, s);" => "if (!ACCUMULATE) { s = softcap_score(pairs, s); }";
        "each round has a sink": "if (ACCUMULATE || at.split > 0u) { return; }" => "if (at.split > 0u) { return; }";
        "the sink comes with a round that is not there": "if (ACCUMULATE || at.split > 0u) { return; }" => "if (true) { return; }";
        "a cap acts on products with keys that are no unit vectors": "s = unit_key_score(pairs, s);" => "";
        "terms act on one's own key": "select(score, vec4(OWN_SCORE), own)" => "select(score, score + vec4(OWN_SCORE), own)";
        "one's own key stays where a bias removes it": "spoilt = spoilt & !own;" => "spoilt = spoilt & !own; removed = removed & !own;";
        "ln N is log2 N": "{ s -= log(times); }" => "{ s -= log2(times); }";
        "a pair with terms counts each time": "{ s -= log(times); }" => "{ }";
    }
    "nearness" {
        "distances count from places": "vec4(position) - vec4<i32>(j)" => "vec4(position) - vec4<i32>(vec4(places[j.x], places[j.y], places[j.z], places[j.w]))";
        "terms' numbers count for one's own key": "spoilt = spoilt & !own;" => "";
        "later rounds have no slopes": "s = alibi_score(pairs, s);" => "if (!ACCUMULATE) { s = alibi_score(pairs, s); }";
    }
    "sort" {
        "the sort is not stable": "& below);" => "& ~below) - 1u;";
        "ranks forget the tiles before": "next[lane] += countOneBits" => "next[lane] = countOneBits";
        "blocks forget those before": "total += count;" => "total = count;";
        "digits forget the smaller ones": "sums[lane] += before;" => "";
        "the second digit is the first": "(key >> params.shift)" => "key";
        "segments share the first one's starts": "starts[segment * 256u + lane] + counts" => "starts[lane] + counts";
    }
}
