//! LSH attention over the tensors of a case.

use super::{Run, strange_rows, summary};
use crate::case::{LSH, LshCall};
use crate::devices;
use crate::output::say;
use crate::progress::Progress;
use crate::tensors::rounded;
use anyhow::{Result, ensure};
use wgpu_attention::reference::{LshGot, LshReport, Rows, verify_lsh};
use wgpu_attention::{Attention, Element, ElementType, LshInputs, LshOutput, Storage};
use wgpu_attention_bench::typed;

impl Run {
    /// As [`Run::run`], of a case of LSH attention.
    pub(super) fn run_lsh(&self, case: &LshCall) -> Result<bool> {
        let refused = self.call.not_for_lsh().or(self.lowering.no_lowering.then_some("--no-lowering"));
        if let Some(option) = refused {
            let file = self.call.input.display();
            anyhow::bail!("{option}: need none, as {file} is a case of LSH attention, got one");
        }
        let element = self.call.named(case.element())?;
        let out = self.output_type.map_or(element, ElementType::from);
        typed!(element, I => typed!(out, O => self.run_lsh_typed::<I, O>(case)))
    }

    fn run_lsh_typed<I: Element, O: Element>(&self, case: &LshCall) -> Result<bool> {
        let mut progress = Progress::new(if self.check { 4 } else { 3 }, self.quiet);
        let round = |name: &str, values: &[f32]| rounded::<I>(name, values).map_err(anyhow::Error::msg);
        let (qk, v) = (round("qk", &case.qk)?, round("v", &case.v)?);
        let inputs = case.inputs(&qk, &v);
        let call = case.attention.clone().storage(Storage::all(I::TYPE).out(O::TYPE));
        let gpu = progress.step("compile", || {
            let gpu = self.adapter.best()?.ok_or_else(devices::none_there)?.open(self.path)?;
            gpu.kernels().lsh(&call, case.options.clone())?;
            Ok(gpu)
        })?;
        let output: LshOutput<O> =
            progress.step("compute", || Ok(gpu.lsh(&call, &case.options, &inputs)?))?;
        if self.check && !progress.step("check", || self.check_lsh(case, &call, &inputs, &output))? {
            return Ok(false);
        }
        let (what, adapter) = (("op", LSH.to_owned()), gpu.info().name.clone());
        let results = (&output.out[..], Some(&output.lse[..]));
        progress.step("write", || self.write((&call, 4), results, what, adapter))?;
        Ok(true)
    }

    /// Buckets and order in all places, out and lse in some rows: whether all is well.
    fn check_lsh<I: Element, O: Element>(
        &self,
        case: &LshCall,
        call: &Attention,
        inputs: &LshInputs<'_, I>,
        output: &LshOutput<O>,
    ) -> Result<bool> {
        let rows = Rows::Sample { count: self.check_rows as usize, seed: 0 };
        let got = LshGot::new(&output.out, &output.buckets).lse(output.lse.as_slice());
        let got = got.order(output.order.as_slice());
        let report = verify_lsh(call, &case.options, inputs, got, rows, None)?;
        let strange = strange_rows(call, &output.out, rows);
        say!("{}; {}", summary(&report.attention, strange), of_buckets(&report))?;
        ensure!(
            report.wrong_buckets.is_empty() && report.wrong_order.is_none(),
            "the hash or the sort is wrong; {} was not written",
            self.output.display()
        );
        Ok(self.accepts(&report.attention, strange))
    }
}

/// `128 of 130 buckets certain, 0 wrong, the order right`.
fn of_buckets(report: &LshReport) -> String {
    let order =
        report.wrong_order.map_or("the order right".into(), |place| format!("the order WRONG from {place}"));
    let LshReport { certain, buckets, wrong_buckets, .. } = report;
    format!("{certain} of {buckets} buckets certain, {} wrong, {order}", wrong_buckets.len())
}
