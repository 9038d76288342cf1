// No gradient of a term's tensor is asked for.

fn take(at: Head, lane: Lane, tile: KeyTile, ds: Slopes) {}

fn take_own(at: Head, lane: Lane, tile: KeyTile, ds: mat4x4<f32>) {}
