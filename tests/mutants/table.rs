/// A fault: each text is replaced wherever a shader has all of them.
pub(crate) struct Mutant {
    pub(crate) name: &'static str,
    edits: &'static [(&'static str, &'static str)],
    /// Names of checks to run first.
    pub(crate) likely: &'static [&'static str],
}

impl Mutant {
    /// The changed text, and whether it was changed.
    pub(crate) fn apply(&self, text: &str) -> (String, bool) {
        if !self.edits.iter().all(|(find, _)| text.contains(find)) {
            return (text.to_owned(), false);
        }
        let replace = |text: String, (find, replacement): &(&str, &str)| {
            assert_eq!(text.matches(find).count(), 1, "{}: `{find}` is ambiguous", self.name);
            text.replace(find, replacement)
        };
        (self.edits.iter().fold(text.to_owned(), replace), true)
    }
}

macro_rules! mutants {
    ($($name:literal: $($find:literal => $replacement:literal),+; $($likely:literal),+;)*) => {
        /// All of them.
        pub(crate) const MUTANTS: &[Mutant] = &[$(Mutant {
            name: $name,
            edits: &[$(($find, $replacement)),+],
            likely: &[$($likely),+],
        }),*];
    };
}

mutants! {
    // --- the online softmax ---
    "o is not rescaled": "o = scaled(o, rescale);" => ""; "bound";
    "the second half of o is not rescaled": "if (WIDE) { wide = scaled(wide, rescale); }" => ""; "resident";
    "l is not rescaled": "fma(l, rescale, " => "fma(l, vec4(1.0), "; "bound";
    "o is rescaled by another row's factor": "o.b0 * f.y" => "o.b0 * f.x"; "bound";
    "o gets another row's weight": "fma(vec4(p.z), v0, o.c0)" => "fma(vec4(p.y), v0, o.c0)"; "bound";
    "the maximum misses a lane": "for (var c = 1u; c < LANES_C; c++) { result = max" => "for (var c = 2u; c < LANES_C; c++) { result = max"; "steep";
    "the maximum is of this tile alone": "max(m, max_over_lanes(lane, own_max))" => "max_over_lanes(lane, own_max)"; "steep", "bound";
    "the sum misses a lane": "for (var c = 1u; c < LANES_C; c++) { result += " => "for (var c = 2u; c < LANES_C; c++) { result += "; "count";
    "the sum takes one row's for another's": "sum4(p.c), sum4(p.d))" => "sum4(p.d), sum4(p.c))"; "bound";
    "scale is not applied": " * params.q_scale" => ""; "bound";
    // --- which keys ---
    "the last tile of keys of a stretch is skipped": "offset < stretch; offset += KEYS" => "offset + KEYS < stretch; offset += KEYS"; "count";
    "the last run is skipped": "run < end; run++" => "run + 1u < end; run++"; "count";
    "partial is taken as full": "let kind = mask[params.runs_at + 3u * run + 2u];" => "let kind = FULL;"; "count";
    "the blocks of a partial run are all the first": "first_block * BLOCK_K + done + offset" => "first_block * BLOCK_K + offset"; "gather", "bound";
    "bit tiles are read with another pitch": "(tile * BLOCK_Q + row) * WORDS_A_TILE_ROW" => "(tile * BLOCK_Q + row) * (WORDS_A_TILE_ROW - 1u)"; "count";
    "bit tiles are read from the first key of the block": "min(t + tile.offset, vec4(BLOCK_K - 1u))" => "min(t, vec4(BLOCK_K - 1u))"; "count";
    "bit tiles are read from the first row of the block": "let row = at.first_row % BLOCK_Q + lane.r;" => "let row = lane.r;"; "count";
    "the bit of a key is that of its neighbour": "(words >> (key % vec4(32u)))" => "(words >> ((key ^ vec4(1u)) % vec4(32u)))"; "count";
    "a short tile of keys is not masked": "min(KEYS, stretch - offset)" => "KEYS"; "short tiles";
    "heads share the first head's mask": " + head * params.mask_head" => ""; "count";
    "batch items share the first item's mask": "batch * params.mask_batch + head" => "head"; "count";
    "dropped keys weigh as much as a row's maximum": "p.b = select(vec4(0.0), p.b, s.b > vec4(DROPPED));" => ""; "count";
    // --- where tensors lie ---
    "the key/value head is the query head": "let kv_head = head / params.heads_a_kv_head;" => "let kv_head = head % 2u;"; "bound";
    "k lies at the query head": "kv_head * params.k_head" => "head * params.k_head"; "gather";
    "v lies at the query head": "kv_head * params.v_head" => "head * params.v_head"; "gather";
    "q lies at k's head stride": "head * params.q_head" => "head * params.k_head"; "bound";
    "out lies at q's head stride": "at.head * params.out_head" => "at.head * params.q_head"; "bound";
    "the chunks of k are all the first": "load_k(at.k_at + j * params.k_row, chunk + g)" => "load_k(at.k_at + j * params.k_row, g)"; "bound";
    "the chunks of a resident q are all the first": "select(0u, chunk, Q_RESIDENT)" => "0u"; "resident";
    "the pieces of v are all the first": "stage_v(at, lane, tile.first + key, masked)" => "stage_v(at, lane, tile.first, masked)"; "bound";
    "rows past the last are written": "if (row >= params.q_count) { return; }" => ""; "bound";
    "columns past the last are written": "if (group >= VALUE_GROUPS) { return; }" => ""; "bound";
    // --- barriers ---
    "no barrier after k is staged": "stage_k(at, lane, tile.first, chunk, groups);\n        workgroupBarrier();" => "stage_k(at, lane, tile.first, chunk, groups);"; "bound";
    "no barrier before q and k are staged": "workgroupBarrier(); // the last tile's v" => "// the last tile's v"; "bound";
    "no barrier between the pieces of v": "if (key > 0u) { workgroupBarrier(); }" => ""; "bound";
    "no barrier after v is staged": "masked);\n        workgroupBarrier();" => "masked);"; "bound";
    "no barrier within the maximum": "= x;\n    workgroupBarrier();\n    var result = arena[REDUCE_AT + lane.r];\n    for (var c = 1u; c < LANES_C; c++) { result = max" => "= x;\n    var result = arena[REDUCE_AT + lane.r];\n    for (var c = 1u; c < LANES_C; c++) { result = max"; "bound";
    "no barrier within the sum": "= x;\n    workgroupBarrier();\n    var result = arena[REDUCE_AT + lane.r];\n    for (var c = 1u; c < LANES_C; c++) { result +=" => "= x;\n    var result = arena[REDUCE_AT + lane.r];\n    for (var c = 1u; c < LANES_C; c++) { result +="; "resident";
    // --- score terms ---
    "log2(e) is missing": "vec4(2.3e38)) * LOG2_E" => "vec4(2.3e38))"; "terms";
    "softcap comes after the bias": "if (HAS_SOFTCAP) { s = params.softcap * tanh_of(s / params.softcap); }" => "", "    // Times log2(e)" => "    if (HAS_SOFTCAP) { s = params.softcap * tanh_of(s / params.softcap); }\n    // Times log2(e)"; "terms";
    "softcap loses the sign": "return sign(x) * " => "return "; "terms";
    "the bias is that of query 0": " + i * params.bias_query" => ""; "terms";
    "the bias is that of head 0": " + head * params.bias_head" => ""; "terms";
    "a bias of minus infinity does not remove": "return select(s, vec4(DROPPED), removed);" => "return s;"; "removed";
    "ALiBi looks the other way": "vec4<i32>(j) - vec4(i32(i))" => "vec4(i32(i)) - vec4<i32>(j)"; "terms";
    "ALiBi takes head 0's slope": "mask[params.slopes_at + head]" => "mask[params.slopes_at]"; "terms";
    // --- the end of a row ---
    "an empty row is not 0": "select(0.0, 1.0 / all_l, all_l > 0.0)" => "1.0 / all_l"; "count";
    "lse is in base 2": "(all_m + log2(all_l)) * 0.6931471805599453" => "(all_m + log2(all_l))"; "lse";
    "lse of an empty row is not f32::MIN": "select(DROPPED, (all_m + log2(all_l)) * 0.6931471805599453, all_l > 0.0)" => "(all_m + log2(max(all_l, 1.0e-30))) * 0.6931471805599453"; "lse";
    "lse of several parts is in base 2": "(m + log2(l)) * 0.6931471805599453" => "(m + log2(l))"; "parts";
    "NaN in v reaches rows that do not attend it": "value = select(value, vec4(0.0), not_finite(value));" => ""; "isolated";
    // --- parts ---
    "the sum forgets the earlier parts": "all_l = fma(row_l, new_weight, old_weight);" => "all_l = row_l * new_weight;"; "parts";
    "the output takes the earlier parts' unweighted": "vec4(old_weight), value)" => "vec4(1.0), value)"; "parts";
    "parts merge by the last one's maximum": "all_m = max(row_m, old_m);" => "all_m = row_m;"; "floor parts";
    "a part's weight is not that of its maximum": "new_weight = exp2(max(row_m - all_m, -200.0));" => "new_weight = 1.0;"; "parts";
    "the order of queries is ignored": "return mask[params.q_order_at + min(row, params.q_count - 1u)];" => "return row;"; "parts";
    "the order of keys is that of queries": "mask[params.k_order_at + min(" => "mask[params.q_order_at + min("; "parts";
    "rows of several parts are narrowed into head 0": "batch * params.out_batch + head * params.out_head + i" => "batch * params.out_batch + i"; "f16 parts";
    // --- element types ---
    "f16 halves are swapped when written": "pack2x16float(clamp(x, " => "pack2x16float(clamp(x.yx, "; "f16";
    "f16 halves are swapped when read": "vec4(unpack2x16float(word.x), unpack2x16float(word.y))" => "vec4(unpack2x16float(word.y), unpack2x16float(word.x))"; "f16";
    "an odd f16 is read as its neighbour": "unpack2x16float(word)[index % 2u]" => "unpack2x16float(word)[0]"; "odd f16";
    "bf16 is read with its neighbour's bits": "word.x & 0xffff0000u, word.y << 16u" => "word.x, word.y << 16u"; "bf16";
    "an odd bf16 is read as its neighbour": "index % 2u == 1u" => "index % 2u == 0u"; "odd bf16";
    "bf16 is cut instead of rounded": "bits + vec2(0x7fffu) + ((bits >> vec2(16u)) & vec2(1u))" => "bits"; "rounding";
    "an odd 16-bit store clears its neighbour": "0xffff0000u >> shift" => "0u"; "odd f16";
    "an odd 16-bit store keeps the old bits": "atomicAnd(&out[e / 2u], 0xffff0000u >> shift);" => ""; "odd f16";
    "odd rows of f32 are written to whole groups": "min(4u, VALUE_DIM - 4u * group); t++) { out[" => "4u; t++) { out["; "odd f32";
    "odd rows are padded with their last element": "k[w.z], e.z), widen_x1(k[w.w], e.w));\n    return select(vec4(0.0), x, c < vec4(HEAD_DIM));" => "k[w.z], e.z), widen_x1(k[w.w], e.w));\n    return x;", "widen_x1(q[w.w], e.w));\n    return select(vec4(0.0), x, c < vec4(HEAD_DIM));" => "widen_x1(q[w.w], e.w));\n    return x;"; "odd f32";
    "odd rows of v are read one element late": "let e = vec4(row) + min(c, vec4(VALUE_DIM - 1u));" => "let e = vec4(row) + min(c + vec4(1u), vec4(VALUE_DIM - 1u));"; "odd f32";
}
