use burn::tensor::{Bool, Device, Int, Tensor};

use crate::EnsembleOutput;

/// A batch, or a teacher's output, that can be copied to another device: what a teacher on a device of its own takes
/// and gives.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_distill_models::OnDevice;
///
/// struct Output { logits: Tensor<2>, hidden: Vec<Tensor<3>> }
///
/// impl OnDevice for Output {
///     fn on_device(&self, device: &Device) -> Self {
///         Self { logits: self.logits.on_device(device), hidden: self.hidden.on_device(device) }
///     }
/// }
/// ```
pub trait OnDevice {
    /// The same values on `device`; where they are there already, no copy is made.
    fn on_device(&self, device: &Device) -> Self;
}

macro_rules! tensors {
    ($($kind:ty),*) => {
        $(
            impl<const D: usize> OnDevice for $kind {
                fn on_device(&self, device: &Device) -> Self {
                    self.clone().to_device(device)
                }
            }
        )*
    };
}

tensors!(Tensor<D>, Tensor<D, Int>, Tensor<D, Bool>);

macro_rules! tuples {
    ($(($($member:ident $index:tt),*)),*) => {
        $(
            impl<$($member: OnDevice),*> OnDevice for ($($member,)*) {
                #[allow(unused_variables, clippy::unused_unit, reason = "the empty tuple has nothing to move")]
                fn on_device(&self, device: &Device) -> Self {
                    ($(self.$index.on_device(device),)*)
                }
            }
        )*
    };
}

tuples!((), (A 0, B 1), (A 0, B 1, C 2), (A 0, B 1, C 2, D 3));

impl<T: OnDevice> OnDevice for Vec<T> {
    fn on_device(&self, device: &Device) -> Self {
        self.iter().map(|member| member.on_device(device)).collect()
    }
}

impl<T: OnDevice, const N: usize> OnDevice for [T; N] {
    fn on_device(&self, device: &Device) -> Self {
        self.each_ref().map(|member| member.on_device(device))
    }
}

impl<T: OnDevice> OnDevice for Option<T> {
    fn on_device(&self, device: &Device) -> Self {
        self.as_ref().map(|value| value.on_device(device))
    }
}

impl OnDevice for EnsembleOutput {
    fn on_device(&self, device: &Device) -> Self {
        Self { logits: self.logits.on_device(device) }
    }
}
