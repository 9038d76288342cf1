// The rows of some query heads are computed, those that `mask` lists: see heads/chosen.wgsl.

@group(0) @binding(BINDING_mask) var<storage, read> mask: array<u32>;

// The row [B, H, Lq] that the n-th of [B, computed heads, Lq] is.
fn nth_row(n: u32) -> u32 {
    let count = mask[params.kernel.heads_at];
    let i = n % params.kernel.q_len;
    let head = mask[params.kernel.heads_at + 2u + n / params.kernel.q_len % count];
    let batch = n / params.kernel.q_len / count;
    return (batch * params.kernel.heads + head) * params.kernel.q_len + i;
}
