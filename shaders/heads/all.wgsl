// Every query head is computed.

// Heads that a batch item has work items for, and the one that the n-th of them is of.
fn head_items() -> u32 { return params.kernel.heads; }

fn nth_head(n: u32) -> u32 { return n; }

// The same of key heads: of the n-th, the first of its query heads among the above, and their end.
fn key_head_items() -> u32 { return params.kernel.heads / params.kernel.heads_per_kv_head; }

fn heads_of_key_head(n: u32) -> vec2<u32> {
    return vec2(n * params.kernel.heads_per_kv_head, (n + 1u) * params.kernel.heads_per_kv_head);
}
