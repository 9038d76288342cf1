fn factor_of(key: u32, place: u32) -> f32 { return select(1.0, 0.0, is_hidden(place)); }
fn with_product(product: f32, x: vec4<f32>, key: u32, g: u32) -> f32 { return 0.0; }
fn last_of(product: f32, factor: f32) -> f32 { return factor; }
