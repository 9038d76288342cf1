//! Threefry2x32 with 13 rounds: random bits that are a function of a key and a counter.

/// 64 bits for a 64-bit counter under a 64-bit key, as two words each (Salmon 2011, *Parallel random numbers: as easy as 1, 2, 3*,
/// section 4.2; 13 rounds are the fewest that pass BigCrush, by its table 2). For one key it is a bijection of the counters. In additions, rotations and
/// exclusive or of 32 bits alone: `shaders/lib/threefry.wgsl` has the same bits on every device.
pub(super) fn threefry(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    const ROTATIONS: [u32; 8] = [13, 15, 26, 6, 17, 29, 16, 24];
    let keys = [key[0], key[1], 0x1bd1_1bda ^ key[0] ^ key[1]];
    let [mut x, mut y] = [counter[0].wrapping_add(key[0]), counter[1].wrapping_add(key[1])];
    for round in 0..13 {
        if round > 0 && round % 4 == 0 {
            let n = round / 4;
            x = x.wrapping_add(keys[n % 3]);
            y = y.wrapping_add(keys[(n + 1) % 3]).wrapping_add(n as u32);
        }
        x = x.wrapping_add(y);
        y = y.rotate_left(ROTATIONS[round % 8]) ^ x;
    }
    [x, y]
}

#[cfg(test)]
mod tests {
    use super::threefry;

    /// The vectors of Random123 (`kat_vectors`, `threefry2x32 13`): counter, key, result.
    #[test]
    fn published_vectors() {
        for (counter, key, result) in [
            ([0, 0], [0, 0], [0x9d1c_5ec6, 0x8bd5_0731]),
            ([u32::MAX; 2], [u32::MAX; 2], [0xfd36_d048, 0x2d17_272c]),
            ([0x243f_6a88, 0x85a3_08d3], [0x1319_8a2e, 0x0370_7344], [0xba3e_4725, 0xf27d_669e]),
        ] {
            assert_eq!(threefry(key, counter), result, "{counter:x?} under {key:x?}");
        }
    }
}
