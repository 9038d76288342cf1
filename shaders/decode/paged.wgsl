// Keys and values [pages, Hkv, PAGE]: the row of a position, through the table of its sequence. A wrong page is cut off to the last.

@group(0) @binding(BINDING_pages) var<storage, read> pages: array<u32>;         // [B, capacity / PAGE]

fn row_of(batch: u32, head: u32, position: u32) -> u32 {
    let page = min(pages[batch * (params.cache.capacity / PAGE) + position / PAGE], params.cache.pages - 1u);
    return (page * params.cache.kv_heads + head) * PAGE + position % PAGE;
}
