//! Linear attention and Linformer over the tensors of a file.

use super::{Run, strange_rows, summary};
use crate::devices;
use crate::linear;
use crate::output::say;
use crate::progress::Progress;
use crate::tensors::{Tensors, wrong};
use anyhow::{Result, bail};
use wgpu_attention::reference::{Report, Rows, verify_linear, verify_linformer};
use wgpu_attention::{
    Attention, Element, Gpu, LinearInputs, LinearOptions, LinformerInputs, LinformerOptions,
};
use wgpu_attention_bench::typed;

/// What is computed in place of attention over a pattern.
pub(super) enum Kind {
    Linear(LinearOptions),
    Linformer,
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Linear(_) => "linear attention",
            Self::Linformer => "Linformer",
        }
    }
}

/// The tensors of the projections.
struct Projections {
    options: LinformerOptions,
    e: Vec<f32>,
    f: Option<Vec<f32>>,
}

impl Projections {
    fn of_file(file: &Tensors<'_>, attention: &Attention, values: bool) -> Result<Self> {
        let e = file.need("e")?;
        let f = file.find("f");
        let (rows, projected, per_head) = match e.shape[..] {
            [rows, projected] => (rows, projected, false),
            [heads, rows, projected] if heads == attention.shape.kv_heads => (rows, projected, true),
            _ => return Err(wrong("e", "[n, kk] or [Hkv, n, kk]", format!("{:?}", e.shape))),
        };
        f.as_ref().map(|f| f.expect(&e.shape, "as e")).transpose()?;
        let options = LinformerOptions::new(rows, projected)
            .per_head(per_head)
            .values(values)
            .value_projection(f.is_some());
        Ok(Self { options, e: e.floats()?, f: f.map(|f| f.floats()).transpose()? })
    }
}

impl Run {
    /// What is asked for in place of a pattern.
    pub(super) fn kind(&self) -> Option<Kind> {
        match self.linear.options() {
            Some(options) => Some(Kind::Linear(options)),
            None => self.linformer.then_some(Kind::Linformer),
        }
    }

    /// As [`Run::run`], of linear attention or Linformer.
    pub(super) fn run_linear(&self, bytes: &[u8], kind: &Kind) -> Result<bool> {
        let refused = self.call.not_for_linear();
        let own = [("--lse", self.lse), ("--no-lowering", self.lowering.no_lowering)];
        let own = own.into_iter().find(|(_, given)| *given).map(|(option, _)| option);
        if let Some(option) = refused.or(own) {
            bail!("{option}: need none, as {} has no such thing, got one", kind.name());
        }
        let file = self.call.named(Tensors::parse(bytes))?;
        let values = file.find("v").is_some() || matches!(kind, Kind::Linear(_));
        let read = file
            .need(if values { "v" } else { "k" })
            .and_then(|v| self.call.call_of(&file, &v, self.output_type));
        let (attention, _, axes) = self.call.named(read)?;
        let storage = attention.storage;
        typed!(storage.q, Q => typed!(storage.kv, KV => typed!(storage.out, O => {
            self.run_linear_typed::<Q, KV, O>(&file, (&attention, axes), kind, values)
        })))
    }

    fn run_linear_typed<Q: Element, KV: Element, O: Element>(
        &self,
        file: &Tensors<'_>,
        (attention, axes): (&Attention, usize),
        kind: &Kind,
        values: bool,
    ) -> Result<bool> {
        let mut progress = Progress::new(if self.check { 4 } else { 3 }, self.quiet);
        let (q, k): (Vec<Q>, Vec<KV>) = (file.need("q")?.elements()?, file.need("k")?.elements()?);
        let v: Option<Vec<KV>> = file.find("v").filter(|_| values).map(|v| v.elements()).transpose()?;
        let projections = match kind {
            Kind::Linformer => Some(self.call.named(Projections::of_file(file, attention, values))?),
            Kind::Linear(_) => None,
        };
        let call = Tensor { q: &q, k: &k, v: v.as_deref(), attention, kind, projections };
        let gpu = progress.step("compile", || {
            let gpu = self.adapter.best()?.ok_or_else(devices::none_there)?.open(self.path)?;
            call.plan(&gpu)?;
            Ok(gpu)
        })?;
        let out: Vec<O> = progress.step("compute", || call.run(&gpu))?;
        if self.check {
            let rows = Rows::Sample { count: self.check_rows as usize, seed: 0 };
            let report = progress.step("check", || call.verify(&out, rows))?;
            let strange = strange_rows(attention, &out, rows);
            say!("{}", summary(&report, strange))?;
            if !self.accepts(&report, strange) {
                return Ok(false);
            }
        }
        let what = match kind {
            Kind::Linear(options) => ("linear", linear::text(&options.map)),
            Kind::Linformer => ("op", "linformer".into()),
        };
        let adapter = gpu.info().name.clone();
        progress.step("write", || self.write((attention, axes), (&out[..], None), what, adapter))?;
        Ok(true)
    }
}

/// A call with its tensors.
struct Tensor<'a, Q, KV> {
    q: &'a [Q],
    k: &'a [KV],
    v: Option<&'a [KV]>,
    attention: &'a Attention,
    kind: &'a Kind,
    projections: Option<Projections>,
}

impl<Q: Element, KV: Element> Tensor<'_, Q, KV> {
    /// Of linear attention, whose values were read.
    fn linear(&self) -> LinearInputs<'_, Q, KV> {
        LinearInputs::new(self.q, self.k, self.v.unwrap_or(self.k))
    }

    fn linformer<'s>(&'s self, of: &'s Projections) -> LinformerInputs<'s, Q, KV> {
        LinformerInputs::new(self.q, self.k, &of.e).v(self.v).f(of.f.as_deref())
    }

    fn plan(&self, gpu: &Gpu) -> Result<()> {
        match (self.kind, &self.projections) {
            (Kind::Linear(options), _) => {
                gpu.kernels().linear_attention(self.attention, options.clone()).map(drop)?;
            }
            (Kind::Linformer, Some(of)) => gpu.kernels().linformer(self.attention, of.options).map(drop)?,
            (Kind::Linformer, None) => {}
        }
        Ok(())
    }

    fn run<O: Element>(&self, gpu: &Gpu) -> Result<Vec<O>> {
        Ok(match (self.kind, &self.projections) {
            (Kind::Linear(options), _) => gpu.linear_attention(self.attention, options, &self.linear())?,
            (Kind::Linformer, Some(of)) => gpu.linformer(self.attention, &of.options, &self.linformer(of))?,
            (Kind::Linformer, None) => bail!("e: need one, got none"),
        })
    }

    fn verify<O: Element>(&self, got: &[O], rows: Rows) -> Result<Report> {
        Ok(match (self.kind, &self.projections) {
            (Kind::Linear(options), _) => {
                verify_linear(self.attention, options, &self.linear(), got, rows, None)?
            }
            (Kind::Linformer, Some(of)) => {
                verify_linformer(self.attention, &of.options, &self.linformer(of), got, rows, None)?
            }
            (Kind::Linformer, None) => bail!("e: need one, got none"),
        })
    }
}
