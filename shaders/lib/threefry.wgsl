// Threefry2x32 with 13 rounds (Salmon 2011): 64 random bits for a 64-bit counter under a 64-bit key, of 4 counters at a time. In integers
// alone: every device has the bits of src/score/threefry.rs.

struct Words { x: vec4<u32>, y: vec4<u32> }

fn threefry(key: Words, counter: Words) -> Words {
    let third = vec4(0x1bd11bdau) ^ key.x ^ key.y;
    var w = Words(counter.x + key.x, counter.y + key.y);
    w = mixed(mixed(mixed(mixed(w, 13u), 15u), 26u), 6u);
    w = Words(w.x + key.y, w.y + third + vec4(1u));
    w = mixed(mixed(mixed(mixed(w, 17u), 29u), 16u), 24u);
    w = Words(w.x + third, w.y + key.x + vec4(2u));
    w = mixed(mixed(mixed(mixed(w, 13u), 15u), 26u), 6u);
    w = Words(w.x + key.x, w.y + key.y + vec4(3u));
    return mixed(w, 17u);
}

fn mixed(w: Words, rotation: u32) -> Words {
    let x = w.x + w.y;
    return Words(x, ((w.y << vec4(rotation)) | (w.y >> vec4(32u - rotation))) ^ x);
}
