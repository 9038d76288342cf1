//! Cases of recurrent networks.

use super::{Done, EXPECTED, REFERENCE, narrow};
use crate::case::Recurrent;
use crate::commands::verify::record::Judged;
use anyhow::Result;
use wgpu_attention::reference::{self, RecurrentBounded, layer::Bounded};
use wgpu_attention::{Element, ElementType, Gpu, KernelPath};

/// The reference against the expected values.
pub(super) fn on_cpu(case: &Recurrent) -> Result<Judged> {
    let parts = case.rounded::<f32>().map_err(anyhow::Error::msg)?;
    let exact = case.with(&parts, |inputs| reference::recurrent(&case.shape, inputs))?;
    let got = [&exact.out, &exact.h_n, &exact.c_n].map(|tensor| narrow(&tensor.out));
    Ok(judged(case, exact, got, true))
}

/// The device against the expected values; with weights in 16 bits against the reference on the rounded ones.
pub(super) fn on_gpu<E: Element>(gpu: &Gpu, case: &Recurrent) -> Result<Done> {
    if let Some(path @ KernelPath::Cooperative) = gpu.kernels().options().path {
        return Ok(Done::Unsupported(format!("recurrent networks have no {path} kernel")));
    }
    let parts = match case.rounded::<E>() {
        Ok(parts) => parts,
        Err(reason) => return Ok(Done::Unsupported(reason)),
    };
    let shape = case.shape.weight(E::TYPE);
    let got = case.with(&parts, |inputs| gpu.recurrent(&shape, inputs))?;
    let exact = case.with(&parts, |inputs| reference::recurrent(&shape, inputs))?;
    let expected = E::TYPE == ElementType::F32;
    let judged = judged(case, exact, [got.out, got.h_n, got.c_n.unwrap_or_default()], expected).into();
    let against = if expected { EXPECTED } else { REFERENCE };
    Ok(Done::Compared { path: "scalar".into(), against, judged })
}

/// out, h_n and c_n within their bounds, of the file's values where those are `expected`.
fn judged(case: &Recurrent, exact: RecurrentBounded, got: [Vec<f32>; 3], expected: bool) -> Judged {
    let exact = [exact.out, exact.h_n, exact.c_n];
    let each = case.expected.iter().zip(exact.iter().zip(&got)).map(|(of_file, (exact, got))| {
        let (wanted, allowance) = match expected {
            true => (Bounded::exact(&of_file.values).out, of_file.allowance),
            false => (exact.out.clone(), 0.0),
        };
        let wanted = Bounded { out: wanted, bound: exact.bound.clone() };
        Judged::tensor(of_file.name, &of_file.shape, &wanted.compare(got.iter().copied(), allowance))
    });
    each.reduce(Judged::and).expect("a case has an out")
}
