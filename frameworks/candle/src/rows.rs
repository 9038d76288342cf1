//! Where the rows of a tensor lie in candle's storage.

use candle_core::{Error, Layout, Result, Storage, Tensor, WithDType};
use std::ops::Range;
use wgpu_attention::Strides;

/// The tensor, or a contiguous copy of it, so that its elements lie together and its last axis is contiguous: what is uploaded is
/// what is read.
pub(crate) fn together(tensor: &Tensor) -> Result<Tensor> {
    let layout = tensor.layout();
    let contiguous = layout.dims().last() == Some(&1) || layout.stride().last() == Some(&1);
    match contiguous && reach(layout).len() <= tensor.elem_count() {
        true => Ok(tensor.clone()),
        false => tensor.contiguous(),
    }
}

/// The indices from a tensor's first element to its last: fewer than its elements where an axis was broadcast.
pub(crate) fn reach(layout: &Layout) -> Range<usize> {
    let (start, axes) = (layout.start_offset(), layout.dims().iter().zip(layout.stride()));
    if layout.dims().contains(&0) {
        return start..start;
    }
    let last: usize = axes.map(|(size, stride)| (size - 1) * stride).sum();
    start..start + last + 1
}

/// The layout of a tensor with four axes within its [`reach`].
pub(crate) fn layout(layout: &Layout) -> wgpu_attention::Layout {
    match (layout.is_contiguous(), layout.stride()) {
        (false, &[batch, head, row, _]) => {
            let [batch, head, row] = [batch, head, row].map(|stride| stride as isize);
            wgpu_attention::Layout::Strided(Strides::new(batch, head, row))
        }
        _ => wgpu_attention::Layout::Bhld,
    }
}

/// What lies within a tensor's [`reach`].
pub(crate) fn elements<'a, E: WithDType>(storage: &'a Storage, layout: &Layout) -> Result<&'a [E]> {
    match storage {
        Storage::Cpu(storage) => Ok(&E::cpu_storage_as_slice(storage)?[reach(layout)]),
        _ => Err(Error::wrap("elements: need candle's CPU storage, got another device's")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use wgpu_attention::Layout::{Bhld, Strided};

    fn counted(dims: (usize, usize, usize, usize)) -> Tensor {
        let (a, b, c, d) = dims;
        let values: Vec<f32> = (0..a * b * c * d).map(|n| n as f32).collect();
        Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
    }

    /// The storage of both is one.
    fn is_read_where_it_lies(tensor: &Tensor) -> bool {
        let address = |tensor: &Tensor| {
            let (storage, _) = tensor.storage_and_layout();
            let Storage::Cpu(storage) = &*storage else { unreachable!() };
            f32::cpu_storage_as_slice(storage).unwrap().as_ptr()
        };
        address(tensor) == address(&together(tensor).unwrap())
    }

    #[test]
    fn tensors_that_lie_together_are_not_copied() {
        let whole = counted((2, 5, 3, 4));
        let swapped = whole.transpose(1, 2).unwrap();
        let one_item = whole.narrow(0, 1, 1).unwrap();
        let broadcast = counted((2, 1, 3, 4)).broadcast_as((2, 6, 3, 4)).unwrap();
        for (tensor, own_layout, own_reach) in [
            (&whole, Bhld, 0..120),
            (&swapped, Strided(Strides::new(60, 4, 12)), 0..120),
            (&one_item, Bhld, 60..120),
            (&broadcast, Strided(Strides::new(12, 0, 4)), 0..24),
        ] {
            assert!(is_read_where_it_lies(tensor), "{:?}", tensor.layout());
            assert_eq!((layout(tensor.layout()), reach(tensor.layout())), (own_layout, own_reach));
        }
    }

    #[test]
    fn others_are_copied() {
        let whole = counted((2, 5, 9, 4));
        // A part of packed heads; the last axis is not contiguous.
        for tensor in [whole.narrow(2, 3, 3).unwrap(), whole.transpose(2, 3).unwrap()] {
            assert!(!is_read_where_it_lies(&tensor), "{:?}", tensor.layout());
            let copy = together(&tensor).unwrap();
            assert_eq!((layout(copy.layout()), reach(copy.layout())), (Bhld, 0..tensor.elem_count()));
        }
    }

    #[test]
    fn elements_are_those_of_the_reach() {
        let item = counted((2, 1, 2, 3)).narrow(0, 1, 1).unwrap();
        let (storage, layout) = item.storage_and_layout();
        assert_eq!(elements::<f32>(&storage, layout).unwrap(), [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        assert!(elements::<f64>(&storage, layout).is_err());
    }

    #[test]
    fn an_empty_tensor_reaches_nothing() {
        assert_eq!(reach(counted((2, 0, 3, 4)).layout()), 0..0);
    }
}
