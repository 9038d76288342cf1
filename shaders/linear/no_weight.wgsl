fn leave_weight(key: u32, log_weight: f32) {}
