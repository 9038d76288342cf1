//! Faults of calls of some heads: of their list, and where it is read.

wgpu_attention_testing::mutants! {
    "a head's place in the list is taken for its number" ["by head"]
        "if (!PACKED) { head = nth_head(n); }" => "if (!PACKED) { head = n; }";
    "the list begins a word late" ["by head"]
        "return mask[params.keep.heads_at + 2u + n]; }" => "return mask[params.keep.heads_at + 3u + n]; }";
    "the list ends a head early" ["alone"]
        "fn head_items() -> u32 { return mask[params.keep.heads_at]; }" => "fn head_items() -> u32 { return mask[params.keep.heads_at] - 1u; }";
    "dq goes by the place" ["alone"]
        "return vec3(item.x, nth_head(item.y), item.z);" => "return item;";
    "a tensor's gradient goes by the place" ["gradients"]
        "let head = nth_head(work / p.head_step % head_items());" => "let head = work / p.head_step % head_items();";
    "key heads are as many as heads" ["alone"]
        "fn key_head_items() -> u32 { return mask[params.keep.heads_at + 1u]; }" => "fn key_head_items() -> u32 { return mask[params.keep.heads_at]; }";
    "a key head's heads begin where they end" ["gradients"]
        "let at = params.keep.heads_at + 2u + head_items() + 2u * n;" => "let at = params.keep.heads_at + 2u + head_items() + 2u * n + 1u;";
    "one head of each key head counts" ["gradients"]
        "place < heads.y; place++" => "place < heads.x + 1u; place++";
    "a key head is its place" ["gradients"]
        "let kv_head = first / params.kernel.heads_per_kv_head;" => "let kv_head = n;";
    "the heads of a key head are all the first" ["gradients"]
        "let head = nth_head(place);" => "let head = first;";
    "rows that merge go by the place" ["merged"]
        "mask[params.kernel.heads_at + 2u + n / params.kernel.q_len % count]" => "(n / params.kernel.q_len % count)";
    "rows that merge count all heads" ["merged"]
        "let batch = n / params.kernel.q_len / count;" => "let batch = n / params.kernel.q_len / params.kernel.heads;";
    "merged rows are read by the place" ["merged"]
        "let group_at = row * VALUE_GROUPS + column_group;" => "let group_at = item;";
}
