//! The numbers of tensors as slices, for loops that libtorch has no operation for. Knows no network.

use tch::{Device, Kind, Tensor};

/// The numbers of a contiguous f32 tensor on the CPU.
///
/// # Panics
/// If it is another one.
pub(crate) fn numbers(tensor: &Tensor) -> &[f32] {
    assert!(tensor.is_contiguous() && tensor.kind() == Kind::Float && tensor.device() == Device::Cpu);
    // SAFETY: just that many f32 lie there, and they live as long as the tensor.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

/// The same to be changed: of a storage of its own, which nobody else looks at meanwhile.
pub(crate) fn numbers_mut(tensor: &mut Tensor) -> &mut [f32] {
    assert!(tensor.is_contiguous() && tensor.kind() == Kind::Float && tensor.device() == Device::Cpu);
    // SAFETY: as above, and nothing else looks at them, as it says.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}
