fn row_factor(row: u32, top: f32) -> f32 { return 1.0; }
