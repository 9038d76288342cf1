// All keys weigh the same: the logarithm is 0, whatever is asked.

const DROPPED = -0x1.fffffep+127f;

fn log_weight_of(key: u32, kv_head: u32, steps: u32) -> f32 { return 0.0; }
fn older(log: f32, kv_head: u32, steps: u32) -> f32 { return 0.0; }
fn weight(log: f32, top: f32) -> f32 { return 1.0; }
fn top_of_keys(keys_at: u32, kv_head: u32, first: u32, end: u32) -> f32 { return 0.0; }
fn leave_top(of_chunk: u32, top: f32) {}
fn leave_top_before(of_chunk: u32, top: f32) {}
fn top_of_chunk(of_chunk: u32) -> f32 { return 0.0; }
fn top_before_chunk(of_chunk: u32) -> f32 { return 0.0; }
