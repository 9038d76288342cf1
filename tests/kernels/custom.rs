//! Scores of the caller's own: those of `examples/your_score.rs`, and what a text may not have.

use crate::support::{Case, Cut, Placement, bound, bound_of_parts, check_all, cut, gpu};
use wgpu_attention::reference::gradient::{BoundOptions, bounded};
use wgpu_attention::reference::{Kind, random};
use wgpu_attention::{
    AttentionShape, Causal, Custom, CustomPair, ElementType, Full, Inputs, Outputs, Score, Sinks, Storage,
    Temperature,
};

#[path = "../../examples/your_score.rs"]
mod your_score;

use your_score::{image_bias, tanh_cap};

#[test]
fn the_example_runs() {
    your_score::main().unwrap();
}

#[test]
fn every_element_is_within_the_bound() {
    let mut cases = vec![];
    let image = AttentionShape::new(2, 4, 9 * 8, 16).kv_heads(2);
    for score in [
        Score::new().with(image_bias(4, 9, 8)),
        Score::new().softcap(3.0).with(Temperature).with(image_bias(4, 9, 8)),
        Score::new().with(image_bias(4, 9, 8)).with(tanh_cap()),
    ] {
        let case = Case::new(image.score(score));
        cases.extend([case.clone().kind(Kind::Peaky), case.clone().pattern(Causal).without_lse()]);
        cases.push(case.storage(Storage::all(ElementType::F16)));
    }
    cases.push(Case::new(Placement::Gap(3).apply(image.score(Score::new().with(image_bias(4, 9, 8))))));
    check_all("custom: bound", cases.clone(), bound);
    check_all("custom: parts", cases.into_iter().take(2), |case| {
        bound_of_parts(gpu(), case, &cut(case, Cut::Gathers, 1))
    });
}

/// Forward and backward, the caller's soft-capping gives the bits of the crate's.
#[test]
fn tanh_soft_capping_is_the_built_in_one() {
    let shape = AttentionShape::new(1, 4, 70, 16).kv_heads(2).kv_len(90);
    for cap in [0.5f32, 3.0, 50.0] {
        let [own, built_in] =
            [Score::new().with(tanh_cap()), Score::new().softcap(cap)].map(|score| shape.score(score));
        let tensors = random::<f32, f32>(&built_in, Kind::Peaky, 3).unwrap();
        let inputs = Inputs::new(&tensors.q, &tensors.k, &tensors.v);
        let with_cap = inputs.clone().tensor("tanh_cap_value", std::slice::from_ref(&cap));
        let run = |attention, inputs: &Inputs<'_, f32>| {
            let outputs = Outputs::default().lse();
            gpu().run::<f32, f32, f32>(attention, inputs, &Causal, outputs).unwrap()
        };
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let (a, b) = (run(&own, &with_cap), run(&built_in, &inputs));
        assert_eq!(bits(&a.out), bits(&b.out), "cap {cap}");
        assert_eq!(bits(&a.lse.unwrap()), bits(&b.lse.unwrap()), "cap {cap}");
        let backward = |attention, inputs: &Inputs<'_, f32>| {
            gpu().attention_backward::<f32, f32, f32, f32>(attention, inputs, &b.out, &Causal).unwrap()
        };
        let (a, b) = (backward(&own, &with_cap), backward(&built_in, &inputs));
        assert!(a.dq.iter().any(|x| x.abs() > 1e-3));
        for (a, b) in [(a.dq, b.dq), (a.dk, b.dk), (a.dv, b.dv)] {
            assert_eq!(bits(&a), bits(&b), "cap {cap}");
        }
    }
}

/// The cap's own derivative, tanh(x) - x / cosh(x)^2 at x = s / c.
fn learnt_cap() -> Custom {
    let text = "fn own_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> { return own_cap[pairs.head] * hyperbolic(s / own_cap[pairs.head]); }
fn own_slope(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
    let t = hyperbolic(s / own_cap[pairs.head]);
    return fma(-t, t, vec4(1.0));
}
// Keys from 20 on say nothing of it.
fn own_cap_at(pairs: Pairs) -> vec4<u32> { return select(vec4(pairs.head), vec4(1000u), pairs.j >= vec4(20u)); }
fn own_cap_by(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
    let x = s / own_cap[pairs.head];
    return hyperbolic(x) - x * own_slope(pairs, s);
}";
    let x = |s: f64, at: &CustomPair<'_>| s / f64::from(at.tensors[0][at.head]);
    Custom::new("own", text, move |s, at| f64::from(at.tensors[0][at.head]) * x(s, at).tanh())
        .tensor("own_cap", 4)
        .error(|_, error, after, _| error + 1e-5 * (after.abs() + error))
        .slope(move |s, at| x(s, at).cosh().powi(-2), |_, error, _, _| error + 1e-5)
        .tensor_gradient(
            "own_cap",
            |at| if at.j >= 20 { 1000 } else { at.head },
            move |s, at| x(s, at).tanh() - x(s, at) * x(s, at).cosh().powi(-2),
            |_, error, by, _| error + 1e-5 * (1.0 + by.abs()),
        )
}

/// Of a table, and of a cap above another; every element within its bound. Pairs of an element past the end read none.
#[test]
fn tensors_have_gradients() {
    let image = AttentionShape::new(2, 4, 9 * 8, 16).kv_heads(2);
    for (score, names) in [
        (Score::new().with(image_bias(4, 9, 8)), &["image_bias_table"][..]),
        (Score::new().softcap(2.0).with(learnt_cap()), &["own_cap"]),
        (Score::new().with(image_bias(4, 9, 8)).with(Sinks), &["image_bias_table", "sinks"]),
    ] {
        let attention = image.score(score);
        let mut tensors = random::<f32, f32>(&attention, Kind::Normal, 3).unwrap();
        if let Some(cap) = tensors.term_mut("own_cap") {
            cap.copy_from_slice(&[1.0, 2.0, -3.0, 0.5]);
        }
        let dout = random::<f32, f32>(&attention, Kind::Normal, 4).unwrap().q;
        let inputs = tensors.inputs();
        let got = gpu().attention_backward_with::<_, _, _, f32>(&attention, &inputs, &dout, &Causal, names);
        let got = got.unwrap();
        let exact = bounded(&attention, &inputs, &dout, &Causal, BoundOptions::default()).unwrap();
        for name in names {
            let exact = exact.term(name).unwrap();
            assert!(exact.out.iter().any(|x| x.abs() > 0.1), "{name}");
            let found = exact.compare(got.tensor(name).unwrap().iter().copied(), 0.0);
            assert!(found.pass && found.unspecified == 0, "{name}: {found}");
        }
    }
}

#[test]
fn what_a_gradient_lacks_is_named() {
    let text = |more: &str| format!("{HEAD} return s + own_t[0]; }} {more}");
    let own = |more: &str| {
        Custom::adds("own", text(more), |s, at| s + f64::from(at.tensors[0][0])).tensor("own_t", 2)
    };
    let of = |term: Custom, tensor| term.tensor_gradient(tensor, |_| 0, |_, _| 1.0, |_, _, _, _| 0.0);
    let at = "fn own_t_at(pairs: Pairs) -> vec4<u32> { return vec4(0u); }";
    let by = "fn own_t_by(pairs: Pairs, s: vec4<f32>) -> vec4<f32> { return vec4(1.0); }";
    let other = "fn own_t_at(pairs: Pairs) -> vec4<f32> { return vec4(0.0); }";
    for (term, needle) in [
        (of(own(by), "own_t"), "no `fn own_t_at(pairs: Pairs) -> vec4<u32>`"),
        (of(own(at), "own_t"), "no `fn own_t_by(pairs: Pairs, s: vec4<f32>) -> vec4<f32>`"),
        (of(own(&format!("{other} {by}")), "own_t"), "another `own_t_at` than"),
        (of(own(""), "own_table"), "custom.tensor_gradient: need a tensor of `own`, got `own_table`"),
    ] {
        let error = refusal(term);
        assert!(error.contains(needle), "{error}");
    }
    let attention = AttentionShape::new(1, 2, 16, 8).score(Score::new().with(own("")));
    let (x, table) = (vec![1.0f32; 256], [1.0f32, 2.0]);
    let inputs = Inputs::new(&x, &x, &x).tensor("own_t", &table);
    let error = gpu().attention_backward_with::<_, _, _, f32>(&attention, &inputs, &x, &Full, &["own_t"]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "gradient of own_t: need `Custom::tensor_gradient` of it, and its two functions in the text, got none"
    );
}

fn refusal(term: Custom) -> String {
    let attention = AttentionShape::new(1, 2, 16, 8).score(Score::new().with(term));
    gpu().kernels().attention(attention, &Full).expect_err("refused").to_string()
}

const HEAD: &str = "fn own_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {";

#[test]
fn errors_give_the_line_of_the_text() {
    for (text, line) in [
        (
            format!("{HEAD}\n    let x = 1.0;\n    return s + y;\n}}"),
            "line 3, `return s + y;`: no definition in scope for identifier: `y`",
        ),
        (format!("\n\n{HEAD} return s + ; }}"), "line 3, "),
        // Bindings of the kernel are out of reach, and so are its parameters and its functions.
        (
            format!("{HEAD}\n    return s + q[0];\n}}"),
            "line 2, `return s + q[0];`: no definition in scope for identifier: `q`",
        ),
        (format!("{HEAD}\n    return s * params.kernel.q_scale;\n}}"), "line 2, "),
        // What is wrong with a whole function is said at its first line.
        (format!("\n{HEAD}\n    own_table[0] = 1.0;\n    return s;\n}}"), "line 2, `fn own_score("),
        (format!("enable f16;\n{HEAD}\n    return s;\n}}"), "custom.own: need WGSL, got line "),
        (format!("{HEAD}\n    return s.x;\n}}"), "custom.own: need WGSL, got line "),
    ] {
        let error = refusal(Custom::new("own", text.clone(), |s, _| s).tensor("own_table", 4));
        assert!(error.contains(line), "{text}: {error}");
    }
}

#[test]
fn what_a_text_may_not_have_is_named() {
    let with = |more: &str| format!("{more}\n{HEAD} return s; }}");
    for (text, name) in [
        (with("var<private> own_sum: f32;"), "the variable `own_sum`"),
        (with("var<workgroup> own_sum: f32;"), "the variable `own_sum`"),
        (
            with("@group(0) @binding(9) var<storage, read_write> own_out: array<f32>;"),
            "the variable `own_out`",
        ),
        (with("@compute @workgroup_size(1) fn own_main() {}"), "the entry point `own_main`"),
        (with("override own_size: u32 = 1u;"), "the override `own_size`"),
        (with("fn row_at() -> u32 { return 0u; }"), "`row_at`, whose name does not begin with `own_`"),
        (with("alias Head = u32;"), "`Head`, whose name does not begin with `own_`"),
        (with("/* alias own_a = u32; */ alias // no\n Tile = f32;"), "`Tile`, whose name"),
        (with("fn own_slope_of(x: f32) -> f32 { return dpdx(x); }"), "a derivative between pixels in"),
        (with("const LANES = 4u;"), "`LANES`, whose name does not begin with `own_`"),
        (with("fn own_wait() { workgroupBarrier(); }"), "a barrier in `own_wait`"),
        (format!("{HEAD} if (s.x > 0.0) {{ storageBarrier(); }} return s; }}"), "a barrier in `own_score`"),
        ("fn own_other() {}".into(), "no `fn own_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32>`"),
        ("fn own_score(s: vec4<f32>) -> vec4<f32> { return s; }".into(), "another `own_score` than"),
        (with("fn own_score(s: f32) -> f32 { return s; }"), "own_score"),
    ] {
        let error = refusal(Custom::new("own", text.clone(), |s, _| s));
        assert!(error.starts_with("custom.own: need ") && error.contains(name), "{text}: {error}");
    }
    let text = with("");
    // A derivative that is promised has to be there; without one there are no gradients.
    let error = refusal(Custom::new("own", text.clone(), |s, _| s).slope(|_, _| 1.0, |_, _, _, _| 0.0));
    assert!(error.contains("no `fn own_slope("), "{error}");
    let attention =
        AttentionShape::new(1, 2, 16, 8).score(Score::new().with(Custom::new("own", text, |s, _| s)));
    let error = gpu().kernels().attention(&attention, &Full).unwrap().backward().unwrap_err().to_string();
    assert!(
        error.contains("score: need terms whose derivative is known: `Custom::slope`, got own"),
        "{error}"
    );
}

/// What the kernels or another term declare cannot be declared again, whatever the term's own name is.
#[test]
fn names_that_are_taken_are_refused() {
    let named = |name: &'static str, more: &str| {
        let text = format!("{more}fn {name}_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {{ return s; }}");
        Custom::new(name, text, |s, _| s)
    };
    let slope = "fn score_slope(pairs: Pairs, s: vec4<f32>) -> vec4<f32> { return s; }";
    for (term, taken) in [
        (named("row", ""), "custom.row: need names that the kernels do not have, got `row_score`"),
        (named("score", slope), "got `score_slope`"),
        (named("not", "fn not_finite(x: f32) -> bool { return true; }"), "got `not_finite`"),
        (named("strange", "struct strange_rows { x: f32 }"), "got `strange_rows`"),
        (named("bucket", "").tensor("bucket_table", 3), "got `bucket_table`"),
        (named("min", "alias min_4 = f32;\nconst min_5 = 1.0;\nfn min_6() {}"), ""),
    ] {
        let attention = AttentionShape::new(1, 2, 16, 8).score(Score::new().with(term));
        match gpu().kernels().attention(attention, &Full) {
            Ok(_) => assert_eq!(taken, ""),
            Err(error) => assert!(!taken.is_empty() && error.to_string().contains(taken), "{error}"),
        }
    }
    let twice = Score::new().with(named("own", "fn own_other_score() {}")).with(named("own_other", ""));
    let error = gpu().kernels().attention(AttentionShape::new(1, 2, 16, 8).score(twice), &Full).unwrap_err();
    assert_eq!(
        error.to_string(),
        "custom.own_other: need names that no other term declares, got `own_other_score`"
    );
}

#[test]
fn bad_names_are_refused() {
    let text = || format!("{HEAD} return s; }}");
    for (term, name) in [
        (Custom::new("softcap", text(), |s, _| s), "custom.name: need a name of its own in lower case"),
        (Custom::new("Own", text(), |s, _| s), "custom.name"),
        (Custom::new("own_", text(), |s, _| s), "custom.name"),
        (Custom::new("own", text(), |s, _| s).tensor("table", 3), "begins with `own_`, got `table`"),
        (Custom::new("own", text(), |s, _| s).tensor("own_t", 0), "`own_t` once, with at least 1 element"),
        (Custom::new("own", text(), |s, _| s).tensor("own_t", 1).tensor("own_t", 1), "`own_t` once"),
    ] {
        let error = refusal(term);
        assert!(error.contains(name), "{error}");
    }
}
