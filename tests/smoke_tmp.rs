//! tmp
use wgpu_attention::*;
fn rnd(n: usize, seed: u64) -> Vec<f32> {
    let mut s = seed;
    (0..n)
        .map(|_| {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((s >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 3.0
        })
        .collect()
}
fn naive(shape: &AttentionShape, q: &[f32], k: &[f32], v: &[f32], p: &dyn Pattern) -> Vec<f64> {
    let mut out = vec![0.0; shape.len_out()];
    for b in 0..shape.batch {
        for h in 0..shape.heads {
            for i in 0..shape.q_len {
                let site = Site { batch: b, head: h, extent: shape.extent() };
                let qa = shape.q_strides().at(b, h, i);
                let s: Vec<Option<f64>> = (0..shape.kv_len)
                    .map(|j| {
                        p.keep(&site, i, j).then(|| {
                            let ka = shape.k_strides().at(b, shape.kv_head(h), j);
                            (0..shape.head_dim).map(|c| q[qa + c] as f64 * k[ka + c] as f64).sum::<f64>()
                                * shape.scale_value() as f64
                        })
                    })
                    .collect();
                let m = s.iter().flatten().cloned().fold(f64::MIN, f64::max);
                let l: f64 = s.iter().flatten().map(|s| (s - m).exp()).sum();
                for c in 0..shape.value_dim {
                    let mut o = 0.0;
                    for j in 0..shape.kv_len {
                        if let Some(s) = s[j] {
                            o += (s - m).exp() / l
                                * v[shape.v_strides().at(b, shape.kv_head(h), j) + c] as f64;
                        }
                    }
                    out[shape.out_strides().at(b, h, i) + c] = o;
                }
            }
        }
    }
    out
}
#[test]
fn smoke() {
    let gpu = Gpu::new().unwrap();
    println!("{:?}", gpu.info());
    for (shape, name) in [
        (AttentionShape::new(1, 2, 200, 64), "d64"),
        (AttentionShape::new(2, 4, 130, 32).kv_heads(2).kv_len(77), "gqa"),
        (AttentionShape::new(1, 2, 65, 128), "d128"),
        (AttentionShape::new(1, 1, 65, 7).value_dim(5), "odd"),
        (AttentionShape::new(1, 1, 129, 256), "d256"),
        (AttentionShape::new(1, 1, 300, 1).value_dim(80), "d1"),
    ] {
        let (q, k, v) = (rnd(shape.len_q(), 1), rnd(shape.len_k(), 2), rnd(shape.len_v(), 3));
        for p in [&Full as &dyn Pattern, &Causal] {
            let t = std::time::Instant::now();
            let out: Vec<f32> = gpu.attention(&shape, &q, &k, &v, p).unwrap();
            let t1 = t.elapsed();
            let t = std::time::Instant::now();
            let _: Vec<f32> = gpu.attention(&shape, &q, &k, &v, p).unwrap();
            let want = naive(&shape, &q, &k, &v, p);
            let e = out.iter().zip(&want).map(|(a, b)| (*a as f64 - b).abs()).fold(0.0, f64::max);
            println!("{name} {p:?}: err {e:.2e} first {t1:?} second {:?}", t.elapsed());
            assert!(e < 1e-5);
        }
    }
    let shape = AttentionShape::new(1, 4, 1024, 64);
    let (q, k, v) = (rnd(shape.len_q(), 1), rnd(shape.len_k(), 2), rnd(shape.len_v(), 3));
    let t = std::time::Instant::now();
    let _: Vec<f32> = gpu.attention(&shape, &q, &k, &v, &Full).unwrap();
    let dt = t.elapsed().as_secs_f64();
    println!("1024x4x64 {dt} s, {} GFLOP/s", shape.flops(4 * 1024 * 1024) / dt / 1e9);
}
