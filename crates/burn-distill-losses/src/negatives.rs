//! Which samples a sample is told apart from.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::{RngExt, seq::index};

use crate::draws::generator;

/// The negatives of [`CrdLoss`](crate::CrdLoss): drawn by the loss, or given.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one for a batch")]
pub enum CrdNegatives {
    /// Drawn by the loss, a pure function of its seed, this step of the run and each sample's index.
    Drawn {
        /// The step.
        step: usize,
    },
    /// Indices of training samples, `[batch, any number]`.
    Given(Tensor<2, Int>),
}

impl CrdNegatives {
    /// Drawn by the loss for this step of the run.
    pub fn at_step(step: usize) -> Self {
        Self::Drawn { step }
    }
}

impl From<Tensor<2, Int>> for CrdNegatives {
    fn from(indices: Tensor<2, Int>) -> Self {
        Self::Given(indices)
    }
}

/// The samples that negatives are drawn from.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    samples: usize,
    classes: Option<Arc<Classes>>,
}

/// Samples in the order of their classes.
#[derive(Debug)]
struct Classes {
    of_sample: Vec<usize>,
    ordered: Vec<usize>,
    /// Where a class begins in `ordered`, and after the last one where it ends.
    starts: Vec<usize>,
}

impl Pool {
    /// All samples, of any class, each as likely whenever one is drawn: a sample may be its own negative.
    pub(crate) fn all(samples: usize) -> Self {
        Self { samples, classes: None }
    }

    /// For each sample those of other classes, none of them twice if they are enough.
    ///
    /// # Panics
    /// If all samples are of one class.
    pub(crate) fn other_classes(of_sample: &[usize]) -> Self {
        let mut ordered: Vec<usize> = (0..of_sample.len()).collect();
        ordered.sort_by_key(|sample| of_sample[*sample]);
        let classes = of_sample.iter().max().map_or(0, |largest| largest + 1);
        let starts: Vec<usize> =
            (0..=classes).map(|class| ordered.partition_point(|sample| of_sample[*sample] < class)).collect();
        let largest = starts.windows(2).map(|bounds| bounds[1] - bounds[0]).max().unwrap_or(0);
        assert!(largest < of_sample.len(), "every sample is of one class: there is none to tell it apart from");
        let classes = Classes { of_sample: of_sample.to_vec(), ordered, starts };
        Self { samples: of_sample.len(), classes: Some(Arc::new(classes)) }
    }

    /// `count` negatives for each of the batch's samples, `[batch, count]`. Those that have no place in the training set
    /// (`of_training` is false) get them from all of it.
    pub(crate) fn draw(
        &self,
        samples: &[usize],
        of_training: bool,
        count: usize,
        (seed, step): (u64, usize),
        device: &Device,
    ) -> Tensor<2, Int> {
        let mut drawn = Vec::with_capacity(samples.len() * count);
        for sample in samples {
            let mut generator = generator(seed, step, [*sample as u64, u64::from(of_training)]);
            match &self.classes {
                Some(classes) if of_training => {
                    let class = classes.of_sample[*sample];
                    let own = classes.starts[class]..classes.starts[class + 1];
                    let others = self.samples - own.len();
                    let other = |place: usize| {
                        classes.ordered[if place < own.start { place } else { place + own.len() }] as i64
                    };
                    if count <= others {
                        drawn.extend(index::sample(&mut generator, others, count).into_iter().map(other));
                    } else {
                        drawn.extend((0..count).map(|_| other(generator.random_range(0..others))));
                    }
                }
                _ => drawn.extend((0..count).map(|_| generator.random_range(0..self.samples) as i64)),
            }
        }
        Tensor::from_data(TensorData::new(drawn, [samples.len(), count]), device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [usize; 10] = [2, 0, 2, 1, 0, 2, 2, 4, 1, 0];

    fn draw(pool: &Pool, samples: &[usize], of_training: bool, count: usize, step: usize) -> Vec<i64> {
        pool.draw(samples, of_training, count, (3, step), &Device::flex()).into_data_as::<i64>().try_to_vec().unwrap()
    }

    #[test]
    fn other_classes_are_drawn_whole_and_once() {
        let pool = Pool::other_classes(&CLASSES);
        for (sample, class) in CLASSES.iter().enumerate() {
            let mut others: Vec<i64> = (0..10).filter(|i| CLASSES[*i] != *class).map(|i| i as i64).collect();
            let mut drawn = draw(&pool, &[sample], true, others.len(), 0);
            drawn.sort_unstable();
            others.sort_unstable();
            assert_eq!(drawn, others, "{sample}");
            // More than there are: with replacement, and of other classes still.
            let many = draw(&pool, &[sample], true, 300, 0);
            assert!(others.iter().all(|other| many.contains(other)), "{sample}");
            assert!(many.iter().all(|drawn| others.contains(drawn)), "{sample}");
        }
    }

    #[test]
    fn all_samples_are_drawn_evenly() {
        let drawn = draw(&Pool::all(10), &[4], true, 20_000, 0);
        for sample in 0..10 {
            let count = drawn.iter().filter(|drawn| **drawn == sample).count() as f64;
            // Five standard deviations of a binomial around 2000.
            assert!((count - 2000.0).abs() < 5.0 * (20_000.0f64 * 0.1 * 0.9).sqrt(), "{sample}: {count}");
        }
    }

    #[test]
    fn a_draw_is_of_its_step_and_sample_alone() {
        let pool = Pool::other_classes(&CLASSES);
        let both = draw(&pool, &[3, 8], true, 6, 1);
        assert_eq!(both, draw(&pool, &[3, 8], true, 6, 1));
        assert_eq!(both[6..], draw(&pool, &[8], true, 6, 1));
        assert_ne!(both[..6], draw(&pool, &[3], true, 6, 2));
        // 3 and 8 are of one class: the same pool, other draws.
        assert_ne!(both[..6], both[6..]);
    }

    #[test]
    fn samples_outside_of_the_training_set_meet_all_of_it() {
        let drawn = draw(&Pool::other_classes(&CLASSES), &[11], false, 500, 0);
        assert!((0..10).all(|sample| drawn.contains(&sample)));
    }

    #[test]
    #[should_panic(expected = "every sample is of one class")]
    fn one_class_is_refused() {
        Pool::other_classes(&[5, 5, 5]);
    }
}
