// Values are elements of the keys' rows, from VALUE_AT on, with the row's scale.

fn load_values(at: u32, count: u32) -> vec4<f32> { return load_keys(at, count); }

fn scale_of_values(at: u32) -> f32 { return scale_of_keys(at); }
