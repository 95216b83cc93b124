//! Golden files of `golden/vision.py`, and the weights and images they were made with.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use burn_distill_vision::{ResNet, ResNetConfig};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A tensor that is in a golden file as a whole.
#[derive(Deserialize)]
pub(crate) struct Whole {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<f64>,
}

/// A tensor of which a golden file has sums and some elements.
#[derive(Deserialize)]
pub(crate) struct Sampled {
    pub(crate) shape: Vec<usize>,
    pub(crate) sum: f64,
    pub(crate) mean_abs: f64,
    pub(crate) positions: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

/// An entry of PyTorch's state dict.
#[derive(Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
}

pub(crate) fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/vision")
}

pub(crate) fn golden<T: DeserializeOwned>(name: &str) -> T {
    let path = golden_dir().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Element i is the upper 24 bits of splitmix64(fnv1a(name) + i), times 2^-24.
fn uniform(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let hash = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
    (0..count as u64).map(move |index| {
        let mut z = hash.wrapping_add(index).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 24)
    })
}

/// The value that `golden/weights.py` gives the entry of a state dict.
pub(crate) fn parameter(entry: &Entry) -> Vec<f32> {
    let Entry { name, shape } = entry;
    let signed = |scale: f64| move |u: f64| (2.0 * u - 1.0) * scale;
    let last_in_block = name.starts_with("layer") && (name.ends_with("bn2.weight") || name.ends_with("bn3.weight"));
    let value: Box<dyn Fn(f64) -> f64> = match shape.len() {
        4 => Box::new(signed((6.0 / shape[1..].iter().product::<usize>() as f64).sqrt())),
        2 => Box::new(signed((3.0 / shape[1] as f64).sqrt())),
        _ if name == "fc.bias" => Box::new(signed(0.1)),
        _ if name.ends_with("running_var") => Box::new(|u| 0.5 + u),
        _ if name.ends_with("running_mean") || name.ends_with("bias") => Box::new(signed(0.2)),
        _ if last_in_block => Box::new(|u| 0.25 * (0.5 + u)),
        _ => Box::new(|u| 0.5 + u),
    };
    uniform(name, shape.iter().product()).map(|u| value(u) as f32).collect()
}

/// The images of every golden file.
pub(crate) fn images(shape: &[usize], device: &Device) -> Tensor<4> {
    let values: Vec<f32> = uniform("input", shape.iter().product()).map(|u| ((2.0 * u - 1.0) * 2.0) as f32).collect();
    Tensor::from_data(TensorData::new(values, shape.to_vec()), device)
}

/// Writes tensors as safetensors, as `safetensors.torch.save_file` would.
pub(crate) fn write_safetensors(path: &Path, tensors: &[(String, Dtype, Vec<usize>, Vec<u8>)]) {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).expect("bytes fit the shape"))
    });
    std::fs::write(path, safetensors::serialize(views, None).expect("serialisable")).expect("writable");
}

/// The golden weights under PyTorch's names.
pub(crate) fn weights(state_dict: &[Entry]) -> Vec<(String, Dtype, Vec<usize>, Vec<u8>)> {
    let tensor = |entry: &Entry| {
        let counter = entry.name.ends_with("num_batches_tracked");
        let bytes = match counter {
            true => 0i64.to_le_bytes().to_vec(),
            false => parameter(entry).into_iter().flat_map(f32::to_le_bytes).collect(),
        };
        let dtype = if counter { Dtype::I64 } else { Dtype::F32 };
        (entry.name.clone(), dtype, entry.shape.clone(), bytes)
    };
    state_dict.iter().map(tensor).collect()
}

/// A network with the golden weights, read through the loader.
pub(crate) fn load(config: &ResNetConfig, state_dict: &[Entry], device: &Device) -> ResNet {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("golden.safetensors");
    write_safetensors(&path, &weights(state_dict));
    config.load(&path, device).expect("the golden weights load")
}

/// The tensors of a safetensors file as 32-bit floats; counters are left out.
pub(crate) fn read_floats(path: &Path) -> Vec<(String, Vec<f32>)> {
    let bytes = std::fs::read(path).expect("readable");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let floats =
        |view: TensorView| view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let tensors = file.tensors().into_iter().filter(|(_, view)| view.dtype() == Dtype::F32);
    tensors.map(|(name, view)| (name, floats(view))).collect()
}

pub(crate) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_to_vec().expect("32-bit floats")
}

/// The largest magnitude.
pub(crate) fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

/// The largest difference, relative to the largest magnitude of `expected`.
pub(crate) fn apart(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    let difference = pairs.fold(0.0, |worst: f64, (&found, &expected)| {
        let difference = (f64::from(found) - expected).abs();
        if difference.is_nan() { f64::INFINITY } else { worst.max(difference) }
    });
    difference / largest(expected)
}

impl Sampled {
    /// How far `found` is apart from this in its elements, its sum and its mean magnitude, relative to the largest
    /// sampled magnitude and, for the sum, to the sum of magnitudes.
    pub(crate) fn apart(&self, found: &[f32]) -> f64 {
        assert_eq!(found.len(), self.shape.iter().product::<usize>());
        let samples: Vec<f32> = self.positions.iter().map(|&position| found[position]).collect();
        let sum: f64 = found.iter().map(|&value| f64::from(value)).sum();
        let magnitude = found.iter().map(|&value| f64::from(value).abs()).sum::<f64>();
        let mean_abs = magnitude / found.len() as f64;
        let sum_apart = (sum - self.sum).abs() / magnitude.max(f64::MIN_POSITIVE);
        let mean_apart = (mean_abs - self.mean_abs).abs() / self.mean_abs;
        apart(&samples, &self.values).max(sum_apart).max(mean_apart)
    }
}
