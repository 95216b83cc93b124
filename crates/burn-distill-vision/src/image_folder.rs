//! Datasets of image files, one folder per class.

use std::fs;
use std::path::{Path, PathBuf};

use burn::config::Config;
use image::imageops::FilterType;
use image::{DynamicImage, ImageReader};

use crate::dataset::ImageDataset;
use crate::error::{Result, VisionError};

/// The longest side images are resized to: 800 MB for one square image in colour.
const MAX_SIDE: usize = 16_384;

/// How an image folder is read.
#[derive(Config, Debug, PartialEq)]
pub struct ImageFolderConfig {
    /// `[height, width]` that every image is resized to (bilinear, the aspect ratio is not kept). Without it all
    /// images must have the same size.
    pub resize: Option<[usize; 2]>,
    /// One channel of luma (ITU-R BT.709) instead of red, green and blue. Transparency is dropped either way.
    #[config(default = false)]
    pub grayscale: bool,
}

impl ImageDataset {
    /// The images in `dir/class/**/*.{png,jpg,jpeg}`, in red, green and blue, all of the same size.
    ///
    /// See [`image_folder_with`](Self::image_folder_with).
    ///
    /// # Errors
    /// As [`image_folder_with`](Self::image_folder_with).
    pub fn image_folder(dir: impl AsRef<Path>) -> Result<Self> {
        Self::image_folder_with(dir, &ImageFolderConfig::new())
    }

    /// The images in `dir/class/**/*.{png,jpg,jpeg}`.
    ///
    /// The classes are the folders in `dir`, sorted by name; within a class the files are sorted by path. Names that
    /// start with a dot and files with other extensions are left out. All images are decoded into memory.
    ///
    /// # Errors
    /// [`VisionError::OutOfRange`] if `resize` is 0 or above 16384 in a dimension; [`VisionError::Io`] if a folder or file is
    /// unreadable; [`VisionError::Image`] if a file is not an image; [`VisionError::NoImages`] if there is no class
    /// or a class has no image; [`VisionError::ImageSize`] if an image has another size than the first.
    pub fn image_folder_with(dir: impl AsRef<Path>, config: &ImageFolderConfig) -> Result<Self> {
        let dir = dir.as_ref();
        if config.resize.is_some_and(|size| size.iter().any(|side| !(1..=MAX_SIDE).contains(side))) {
            return Err(VisionError::out_of_range(
                "resize",
                format!("[1, {MAX_SIDE}]"),
                format!("{:?}", config.resize),
            ));
        }
        let mut class_names = Vec::new();
        let mut labels = Vec::new();
        let mut pixels = Vec::new();
        let mut size = config.resize;
        for (label, class) in (0..).zip(entries(dir)?.into_iter().filter(|path| path.is_dir())) {
            let mut files = Vec::new();
            collect_images(&class, &mut files)?;
            if files.is_empty() {
                return Err(VisionError::NoImages { path: class });
            }
            for file in files {
                let image = decode(&file, config)?;
                let found = [image.height() as usize, image.width() as usize];
                let expected = *size.get_or_insert(found);
                if found != expected {
                    return Err(VisionError::ImageSize { path: file, expected, found });
                }
                append_planes(image, config.grayscale, &mut pixels);
                labels.push(Some(label));
            }
            class_names.push(class.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        let Some([height, width]) = size.filter(|_| !labels.is_empty()) else {
            return Err(VisionError::NoImages { path: dir.to_path_buf() });
        };
        Self::new(pixels, [if config.grayscale { 1 } else { 3 }, height, width], &labels, class_names)
    }
}

/// What is in a folder, sorted, without hidden names.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(VisionError::io(dir))? {
        let entry = entry.map_err(VisionError::io(dir))?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn collect_images(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for path in entries(dir)? {
        if path.is_dir() {
            collect_images(&path, files)?;
        } else if path
            .extension()
            .is_some_and(|extension| ["png", "jpg", "jpeg"].iter().any(|known| extension.eq_ignore_ascii_case(known)))
        {
            files.push(path);
        }
    }
    Ok(())
}

fn decode(path: &Path, config: &ImageFolderConfig) -> Result<DynamicImage> {
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(VisionError::io(path))?;
    let image = reader.decode().map_err(|source| VisionError::Image { path: path.to_path_buf(), source })?;
    Ok(match config.resize {
        Some([height, width]) => image.resize_exact(width as u32, height as u32, FilterType::Triangle),
        None => image,
    })
}

/// Appends `[channels, height, width]`.
fn append_planes(image: DynamicImage, grayscale: bool, pixels: &mut Vec<u8>) {
    if grayscale {
        pixels.extend(image.into_luma8().into_raw());
    } else {
        let interleaved = image.into_rgb8().into_raw();
        for channel in 0..3 {
            pixels.extend(interleaved.iter().skip(channel).step_by(3));
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    fn save(dir: &Path, name: &str, size: [u32; 2], color: impl Fn(u32, u32) -> [u8; 3]) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_fn(size[1], size[0], |x, y| Rgb(color(x, y))).save(path).unwrap();
    }

    #[test]
    fn classes_and_files_are_sorted_and_channels_are_planes() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), "dog/2.png", [2, 3], |x, y| [x as u8, y as u8, 7]);
        save(dir.path(), "dog/1.PNG", [2, 3], |_, _| [1, 2, 3]);
        save(dir.path(), "cat/deeper/9.jpeg", [2, 3], |_, _| [200, 200, 200]);
        fs::write(dir.path().join("cat/notes.txt"), "").unwrap();
        fs::create_dir(dir.path().join(".git")).unwrap();
        fs::write(dir.path().join("README"), "").unwrap();
        let dataset = ImageDataset::image_folder(dir.path()).unwrap();
        assert_eq!(dataset.class_names(), ["cat", "dog"]);
        assert_eq!(dataset.labels().collect::<Vec<_>>(), [Some(0), Some(1), Some(1)]);
        assert_eq!(dataset.shape(), [3, 2, 3]);
        assert!(dataset.item(0).pixels().iter().all(|value| value.abs_diff(200) < 3));
        assert_eq!(dataset.item(1).pixels()[..7], [1, 1, 1, 1, 1, 1, 2]);
        assert_eq!(dataset.item(2).pixels(), [0, 1, 2, 0, 1, 2, 0, 0, 0, 1, 1, 1, 7, 7, 7, 7, 7, 7]);
    }

    #[test]
    fn sizes_agree_or_are_resized() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), "a/1.png", [4, 4], |_, _| [10, 10, 10]);
        save(dir.path(), "a/2.png", [2, 6], |_, _| [90, 90, 90]);
        let error = ImageDataset::image_folder(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("2.png: height x width must be 4 x 4, got 2 x 6"), "{error}");
        let config = ImageFolderConfig::new().with_resize(Some([3, 2])).with_grayscale(true);
        let dataset = ImageDataset::image_folder_with(dir.path(), &config).unwrap();
        assert_eq!(dataset.shape(), [1, 3, 2]);
        assert_eq!((dataset.item(0).pixels(), dataset.item(1).pixels()), (&[10; 6][..], &[90; 6][..]));
        for bad in [[0, 2], [2, 16_385]] {
            let config = ImageFolderConfig::new().with_resize(Some(bad));
            let error = ImageDataset::image_folder_with(dir.path(), &config).unwrap_err().to_string();
            assert!(error.starts_with("`resize` must be in [1, 16384], got Some(["), "{error}");
        }
    }

    #[test]
    fn errors_name_the_file_or_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let error = || ImageDataset::image_folder(dir.path()).unwrap_err().to_string();
        assert!(error().ends_with("no png or jpeg image"), "{}", error());
        fs::create_dir(dir.path().join("empty")).unwrap();
        assert!(error().ends_with("empty: no png or jpeg image"), "{}", error());
        fs::write(dir.path().join("empty/broken.png"), b"\x89PNG\r\n\x1a\n broken").unwrap();
        assert!(error().contains("broken.png: "), "{}", error());
        assert!(ImageDataset::image_folder(dir.path().join("absent")).unwrap_err().to_string().contains("absent: "));
    }

    #[test]
    fn the_config_survives_json() {
        let config = ImageFolderConfig::new().with_resize(Some([32, 48]));
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ImageFolderConfig>(&json).unwrap(), config);
    }
}
