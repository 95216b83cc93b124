//! Parts of a dataset, and datasets with fewer labels.

use burn_distill_models::rng_from_seed;

use crate::dataset::{ImageDataset, Sample};
use crate::error::{Result, VisionError};
use crate::random::shuffle;

impl ImageDataset {
    /// The first `n` images, or all if there are fewer.
    pub fn take(&self, n: usize) -> Self {
        self.with_samples(self.samples.iter().take(n).copied())
    }

    /// `n / classes` random images of every class, in the order they have here.
    ///
    /// Images without a label are left out.
    ///
    /// # Errors
    /// [`VisionError::OutOfRange`] if `n` is 0, is not a multiple of the number of classes, or a class has too few.
    pub fn balanced_subset(&self, n: usize, seed: u64) -> Result<Self> {
        let classes = self.num_classes();
        if n == 0 || classes == 0 || !n.is_multiple_of(classes) {
            return Err(VisionError::out_of_range("n", format!("the positive multiples of {classes} classes"), n));
        }
        let per_class = n / classes;
        let sizes = self.groups();
        if let Some(smallest) = sizes.iter().skip(1).map(Vec::len).min().filter(|&smallest| smallest < per_class) {
            return Err(VisionError::out_of_range("n", format!("[{classes}, {}]", smallest * classes), n));
        }
        let chosen = self.choose(seed, |label, _| if label.is_some() { per_class } else { 0 });
        Ok(self.with_samples(chosen.iter().zip(self.samples.iter()).filter(|(chosen, _)| **chosen).map(|(_, s)| *s)))
    }

    /// The same images, a random `fraction` of every class without label.
    ///
    /// Of a class with `c` labelled images, `round(fraction * c)` lose their label. A larger fraction with the same
    /// seed removes the same labels and more.
    ///
    /// # Errors
    /// [`VisionError::OutOfRange`] if `fraction` is not in `[0, 1]`.
    pub fn without_labels(&self, fraction: f64, seed: u64) -> Result<Self> {
        check_fraction(fraction)?;
        let chosen = self.choose(seed, |_, size| share(fraction, size));
        Ok(self.with_samples(
            self.samples
                .iter()
                .zip(chosen)
                .map(|(&sample, chosen)| Sample { label: sample.label.filter(|_| !chosen), ..sample }),
        ))
    }

    /// Two parts: a random `fraction` of every class (and of the unlabelled images), and the rest.
    ///
    /// Both keep the order the images have here.
    ///
    /// # Errors
    /// [`VisionError::OutOfRange`] if `fraction` is not in `[0, 1]`.
    pub fn split(&self, fraction: f64, seed: u64) -> Result<(Self, Self)> {
        check_fraction(fraction)?;
        let chosen = self.choose(seed, |_, size| share(fraction, size));
        let part = |first: bool| {
            let wanted = self.samples.iter().zip(&chosen).filter(|(_, chosen)| **chosen == first);
            self.with_samples(wanted.map(|(sample, _)| *sample))
        };
        Ok((part(true), part(false)))
    }

    /// For every image whether it is chosen: `count(label, size)` random ones of every group of `size` images that
    /// have the same label or none.
    fn choose(&self, seed: u64, count: impl Fn(Option<u32>, usize) -> usize) -> Vec<bool> {
        let mut rng = rng_from_seed(seed);
        let mut chosen = vec![false; self.len()];
        for mut group in self.groups() {
            shuffle(&mut group, &mut rng);
            let label = group.first().and_then(|&index| self.samples[index].label);
            for &index in group.iter().take(count(label, group.len())) {
                chosen[index] = true;
            }
        }
        chosen
    }

    /// The indices of the unlabelled images, then those of each class.
    fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups = vec![Vec::new(); self.num_classes() + 1];
        for (index, label) in self.labels().enumerate() {
            groups[label.map_or(0, |label| label as usize + 1)].push(index);
        }
        groups
    }
}

fn check_fraction(fraction: f64) -> Result<()> {
    if (0.0..=1.0).contains(&fraction) {
        Ok(())
    } else {
        Err(VisionError::out_of_range("fraction", "[0, 1]", fraction))
    }
}

fn share(fraction: f64, size: usize) -> usize {
    (fraction * size as f64).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `labels.len()` images of one pixel; the pixel is the position.
    fn numbered(labels: &[Option<u32>], classes: usize) -> ImageDataset {
        let pixels = (0..labels.len() as u8).collect();
        ImageDataset::new(pixels, [1, 1, 1], labels, (0..classes).map(|class| class.to_string()).collect()).unwrap()
    }

    fn pixels(dataset: &ImageDataset) -> Vec<u8> {
        (0..dataset.len()).map(|index| dataset.item(index).pixels()[0]).collect()
    }

    #[test]
    fn a_balanced_subset_takes_the_same_number_of_every_class_in_order() {
        let labels: Vec<_> = (0..60).map(|i| if i < 6 { None } else { Some(i % 3) }).collect();
        let dataset = numbered(&labels, 3);
        let subset = dataset.balanced_subset(12, 5).unwrap();
        for class in 0..3 {
            assert_eq!(subset.labels().filter(|&label| label == Some(class)).count(), 4);
        }
        assert!(pixels(&subset).is_sorted());
        assert_eq!(pixels(&subset), pixels(&dataset.balanced_subset(12, 5).unwrap()));
        assert_ne!(pixels(&subset), pixels(&dataset.balanced_subset(12, 6).unwrap()));
        assert_eq!(dataset.balanced_subset(54, 0).unwrap().len(), 54);
        let message = |n| dataset.balanced_subset(n, 0).unwrap_err().to_string();
        assert_eq!(message(57), "`n` must be in [3, 54], got 57");
        assert_eq!(message(10), "`n` must be in the positive multiples of 3 classes, got 10");
        assert!(message(0).ends_with("got 0"));
    }

    #[test]
    fn labels_are_removed_evenly_and_nested() {
        let labels: Vec<_> = (0..40).map(|i| Some(u32::from(i >= 30))).collect();
        let dataset = numbered(&labels, 2);
        let few = dataset.without_labels(0.5, 1).unwrap();
        let more = dataset.without_labels(0.9, 1).unwrap();
        let count = |dataset: &ImageDataset, class| dataset.labels().filter(|&label| label == Some(class)).count();
        assert_eq!((count(&few, 0), count(&few, 1)), (15, 5));
        assert_eq!((count(&more, 0), count(&more, 1)), (3, 1));
        assert!(few.labels().zip(more.labels()).all(|(few, more)| few.is_some() || more.is_none()));
        assert_eq!(dataset.without_labels(1.0, 1).unwrap().num_labelled(), 0);
        assert_eq!(dataset.without_labels(0.0, 1).unwrap().num_labelled(), 40);
        assert_eq!(few.fingerprint(), dataset.fingerprint());
        for bad in [-0.1, 1.1, f64::NAN] {
            assert!(
                dataset.without_labels(bad, 1).unwrap_err().to_string().starts_with("`fraction` must be in [0, 1]")
            );
        }
    }

    #[test]
    fn a_split_is_a_partition() {
        let labels: Vec<_> = (0..50).map(|i| if i % 5 == 0 { None } else { Some(i % 2) }).collect();
        let dataset = numbered(&labels, 2);
        let (first, second) = dataset.split(0.2, 9).unwrap();
        assert_eq!((first.len(), second.len()), (10, 40));
        let mut all = [pixels(&first), pixels(&second)].concat();
        all.sort_unstable();
        assert_eq!(all, pixels(&dataset));
        assert_eq!(first.labels().filter(Option::is_none).count(), 2);
        assert_ne!(first.fingerprint(), second.fingerprint());
    }
}
