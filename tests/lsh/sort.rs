//! The stable sort by key: duplicate keys, payloads of their own, edges of blocks and tiles, several passes.

use super::gpu;
use wgpu_attention::{Counter, SortShape};

/// By the standard library's stable sort, in each segment.
fn expected(shape: &SortShape, keys: &[u32], values: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mask = u32::MAX >> (32 - shape.key_bits);
    let mut pairs: Vec<(u32, u32)> = keys.iter().copied().zip(values.iter().copied()).collect();
    pairs.chunks_mut(shape.len.max(1)).for_each(|segment| segment.sort_by_key(|pair| pair.0 & mask));
    pairs.into_iter().unzip()
}

fn check(shape: SortShape, keys: &[u32], what: &str) {
    // Unlike the keys, and unlike the places.
    let draw = Counter::new(7, shape.len as u64);
    let payload: Vec<u32> = (0..keys.len() as u64).map(|n| draw.bits(n) as u32).collect();
    let places: Vec<u32> = (0..keys.len()).map(|n| (n % shape.len.max(1)) as u32).collect();
    for (values, given) in [(&payload, Some(payload.as_slice())), (&places, None)] {
        let got = gpu().sort(&shape, keys, given).unwrap();
        let (keys_want, values_want) = expected(&shape, keys, values);
        let wrong = (0..keys.len()).find(|&n| (got.keys[n], got.values[n]) != (keys_want[n], values_want[n]));
        let values = if given.is_some() { "payload" } else { "places" };
        assert_eq!(wrong, None, "{what}, {values}, {shape:?}: first wrong place");
    }
}

fn random(shape: &SortShape, seed: u64, below: u64) -> Vec<u32> {
    let draw = Counter::new(seed, 0);
    (0..shape.len_keys() as u64).map(|n| draw.below(n, below) as u32).collect()
}

#[test]
fn lengths_at_the_edges_of_tiles_and_blocks() {
    for len in [1, 2, 31, 32, 33, 255, 256, 257, 2047, 2048, 2049, 4095, 4096, 4097, 6145] {
        for segments in [1, 3] {
            let shape = SortShape::new(segments, len).key_bits(6);
            check(shape, &random(&shape, len as u64, 50), "duplicates");
        }
    }
}

#[test]
fn keys_of_any_width() {
    for (key_bits, below) in
        [(1, 2), (8, 256), (9, 512), (16, 65_536), (17, 65_537), (24, 1 << 24), (32, 1 << 32)]
    {
        let shape = SortShape::new(2, 3000).key_bits(key_bits);
        check(shape, &random(&shape, 5, below), "random");
    }
    // Bits past those that count are carried along, and do not count.
    let shape = SortShape::new(2, 1000).key_bits(4);
    check(shape, &random(&shape, 6, 1 << 32), "wide keys, narrow sort");
}

#[test]
fn equal_sorted_and_reversed_keys() {
    let shape = SortShape::new(2, 5000).key_bits(16);
    let keys = |f: fn(u32) -> u32| (0..10_000).map(f).collect::<Vec<_>>();
    check(shape, &keys(|_| 0), "all 0");
    check(shape, &keys(|_| 65_535), "all equal");
    check(shape, &keys(|n| n % 5000), "sorted");
    check(shape, &keys(|n| 4999 - n % 5000), "reversed");
    check(shape, &keys(|n| n % 2), "two in turn");
    check(shape, &keys(|n| if n == 2500 { 0 } else { 9 }), "one of another kind");
}

#[test]
fn a_long_list() {
    let len = if std::env::var_os("LSH_LONG").is_some() { SortShape::MAX_LEN } else { 1 << 20 };
    let shape = SortShape::new(1, len).key_bits(17);
    check(shape, &random(&shape, 3, 65_537), "long");
}

#[test]
fn nothing_to_sort() {
    for shape in [SortShape::new(0, 5), SortShape::new(5, 0)] {
        let sorted = gpu().sort(&shape, &[], None).unwrap();
        assert!(sorted.keys.is_empty() && sorted.values.is_empty());
    }
}

#[test]
fn the_same_keys_give_the_same_bits() {
    let shape = SortShape::new(4, 5000).key_bits(10);
    let keys = random(&shape, 8, 1000);
    let first = gpu().sort(&shape, &keys, None).unwrap();
    for _ in 0..3 {
        assert_eq!(gpu().sort(&shape, &keys, None).unwrap(), first);
    }
}
