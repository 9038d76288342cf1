// Some query heads are computed, those that `mask` lists: how many they are, how many key heads they read, the heads, and of each of
// those key heads where its own begin and end in the list.

fn head_items() -> u32 { return mask[params.keep.heads_at]; }

fn nth_head(n: u32) -> u32 { return mask[params.keep.heads_at + 2u + n]; }

fn key_head_items() -> u32 { return mask[params.keep.heads_at + 1u]; }

fn heads_of_key_head(n: u32) -> vec2<u32> {
    let at = params.keep.heads_at + 2u + head_items() + 2u * n;
    return vec2(mask[at], mask[at + 1u]);
}
