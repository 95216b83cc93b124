//! Fetching published datasets with Burn's downloader.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use burn::data::network::downloader::download_file_as_bytes;
use flate2::read::GzDecoder;

use crate::dataset::sha256;
use crate::error::{Result, VisionError};
use crate::published::PublishedDataset;

const FASHION_MNIST: &str = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/";
const MNIST: &str = "https://storage.googleapis.com/cvdf-datasets/mnist/";
const CIFAR: &str = "https://www.cs.toronto.edu/~kriz/";

impl PublishedDataset {
    /// Downloads what is not yet in `cache` and returns the folder that [`read`](Self::read) takes.
    ///
    /// Fashion-MNIST and MNIST come as four files of 30 and 12 MB together, CIFAR-10 and CIFAR-100 as an archive of
    /// 170 MB each. Every download is compared with its known SHA-256 before anything is kept.
    ///
    /// # Errors
    /// [`VisionError::Download`] if the download fails or is not the known file; [`VisionError::Io`] if `cache` cannot
    /// be written.
    pub fn download(self, cache: impl AsRef<Path>) -> Result<PathBuf> {
        self.download_with(cache.as_ref(), fetch)
    }

    fn download_with(self, cache: &Path, fetch: impl Fn(&str) -> Result<Vec<u8>>) -> Result<PathBuf> {
        let (name, base) = match self {
            Self::FashionMnist => ("fashion-mnist", FASHION_MNIST),
            Self::Mnist => ("mnist", MNIST),
            Self::Cifar10 => ("cifar-10-batches-bin", CIFAR),
            Self::Cifar100 => ("cifar-100-binary", CIFAR),
        };
        let dir = cache.join(name);
        for (file, expected) in self.files() {
            let is_archive = file.ends_with(".tar.gz");
            let target = if is_archive { dir.clone() } else { dir.join(file) };
            if target.exists() {
                continue;
            }
            let url = format!("{base}{file}");
            let bytes = fetch(&url)?;
            let found = sha256(|hash| hash(&bytes));
            if found != *expected {
                return Err(VisionError::Download { url, reason: format!("SHA-256 must be {expected}, got {found}") });
            }
            // Under another name until it is complete, so that an interrupted download is not taken for a whole one.
            let partial = cache.join(format!("{file}.part"));
            fs::create_dir_all(if is_archive { cache } else { &dir }).map_err(VisionError::io(&dir))?;
            if is_archive {
                let mut archive = tar::Archive::new(GzDecoder::new(bytes.as_slice()));
                archive.unpack(&partial).map_err(VisionError::io(&partial))?;
                fs::rename(partial.join(name), &target).map_err(VisionError::io(&target))?;
                fs::remove_dir_all(&partial).map_err(VisionError::io(&partial))?;
            } else {
                fs::write(&partial, bytes).map_err(VisionError::io(&partial))?;
                fs::rename(&partial, &target).map_err(VisionError::io(&target))?;
            }
        }
        Ok(dir)
    }

    /// The files to download and the SHA-256 of each.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::FashionMnist => &[
                ("train-images-idx3-ubyte.gz", "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7"),
                ("train-labels-idx1-ubyte.gz", "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056"),
                ("t10k-images-idx3-ubyte.gz", "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa"),
                ("t10k-labels-idx1-ubyte.gz", "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05"),
            ],
            Self::Mnist => &[
                ("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
                ("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
                ("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
                ("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
            ],
            Self::Cifar10 => {
                &[("cifar-10-binary.tar.gz", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd")]
            }
            Self::Cifar100 => {
                &[("cifar-100-binary.tar.gz", "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec")]
            }
        }
    }
}

/// The bytes at `url`. Burn's downloader panics where it fails; here that is an error.
fn fetch(url: &str) -> Result<Vec<u8>> {
    catch_unwind(AssertUnwindSafe(|| download_file_as_bytes(url, url))).map_err(|panic| {
        let reason = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(reason), _) => reason.clone(),
            (_, Some(reason)) => reason.to_string(),
            _ => "the download failed".to_string(),
        };
        VisionError::Download { url: url.to_string(), reason }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Split;

    #[test]
    fn a_download_that_is_not_the_known_file_is_refused_and_not_kept() {
        let cache = tempfile::tempdir().unwrap();
        for dataset in [PublishedDataset::Mnist, PublishedDataset::Cifar10] {
            let error = dataset.download_with(cache.path(), |_| Ok(b"404".to_vec())).unwrap_err().to_string();
            assert!(error.contains("SHA-256 must be"), "{error}");
        }
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
    }

    /// With the files of Debian's package `dataset-fashion-mnist` in place of a network.
    #[test]
    fn what_is_in_the_cache_is_not_fetched_again() {
        let source = Path::new("/usr/share/datasets/fashion-mnist");
        if !source.exists() {
            println!("skipped: the package dataset-fashion-mnist is not installed");
            return;
        }
        let cache = tempfile::tempdir().unwrap();
        let copy = |url: &str| Ok(fs::read(source.join(url.trim_start_matches(FASHION_MNIST))).unwrap());
        let dir = PublishedDataset::FashionMnist.download_with(cache.path(), copy).unwrap();
        assert_eq!(PublishedDataset::FashionMnist.read(&dir, Split::Test).unwrap().len(), 10_000);
        let again = PublishedDataset::FashionMnist.download_with(cache.path(), |url| panic!("{url}")).unwrap();
        assert_eq!(again, dir);
    }
}
