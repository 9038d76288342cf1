//! Which heads of a model matter.

use super::{Error, File, Machine, Training, run};
use wgpu_attention::Gpu;

/// The importance of every head, layer by layer: what the loss would change by, to first order, if the head's output were scaled
/// (Michel, Levy and Neubig 2019, equation 2):
///
/// ```text
/// I_h = E_x | d L(x) / d xi_h | = E_x | sum over i of context_h(i) . d L(x) / d context_h(i) |
/// ```
///
/// xi_h is a factor of the head's output before the output projection, 1 in the model as it is; the mean is over the batch items, which are the
/// examples x. L is sum(last dout), `dout` `[batch, length, width]` as the loss behind the model gives it. A pruned head has an importance
/// of 0. Of the families whose gradients there are, BERT and ALBERT tell what their attention gives.
///
/// # Errors
/// For a family without gradients or contexts, and a `dout` of another size than the last state.
pub fn head_importance(gpu: &Gpu, file: &File<'_>, dout: &[f32]) -> Result<Vec<Vec<f64>>, Error> {
    let mut model = Training::new(gpu);
    run(&mut model, file)?;
    let last = model.state("last").ok_or("importance: need a state `last`, found none")?;
    if 4 * dout.len() as u64 != last.size() {
        return Err(format!("dout: need {} elements, found {}", last.size() / 4, dout.len()).into());
    }
    let contexts = model.contexts().to_vec();
    if contexts.is_empty() {
        return Err(format!("importance: need bert or albert, found `{}`", file.family()?).into());
    }
    let dout = model.upload(dout);
    let (_, gradients) = model.differentiate_by(&last, &dout, &contexts)?;
    model.run()?;
    let (_, [batch, _]) = file.indices("input_ids")?;
    let heads = file.size("num_attention_heads")?;
    let mut importance = vec![];
    for (context, gradient) in contexts.iter().zip(&gradients) {
        let gradient = gradient.as_ref().ok_or("importance: need a loss that depends on every layer")?;
        let [context, gradient] = <[Vec<f32>; 2]>::try_from(model.read(&[context, gradient])?)
            .map_err(|_| "two tensors were read")?;
        importance.push(of_layer(&context, &gradient, [batch, heads], file.size("hidden_size")? / heads));
    }
    Ok(importance)
}

/// Of rows `[B, L, H, d]`.
fn of_layer(context: &[f32], gradient: &[f32], [batch, heads]: [usize; 2], dim: usize) -> Vec<f64> {
    let mut importance = vec![0.0; heads];
    let item = context.len() / batch.max(1);
    for (context, gradient) in context.chunks(item.max(1)).zip(gradient.chunks(item.max(1))) {
        let mut slopes = vec![0.0; heads];
        for (n, (x, dx)) in context.iter().zip(gradient).enumerate() {
            slopes[n / dim % heads] += f64::from(*x) * f64::from(*dx);
        }
        importance
            .iter_mut()
            .zip(slopes)
            .for_each(|(all, slope): (&mut f64, f64)| *all += slope.abs() / batch as f64);
    }
    importance
}
