//! Weights in and out under the names of PyTorch's reference implementations.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::Path;

use burn::config::{Config, config_to_json};
use burn::module::Module;
use burn::nn::Initializer;
use burn::store::burn_pack::{AtomicFile, Error as PackError, Tensor as PackTensor};
use burn::store::{
    BurnToPyTorchAdapter, ModuleSnapshot, ModuleStore, PyTorchToBurnAdapter, PytorchStore, SafetensorsStore, bridge,
};
use burn::tensor::{DType, Device};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{ResNet, ResNetBlock, ResNetConfig};
use crate::error::{Result, VisionError};

/// The metadata key under which a safetensors file keeps the architecture, a [`ResNetConfig`] as JSON.
const ARCHITECTURE: &str = "burn-distill.resnet";

/// The keys under which training scripts keep the model's state dict beside an optimiser, an epoch and so on.
const WRAPPERS: [&str; 4] = ["state_dict.", "model_state_dict.", "model.", "net."];

/// What `torch.nn.DataParallel` puts ahead of every name.
const DATA_PARALLEL: &str = "module.";

/// Batch norm's step counter, which PyTorch keeps and neither it (at a fixed momentum) nor Burn reads.
const COUNTER: &str = "num_batches_tracked";

type Tensors = BTreeMap<String, PackTensor>;

impl ResNetConfig {
    /// Creates the model with the weights of a file: `.safetensors`, or else a PyTorch checkpoint (`.pth`, `.pt`).
    ///
    /// Names are torchvision's (RepDistiller's for the CIFAR families). A checkpoint may keep them under a key
    /// (`state_dict`, `model_state_dict`, `model`, `net`) and behind `DataParallel`'s prefix `module.`. Numbers
    /// of any float type become the device's float type. `num_batches_tracked` is not read.
    ///
    /// # Errors
    /// - [`VisionError::OutOfRange`] if a field of the configuration is out of range;
    /// - [`VisionError::Io`] and [`VisionError::UnreadableWeights`] if the file cannot be read as what it is;
    /// - [`VisionError::TensorShape`], [`VisionError::TensorType`], [`VisionError::MissingTensor`] and
    ///   [`VisionError::UnexpectedTensor`] if it belongs to another model, such as one with other classes.
    pub fn load(&self, path: impl AsRef<Path>, device: &Device) -> Result<ResNet, VisionError> {
        self.validate()?;
        let path = path.as_ref();
        let is_safetensors =
            path.extension().and_then(OsStr::to_str).is_some_and(|ext| ext.eq_ignore_ascii_case("safetensors"));
        let tensors = if is_safetensors {
            read_safetensors(path, fs::read(path).map_err(VisionError::io(path))?)?
        } else {
            fs::File::open(path).map_err(VisionError::io(path))?;
            let store = PytorchStore::from_file(path).map_indices_contiguous(false);
            unwrap(read(path, store)?)
        };
        ResNet::with_tensors(self, tensors, path, device)
    }
}

impl ResNet {
    /// Creates the model from a file that [`save_safetensors`](Self::save_safetensors) wrote, which says the
    /// architecture.
    ///
    /// # Errors
    /// [`VisionError::MissingArchitecture`] if the file does not say it, and those of [`ResNetConfig::load`].
    pub fn from_safetensors(path: impl AsRef<Path>, device: &Device) -> Result<Self, VisionError> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(VisionError::io(path))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(unreadable(path))?;
        let json = header.metadata().as_ref().and_then(|metadata| metadata.get(ARCHITECTURE));
        let json = json.ok_or_else(|| VisionError::MissingArchitecture { path: path.to_path_buf() })?;
        let config = ResNetConfig::load_binary(json.as_bytes()).map_err(unreadable(path))?;
        config.validate()?;
        Self::with_tensors(&config, read_safetensors(path, bytes)?, path, device)
    }

    /// Writes the weights as 32-bit safetensors under torchvision's names (RepDistiller's for the CIFAR families),
    /// with the architecture in the file's metadata.
    ///
    /// `load_state_dict(safetensors.torch.load_file(path))` accepts the file, strictly: it also holds
    /// `num_batches_tracked`, as 0, because Burn does not count batches. The same weights give the same bytes. The
    /// file appears whole or not at all: it is written beside `path` and then renamed, replacing what was there.
    ///
    /// # Errors
    /// [`VisionError::Io`] if the file cannot be written.
    pub fn save_safetensors(&self, path: impl AsRef<Path>) -> Result<(), VisionError> {
        let path = path.as_ref();
        // A module in training holds back its last update of the running statistics; `valid` applies it.
        let model = self.valid();
        let failed = |error: PackError| VisionError::io(path)(std::io::Error::other(error.to_string()));
        let mut tensors = Vec::new();
        for tensor in model.torch_tensors() {
            let name = torch_name(&tensor.name, self.config.block);
            if let Some(norm) = name.strip_suffix("running_var") {
                tensors.push((format!("{norm}{COUNTER}"), Dtype::I64, Vec::new(), 0i64.to_le_bytes().to_vec()));
            }
            let data = bridge::into_data(tensor).map_err(failed)?.convert_dtype(DType::F32);
            tensors.push((name, Dtype::F32, data.shape().to_vec(), data.as_bytes().to_vec()));
        }
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name.as_str(), view))
        });
        let metadata = HashMap::from([(ARCHITECTURE.to_string(), config_to_json(&self.config))]);
        let bytes = views.collect::<std::result::Result<Vec<_>, _>>();
        let bytes = bytes.and_then(|views| safetensors::serialize(views, Some(metadata)));
        let bytes = bytes.map_err(|error| VisionError::io(path)(std::io::Error::other(error)))?;

        let (scratch, mut file) = AtomicFile::create(path).map_err(failed)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(VisionError::io(path))?;
        drop(file);
        scratch.commit().map_err(failed)
    }

    /// The model with exactly these tensors; `config` is valid.
    fn with_tensors(
        config: &ResNetConfig,
        mut tensors: Tensors,
        path: &Path,
        device: &Device,
    ) -> Result<Self, VisionError> {
        let mut model = Self::build(config, &Initializer::Zeros, device);
        let float: DType = device.settings().float_dtype.into();
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for expected in model.torch_tensors() {
            let name = torch_name(&expected.name, config.block);
            let Some(tensor) = tensors.remove(&name) else {
                missing.push((name, expected.shape.to_vec()));
                continue;
            };
            let (path, tensor_name) = (path.to_path_buf(), name);
            if tensor.shape != expected.shape {
                let (expected, found) = (expected.shape.to_vec(), tensor.shape.to_vec());
                return Err(VisionError::TensorShape { path, tensor: tensor_name, expected, found });
            }
            if !tensor.dtype.is_float() {
                let found = tensor.dtype.name().to_string();
                return Err(VisionError::TensorType { path, tensor: tensor_name, found });
            }
            let data = bridge::into_data(tensor).map_err(unreadable(&path))?.convert_dtype(float);
            found.push(bridge::from_data(data, expected.name, None));
        }
        let (path, count) = (path.to_path_buf(), missing.len());
        if let Some((tensor, expected)) = missing.into_iter().next() {
            return Err(VisionError::MissingTensor { path, tensor, expected, count });
        }
        tensors.retain(|name, _| !name.ends_with(COUNTER));
        let count = tensors.len();
        if let Some((tensor, found)) = tensors.pop_first() {
            return Err(VisionError::UnexpectedTensor { path, tensor, found: found.shape.to_vec(), count });
        }
        let result = model.apply(found, None, Some(Box::new(PyTorchToBurnAdapter)), true);
        match result.is_success() && result.missing.is_empty() {
            true => Ok(model),
            false => Err(unreadable(&path)(result.to_string())),
        }
    }

    /// All weights and running statistics in PyTorch's layout, under Burn's module paths but PyTorch's parameter names.
    fn torch_tensors(&self) -> Vec<PackTensor> {
        self.collect(None, Some(Box::new(BurnToPyTorchAdapter)), true)
    }
}

/// The reference implementation's name of the tensor at a module path such as `layer1.0.downsample.conv.weight`.
fn torch_name(path: &str, block: ResNetBlock) -> String {
    match (block, path.strip_prefix("layer")) {
        (ResNetBlock::PreActivation, Some(in_layer)) => {
            format!("block{}", in_layer.replacen('.', ".layer.", 1)).replace(".downsample.conv.", ".convShortcut.")
        }
        _ => path.replace(".downsample.conv.", ".downsample.0.").replace(".downsample.bn.", ".downsample.1."),
    }
}

fn read_safetensors(path: &Path, bytes: Vec<u8>) -> Result<Tensors> {
    read(path, SafetensorsStore::from_bytes(Some(bytes)).map_indices_contiguous(false))
}

fn read<S>(path: &Path, mut store: S) -> Result<Tensors>
where
    S: ModuleStore<Error: std::error::Error + Send + Sync + 'static>,
{
    Ok(store.get_all_tensors().map_err(unreadable(path))?.clone())
}

/// Takes the state dict out of what a training script saved around it.
fn unwrap(mut tensors: Tensors) -> Tensors {
    let under = |tensors: Tensors, prefix: &str| -> Tensors {
        let strip = |(name, tensor): (String, PackTensor)| Some((name.strip_prefix(prefix)?.to_string(), tensor));
        tensors.into_iter().filter_map(strip).collect()
    };
    if let Some(wrapper) = WRAPPERS.iter().find(|wrapper| tensors.keys().any(|name| name.starts_with(**wrapper))) {
        tensors = under(tensors, wrapper);
    }
    match !tensors.is_empty() && tensors.keys().all(|name| name.starts_with(DATA_PARALLEL)) {
        true => under(tensors, DATA_PARALLEL),
        false => tensors,
    }
}

fn unreadable<E>(path: &Path) -> impl FnOnce(E) -> VisionError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let path = path.to_path_buf();
    move |error| VisionError::UnreadableWeights { path, source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    #[test]
    fn names_are_the_reference_implementations() {
        let cases = [
            (ResNetBlock::Basic, "conv1.weight", "conv1.weight"),
            (ResNetBlock::Basic, "layer1.0.bn1.running_mean", "layer1.0.bn1.running_mean"),
            (ResNetBlock::Bottleneck, "layer3.10.downsample.conv.weight", "layer3.10.downsample.0.weight"),
            (ResNetBlock::Bottleneck, "layer3.10.downsample.bn.bias", "layer3.10.downsample.1.bias"),
            (ResNetBlock::PreActivation, "layer2.0.downsample.conv.weight", "block2.layer.0.convShortcut.weight"),
            (ResNetBlock::PreActivation, "layer2.11.bn1.weight", "block2.layer.11.bn1.weight"),
            (ResNetBlock::PreActivation, "bn1.weight", "bn1.weight"),
        ];
        for (block, path, name) in cases {
            assert_eq!(torch_name(path, block), name);
        }
    }

    #[test]
    fn a_state_dict_is_taken_out_of_its_checkpoint() {
        let names = |names: &[&str]| -> Vec<String> {
            let tensor = |name: &str| bridge::from_data(TensorData::from([1.0f32]), name.to_string(), None);
            let tensors = names.iter().map(|name| (name.to_string(), tensor(name))).collect();
            unwrap(tensors).into_keys().collect()
        };
        let plain = ["bn1.weight", "fc.weight"];
        assert_eq!(names(&plain), plain);
        assert_eq!(names(&["module.bn1.weight", "module.fc.weight"]), plain);
        assert_eq!(names(&["model.bn1.weight", "model.fc.weight", "optimizer.state.0.momentum_buffer"]), plain);
        assert_eq!(names(&["state_dict.module.bn1.weight", "state_dict.module.fc.weight", "best"]), plain);
        // A prefix on some names only is not `DataParallel`'s.
        assert_eq!(names(&["fc.weight", "module.fc.weight"]), ["fc.weight", "module.fc.weight"]);
        assert!(names(&[]).is_empty());
    }
}
