// Features are of the elements.
fn spread(f: u32, g: vec4<f32>) { own_dx[f] = g; }
