//! Each lint finds the fault that it is for, planted in a small kernel, and leaves sound look-alikes alone.

use wgpu_attention_gates::{Fault, Parsed, lint};

const LIMIT: u32 = 16_384;

const HEADER: &str = "
    struct Params { count: u32, scale: f32 }
    @group(0) @binding(0) var<uniform> params: Params;
    @group(0) @binding(1) var<storage, read> x: array<f32>;
    @group(0) @binding(2) var<storage, read_write> out: array<f32>;
    var<workgroup> tile: array<f32, 64>;
    var<private> own: f32;";

/// What is wrong with a kernel of this body, with these declarations before it.
fn faults(declarations: &str, body: &str) -> Vec<Fault> {
    let text = format!(
        "{HEADER}\n{declarations}\n@compute @workgroup_size(64) fn main(@builtin(workgroup_id) group: vec3<u32>, \
         @builtin(local_invocation_index) lane: u32) {{ tile[lane] = x[lane]; {body} }}"
    );
    lint(&Parsed::new(&text, "main").unwrap_or_else(|error| panic!("{error:#}")), LIMIT)
}

fn sound(declarations: &str, body: &str) {
    assert_eq!(faults(declarations, body), [], "{declarations} {body}");
}

/// The one fault, of its kind.
fn one(declarations: &str, body: &str, kind: impl Fn(&Fault) -> bool) {
    let found = faults(declarations, body);
    assert!(found.len() == 1 && kind(&found[0]), "{declarations} {body}: {found:?}");
}

#[test]
fn constants_that_are_not_finite() {
    let not_finite = |fault: &Fault| matches!(fault, Fault::NotFinite(_));
    // naga itself refuses infinite literals and 1 / 0; their bits pass.
    assert!(Parsed::new("const a = 1e39f; @compute @workgroup_size(1) fn main() {}", "main").is_err());
    let bits = |bits: &str| format!("var b = {bits}; out[lane] = bitcast<f32>(b);");
    one("", "out[lane] = bitcast<f32>(0x7f800000u);", not_finite);
    one("", "out[lane] = bitcast<vec4<f32>>(vec4(0xffc00000u)).x;", not_finite);
    one("const INFINITY = 0x7f800000u;", "out[lane] = bitcast<f32>(INFINITY);", not_finite);
    sound("", &bits("0x7f7fffffu"));
    sound("", "out[lane] = bitcast<f32>(0xff7fffffu) + -0x1.fffffep+127f;");
}

#[test]
fn masks_by_arithmetic() {
    let mask = |fault: &Fault| matches!(fault, Fault::ArithmeticMask(_));
    for body in [
        "let keep = f32(lane < params.count); out[lane] = x[lane] * keep + (1.0 - keep) * -1e10;",
        "out[lane] = x[lane] + select(-1e10, 0.0, lane < params.count);",
        "out[lane] = fma(select(1.0, 0.0, lane < params.count), -1e9, x[lane]);",
        "var keep = 0.0; if (lane < params.count) { keep = f32(lane == 3u); } out[lane] = keep * x[lane];",
        "let keep = vec4<f32>(vec4(lane) < vec4(params.count)); out[lane] = (keep * x[lane]).x;",
    ] {
        one("", body, mask);
    }
    one(
        "fn masked(s: f32, keep: bool) -> f32 { return s - 1e10 * f32(!keep); }",
        "out[lane] = masked(x[lane], lane > 3u);",
        mask,
    );
    sound("", "out[lane] = select(-0x1.fffffep+127f, x[lane] * 2.0, lane < params.count);");
    sound("", "out[lane] = x[lane] * select(1.0, params.scale, lane < params.count);");
    sound("", "out[lane] = x[lane] * f32(lane) + 1.0;");
    sound("", "out[lane] = f32(select(0u, 1u, lane < params.count));");
}

#[test]
fn storage_buffers() {
    let buffers = |count: u32| -> String {
        (0..count)
            .map(|n| format!("@group(1) @binding({n}) var<storage, read> b{n}: array<f32>;\n"))
            .collect()
    };
    sound(&buffers(6), "");
    one(&buffers(7), "", |fault| *fault == Fault::Bindings(9));
}

#[test]
fn workgroup_memory() {
    // 256 bytes are the header's `tile`.
    let arena = |len: u32| format!("var<workgroup> arena: array<vec4<f32>, {len}>;");
    let touch = "arena[lane] = vec4(0.0);";
    sound(&arena(1008), touch);
    one(&arena(1009), touch, |fault| *fault == Fault::WorkgroupMemory { bytes: 16_400, declared: 16_384 });
    // What is not used takes no memory.
    sound(&arena(5000), "");
    sound(&format!("const ARENA = 116u; {}", arena(100)), touch);
    let declared = format!("const ARENA = 100u; {}", arena(100));
    one(&declared, touch, |fault| *fault == Fault::WorkgroupMemory { bytes: 1856, declared: 1600 });
}

#[test]
fn barriers_that_only_some_lanes_reach() {
    let parted = |fault: &Fault| matches!(fault, Fault::NonUniformBarrier(_));
    for body in [
        "if (lane < 32u) { workgroupBarrier(); }",
        "if (lane < params.count) { return; } workgroupBarrier();",
        "for (var i = 0u; i < lane; i++) { storageBarrier(); }",
        "for (var i = 0u; i < u32(out[0]); i++) { workgroupBarrier(); }",
        "for (var i = 0u; i < 9u; i++) { if (i == lane) { break; } workgroupBarrier(); }",
        "for (var i = 0u; i < 9u; i++) { workgroupBarrier(); if (i == lane) { break; } }",
        "for (var i = 0u; i < 9u; i++) { if (i == lane) { continue; } workgroupBarrier(); }",
        "own = x[lane]; if (own > 0.0) { workgroupBarrier(); }",
        "var n = 0u; if (lane == 0u) { n = 1u; } if (n == 0u) { workgroupBarrier(); }",
        "switch (lane) { case 0u: { workgroupBarrier(); } default: {} }",
        "if (tile[0] > 0.0) { workgroupBarrier(); }",
    ] {
        one("", body, parted);
    }
    one("fn wait() { workgroupBarrier(); }", "if (lane > 3u) { wait(); } wait();", parted);
    one(
        "fn first(lane: u32) -> u32 { if (lane > 3u) { return 1u; } return 0u; }",
        "if (first(lane) == 0u) { workgroupBarrier(); }",
        parted,
    );
    one(
        "fn put(to: ptr<function, u32>) { *to = 1u; }",
        "var n = 0u; if (lane == 0u) { put(&n); } if (n == 0u) { workgroupBarrier(); }",
        parted,
    );
    one(
        "fn put() { own = 1.0; }",
        "if (lane == 0u) { put(); } if (own > 0.0) { workgroupBarrier(); }",
        parted,
    );
}

#[test]
fn barriers_that_all_lanes_reach() {
    for body in [
        "if (group.x < params.count) { workgroupBarrier(); }",
        "if (group.x > params.count) { return; } workgroupBarrier();",
        "for (var i = 0u; i < u32(x[group.x]); i++) { workgroupBarrier(); }",
        "for (var i = 0u; i < 9u; i++) { if (i == group.x) { break; } workgroupBarrier(); }",
        "if (lane < 32u) { out[lane] = 0.0; } workgroupBarrier();",
        "for (var i = lane; i < 99u; i += 64u) { out[i] = 0.0; } workgroupBarrier();",
    ] {
        sound("", body);
    }
    // A function that is called where lanes have parted gives the same to those that call it.
    sound(
        "fn twice(n: u32) -> u32 { var m = n; m += n; return m; }",
        "if (lane > 3u) { out[twice(lane)] = 0.0; }",
    );
    sound(
        "fn both(a: u32, b: u32) -> u32 { var m = a; m += b; return m; }",
        "if (lane > 3u) { out[lane] = f32(both(group.x, 1u)); } if (both(group.x, 2u) > 3u) { workgroupBarrier(); }",
    );
}

#[test]
fn loops_that_are_not_counted() {
    let uncounted = |fault: &Fault| matches!(fault, Fault::Loop(_));
    for body in [
        "loop { if (x[0] > 1.0) { break; } }",
        "loop { own += 1.0; continuing { break if own > 9.0; } }",
        "while (own < 9.0) { own += 1.0; }",
        "var i = 0u; while (i < 9u) { i++; }",
        "for (var i = 0u; i < 9u; i++) { if (x[i] > 0.0) { i = 8u; } }",
        "for (var i = 0u; own < 9.0; i++) { own += x[i]; }",
        "for (var i = 0u; i < 9u; i++) { step(&i); }",
    ] {
        one("fn step(i: ptr<function, u32>) { *i += 1u; }", body, uncounted);
    }
    sound("", "for (var i = 64u; i > 0u; i /= 2u) { own += x[i]; if (own > 9.0) { break; } }");
    sound("", "var n = 0u; for (var i = lane; i < params.count + n; i += 64u) { n = 1u; own += x[i]; }");
}
