@group(0) @binding(BINDING_logs) var<storage, read_write> logs: array<f32>;        // [B, H, Lq]: of what a query's l is relative to; DROPPED: no key

fn leave_log(query: u32, factor: f32) {
    let top = end_at(query).y;
    logs[query] = select(-top, DROPPED, factor == 0.0 || top == DROPPED);
}
