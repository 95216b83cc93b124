//! The device that the suites run on.

use burn::tensor::{DType, Device};

const VARIABLE: &str = "BURN_DISTILL_DEVICE";

/// The backends that are compiled in, by the names of their Cargo features.
const COMPILED: &[&str] = &[
    "flex",
    #[cfg(feature = "libtorch")]
    "libtorch",
    #[cfg(feature = "wgpu")]
    "wgpu",
    #[cfg(feature = "vulkan")]
    "vulkan",
    #[cfg(feature = "cuda")]
    "cuda",
];

/// The name of the backend that `BURN_DISTILL_DEVICE` asks for: `flex` where it is not set.
pub fn name() -> String {
    std::env::var(VARIABLE).unwrap_or_else(|_| "flex".into())
}

/// The device that `BURN_DISTILL_DEVICE` asks for, without gradients: `flex` (also where it is not set), `libtorch`,
/// `wgpu`, `vulkan` or `cuda`.
///
/// # Panics
///
/// When the name is none of these, or its Cargo feature is off.
pub fn device() -> Device {
    named(&name())
}

fn named(name: &str) -> Device {
    match name {
        "flex" => Device::flex(),
        #[cfg(feature = "libtorch")]
        #[allow(deprecated, reason = "Burn 0.22 deprecates burn-tch, and there is no other way to libtorch")]
        "libtorch" => Device::libtorch(),
        #[cfg(feature = "wgpu")]
        "wgpu" => Device::wgpu(Default::default()),
        #[cfg(feature = "vulkan")]
        "vulkan" => Device::vulkan(Default::default()),
        #[cfg(feature = "cuda")]
        "cuda" => Device::cuda(0),
        _ => panic!("`{VARIABLE}` must be a backend that is compiled in ({}), got `{name}`", COMPILED.join(", ")),
    }
}

/// Those of `dtypes` that the device computes in. A test that is left without any returns, and a line that begins with
/// `skipped: ` has said why; `in part: ` begins the line where some are left.
pub fn supported(device: &Device, dtypes: &[DType]) -> Vec<DType> {
    let (left, missing): (Vec<_>, Vec<_>) = dtypes.iter().copied().partition(|dtype| device.supports_dtype(*dtype));
    if !missing.is_empty() {
        let what = if left.is_empty() { "skipped" } else { "in part" };
        println!("{what}: {} does not compute in {missing:?}", name());
    }
    left
}

/// How far numbers of f32 on the device may be from those of another backend or of PyTorch, relative to the largest of
/// them.
pub fn tolerance() -> f64 {
    if name() == "flex" { TOLERANCE } else { OTHER_TOLERANCE }
}

const TOLERANCE: f64 = 1e-5;
/// Other backends take sums in another order, which shows where their terms nearly cancel: in the values of PKT (1.9e-5)
/// and in the slope of a learned temperature (1.5e-5).
const OTHER_TOLERANCE: f64 = 4e-5;

/// Whether the same program gives the same bits each time. GPU backends choose among kernels by the time that each
/// takes, and kernels add in different orders.
pub fn bits_repeat() -> bool {
    ["flex", "libtorch"].contains(&name().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_give_devices() {
        for name in COMPILED.iter().filter(|name| ["flex", "libtorch"].contains(name)) {
            let device = format!("{:?}", named(name)).to_lowercase();
            assert!(device.contains(name), "{name}: {device}");
        }
    }

    #[test]
    #[should_panic(expected = "`BURN_DISTILL_DEVICE` must be a backend that is compiled in (flex")]
    fn other_names_are_refused() {
        named("tpu");
    }
}
