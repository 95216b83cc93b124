use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use burn::config::Config;
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::Device;
use rand::seq::SliceRandom;

use crate::{ModelError, mix_seed, rng_from_seed};

/// A dataset item on its way into a batch, with the seed of its augmentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeded<I> {
    /// The item.
    pub item: I,
    /// Its index in the dataset.
    pub index: usize,
    /// The seed of its view: a pure function of the loader's seed, the epoch (modulo
    /// [`views`](SeededLoaderConfig::views)) and the index. Whatever is random about
    /// the item (crop, flip, ...) is drawn from it and from nothing else.
    pub seed: u64,
}

/// Configuration of a [`SeededLoader`].
#[derive(Config, Debug)]
pub struct SeededLoaderConfig {
    /// Items per batch; at least 1.
    pub batch_size: usize,
    /// Seed of the order and of every view.
    #[config(default = 0)]
    pub seed: u64,
    /// Whether each epoch has an order of its own.
    #[config(default = false)]
    pub shuffle: bool,
    /// Whether a last batch that is not full is left out.
    #[config(default = false)]
    pub drop_last: bool,
    /// After how many epochs the views repeat; at least 1. `None`: every epoch has views of its own. With `Some(n)`,
    /// epoch `e` shows each sample as epoch `e % n` did, so that a cache of the teacher's answers is complete after `n`
    /// epochs; the order stays each epoch's own.
    pub views: Option<usize>,
    /// How many batches are prepared in advance on a thread of their own; 0 prepares each when it is asked for.
    #[config(default = 2)]
    pub prefetch: usize,
}

/// A data loader whose order and views are pure functions of `(seed, epoch, index)`.
///
/// Burn's own loader draws each epoch's order from a generator that lives in memory, so a resumed run sees other
/// batches than the one that was killed. Here the n-th call of [`iter`](DataLoader::iter) is epoch n - 1 whatever
/// happened before, and neither batch size, prefetching nor threads change a sample's view. An epoch whose iterator is
/// dropped unused counts as drawn and reads nothing. A dataset without items gives epochs without batches.
///
/// [`slice`](DataLoader::slice), by which Burn's trainer shares the data among devices, is a loader over that part of
/// the *dataset*, as Burn's own: the part is the same in every epoch, each epoch shuffles within it, and a sample has
/// the view that it has in the whole. `drop_last` drops in each part.
///
/// The batcher is any Burn [`Batcher`] of [`Seeded`] items:
///
/// ```
/// use std::sync::Arc;
/// use burn::data::{dataloader::{DataLoader, batcher::Batcher}, dataset::InMemDataset};
/// use burn::tensor::Device;
/// use burn_distill_models::{Seeded, SeededLoader, SeededLoaderConfig};
///
/// struct Indices;
/// impl Batcher<Seeded<char>, String> for Indices {
///     fn batch(&self, items: Vec<Seeded<char>>, _device: &Device) -> String { items.iter().map(|i| i.item).collect() }
/// }
///
/// let data = Arc::new(InMemDataset::new("abcdefg".chars().collect()));
/// let config = SeededLoaderConfig::new(3).with_shuffle(true).with_seed(1);
/// let loader = SeededLoader::new(data, Indices, config)?;
/// let epochs: Vec<Vec<String>> = (0..2).map(|_| loader.iter().map(|batch| batch.unwrap()).collect()).collect();
/// assert_eq!(epochs[0].concat().len(), 7);
/// assert_ne!(epochs[0], epochs[1]); // another epoch, another order
/// # Ok::<(), burn_distill_models::ModelError>(())
/// ```
///
/// An augmentation of your own draws everything random from the item's seed, by
/// [`rng_from_seed`](crate::rng_from_seed), so that a resumed run repeats it. Two augmentations of one item take two
/// streams: `mix_seed(&[seed, 0])` and `mix_seed(&[seed, 1])`.
///
/// ```
/// use std::sync::Arc;
/// use burn::data::{dataloader::{DataLoader, batcher::Batcher}, dataset::InMemDataset};
/// use burn::tensor::{Device, Tensor, TensorData};
/// use burn_distill_models::{Seeded, SeededLoader, SeededLoaderConfig, rng_from_seed};
/// use rand::RngExt;
///
/// /// Signals of three numbers, each scaled at random and half of them reversed.
/// struct Augment;
/// impl Batcher<Seeded<[f32; 3]>, Tensor<2>> for Augment {
///     fn batch(&self, items: Vec<Seeded<[f32; 3]>>, device: &Device) -> Tensor<2> {
///         let rows = items.len();
///         let values: Vec<f32> = items.into_iter().flat_map(|Seeded { mut item, seed, .. }| {
///             let mut rng = rng_from_seed(seed);
///             let gain: f32 = rng.random_range(0.8..1.2);
///             if rng.random_bool(0.5) { item.reverse() }
///             item.map(|value| gain * value)
///         }).collect();
///         Tensor::from_data(TensorData::new(values, [rows, 3]), device)
///     }
/// }
///
/// let data = Arc::new(InMemDataset::new(vec![[1.0, 2.0, 3.0]; 4]));
/// let loader = || SeededLoader::new(data.clone(), Augment, SeededLoaderConfig::new(4));
/// let epoch = |loader: SeededLoader<_, Tensor<2>>| loader.iter().next().unwrap().unwrap().into_data();
/// assert_eq!(epoch(loader()?), epoch(loader()?)); // a run that starts again sees the same views
/// let later = loader()?;
/// later.set_epoch(1);
/// assert_ne!(epoch(later), epoch(loader()?)); // another epoch, other views
/// # Ok::<(), burn_distill_models::ModelError>(())
/// ```
pub struct SeededLoader<I, B> {
    dataset: Arc<dyn Dataset<I>>,
    batcher: Arc<dyn Batcher<Seeded<I>, B>>,
    config: SeededLoaderConfig,
    range: std::ops::Range<usize>,
    device: Device,
    epoch: AtomicUsize,
}

impl<I: Send + Sync + 'static, B: Send + 'static> SeededLoader<I, B> {
    /// A loader over the whole dataset, on the default device until a trainer moves it.
    ///
    /// # Errors
    /// When `batch_size` or `views` is 0.
    pub fn new(
        dataset: Arc<dyn Dataset<I>>,
        batcher: impl Batcher<Seeded<I>, B> + 'static,
        config: SeededLoaderConfig,
    ) -> Result<Self, ModelError> {
        if config.batch_size == 0 {
            return Err(ModelError::out_of_range("batch_size", "at least 1", 0));
        }
        if config.views == Some(0) {
            return Err(ModelError::out_of_range("views", "at least 1", 0));
        }
        let range = 0..dataset.len();
        let device = Device::default();
        Ok(Self { dataset, batcher: Arc::new(batcher), config, range, device, epoch: AtomicUsize::new(0) })
    }

    /// The same loader, on a device, continuing at the same epoch.
    pub fn with_device(self, device: Device) -> Self {
        Self { device, ..self }
    }

    /// Sets the epoch (counted from 0) that the next call of [`iter`](DataLoader::iter) gives.
    pub fn set_epoch(&self, epoch: usize) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    fn part(&self, range: std::ops::Range<usize>, device: Device) -> Arc<dyn DataLoader<B>> {
        Arc::new(Self {
            dataset: self.dataset.clone(),
            batcher: self.batcher.clone(),
            config: self.config.clone(),
            range,
            device,
            epoch: AtomicUsize::new(self.epoch.load(Ordering::Relaxed)),
        })
    }

    fn items_per_epoch(&self) -> usize {
        let items = self.range.len();
        if self.config.drop_last { items - items % self.config.batch_size } else { items }
    }
}

impl<I: Send + Sync + 'static, B: Send + 'static> DataLoader<B> for SeededLoader<I, B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<B> + 'a> {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) as u64;
        let mut order: Vec<usize> = self.range.clone().collect();
        if self.config.shuffle {
            order.shuffle(&mut rng_from_seed(mix_seed(&[self.config.seed, epoch, u64::MAX])));
        }
        order.truncate(self.items_per_epoch());
        let batches = Batches {
            dataset: self.dataset.clone(),
            batcher: self.batcher.clone(),
            device: self.device.clone(),
            batch_size: self.config.batch_size,
            seed: mix_seed(&[self.config.seed, self.config.views.map_or(epoch, |views| epoch % views as u64)]),
            next: 0,
            order,
        };
        match self.config.prefetch {
            0 => Box::new(batches),
            depth => Box::new(Prefetched::new(batches, depth)),
        }
    }

    fn num_items(&self) -> usize {
        self.items_per_epoch()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<B>> {
        self.part(self.range.clone(), device.clone())
    }

    /// # Panics
    /// When `start..end` is no part of the loader's items.
    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B>> {
        let items = self.range.len();
        assert!(start <= end && end <= items, "a slice must lie in 0..{items}, got {start}..{end}");
        self.part(self.range.start + start..self.range.start + end, self.device.clone())
    }
}

/// The batches of one epoch, in order.
struct Batches<I, B> {
    dataset: Arc<dyn Dataset<I>>,
    batcher: Arc<dyn Batcher<Seeded<I>, B>>,
    device: Device,
    batch_size: usize,
    seed: u64,
    next: usize,
    order: Vec<usize>,
}

impl<I, B> Iterator for Batches<I, B> {
    type Item = Result<B, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = (self.next + self.batch_size).min(self.order.len());
        let indices = &self.order[self.next..end];
        if indices.is_empty() {
            return None;
        }
        self.next = end;
        let items = indices.iter().map(|&index| {
            let seed = mix_seed(&[self.seed, index as u64]);
            self.dataset.get(index).map(|item| Seeded { item, index, seed })
        });
        Some(items.collect::<Result<Vec<_>, _>>().map(|items| self.batcher.batch(items, &self.device)))
    }
}

impl<I, B> DataLoaderIterator<B> for Batches<I, B> {
    fn progress(&self) -> Progress {
        Progress::new(self.next, self.order.len(), Some("items".into()))
    }
}

/// The same batches, prepared ahead of time on another thread, which starts when the first one is asked for.
struct Prefetched<I, B> {
    waiting: Option<Batches<I, B>>,
    depth: usize,
    receiver: Option<mpsc::Receiver<(usize, Result<B, DatasetError>)>>,
    worker: Option<JoinHandle<()>>,
    done: usize,
    total: usize,
}

impl<I: Send + Sync + 'static, B: Send + 'static> Prefetched<I, B> {
    fn new(batches: Batches<I, B>, depth: usize) -> Self {
        let total = batches.order.len();
        Self { waiting: Some(batches), depth, receiver: None, worker: None, done: 0, total }
    }

    fn start(&mut self, mut batches: Batches<I, B>) {
        let (sender, receiver) = mpsc::sync_channel(self.depth);
        self.receiver = Some(receiver);
        self.worker = Some(std::thread::spawn(move || {
            while let Some(batch) = batches.next() {
                if sender.send((batches.next, batch)).is_err() {
                    return; // the iterator was dropped
                }
            }
        }));
    }
}

impl<I: Send + Sync + 'static, B: Send + 'static> Iterator for Prefetched<I, B> {
    type Item = Result<B, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(batches) = self.waiting.take() {
            self.start(batches);
        }
        match self.receiver.as_ref()?.recv() {
            Ok((done, batch)) => {
                self.done = done;
                Some(batch)
            }
            Err(_) => {
                // The worker is gone: at the end of the epoch, or because a batcher panicked, which must not pass
                // for a short epoch.
                if let Some(Err(panic)) = self.worker.take().map(JoinHandle::join) {
                    std::panic::resume_unwind(panic);
                }
                None
            }
        }
    }
}

impl<I: Send + Sync + 'static, B: Send + 'static> DataLoaderIterator<B> for Prefetched<I, B> {
    fn progress(&self) -> Progress {
        Progress::new(self.done, self.total, Some("items".into()))
    }
}

impl<I, B> Drop for Prefetched<I, B> {
    fn drop(&mut self) {
        self.receiver = None; // the worker's next send fails, and it ends
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::data::dataset::InMemDataset;

    #[derive(Clone)]
    struct Keep;

    impl Batcher<Seeded<usize>, Vec<Seeded<usize>>> for Keep {
        fn batch(&self, items: Vec<Seeded<usize>>, _device: &Device) -> Vec<Seeded<usize>> {
            items
        }
    }

    fn loader(items: usize, config: SeededLoaderConfig) -> SeededLoader<usize, Vec<Seeded<usize>>> {
        SeededLoader::new(Arc::new(InMemDataset::new((0..items).collect())), Keep, config).unwrap()
    }

    fn epoch(loader: &SeededLoader<usize, Vec<Seeded<usize>>>) -> Vec<Vec<Seeded<usize>>> {
        loader.iter().map(|batch| batch.unwrap()).collect()
    }

    #[test]
    fn an_epoch_holds_each_item_once_and_resumes_to_the_same_order_and_views() {
        let config = SeededLoaderConfig::new(4).with_shuffle(true).with_seed(7);
        let first = loader(10, config.clone());
        let epochs: Vec<_> = (0..3).map(|_| epoch(&first)).collect();
        for batches in &epochs {
            let mut items: Vec<_> = batches.concat().iter().map(|seeded| seeded.item).collect();
            items.sort();
            assert_eq!(items, (0..10).collect::<Vec<_>>());
            assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        }
        assert_ne!(epochs[0], epochs[1]);
        let resumed = loader(10, config);
        resumed.set_epoch(2);
        assert_eq!(epoch(&resumed), epochs[2]);
    }

    #[test]
    fn prefetching_and_batch_size_change_neither_order_nor_views() {
        let config = SeededLoaderConfig::new(4).with_shuffle(true);
        let plain = epoch(&loader(23, config.clone().with_prefetch(0)));
        assert_eq!(plain, epoch(&loader(23, config.clone().with_prefetch(3))));
        assert_eq!(plain.concat(), epoch(&loader(23, SeededLoaderConfig { batch_size: 5, ..config })).concat());
    }

    #[test]
    fn views_repeat_with_their_period_in_an_order_that_does_not() {
        let loader = loader(8, SeededLoaderConfig::new(3).with_shuffle(true).with_views(Some(2)));
        let epochs: Vec<_> = (0..4).map(|_| epoch(&loader).concat()).collect();
        let by_index = |epoch: &Vec<Seeded<usize>>| {
            let mut items = epoch.clone();
            items.sort_by_key(|seeded| seeded.index);
            items
        };
        for (e, first) in epochs.iter().enumerate() {
            for (later, second) in epochs.iter().enumerate().skip(e + 1) {
                assert_eq!(by_index(first) == by_index(second), (later - e) % 2 == 0, "epochs {e} and {later}");
                assert_ne!(first, second, "epochs {e} and {later}");
            }
        }
    }

    #[test]
    fn a_slice_and_a_moved_loader_continue_at_the_same_epoch() {
        let whole = loader(10, SeededLoaderConfig::new(2));
        let _ = whole.iter();
        let slice = whole.slice(4, 8);
        assert_eq!(slice.num_items(), 4);
        let items: Vec<_> = slice.iter().flat_map(|batch| batch.unwrap()).collect();
        assert_eq!(items.iter().map(|seeded| seeded.index).collect::<Vec<_>>(), [4, 5, 6, 7]);
        let all = epoch(&whole).concat();
        assert_eq!(items[..], all[4..8]);
    }

    #[test]
    fn slices_of_a_shuffled_loader_share_the_items_and_keep_their_views() {
        let config = SeededLoaderConfig::new(3).with_shuffle(true).with_seed(5);
        let whole = loader(11, config);
        let parts = [whole.slice(0, 5), whole.slice(5, 11)];
        for _ in 0..3 {
            let mut all = epoch(&whole).concat();
            let mut shared = Vec::new();
            for (part, range) in parts.iter().zip([0..5, 5..11]) {
                let part: Vec<_> = part.iter().flat_map(|batch| batch.unwrap()).collect();
                assert!(part.iter().all(|seeded| range.contains(&seeded.index)));
                shared.extend(part);
            }
            assert_ne!(shared, all, "shuffled within the parts");
            all.sort_by_key(|seeded| seeded.index);
            shared.sort_by_key(|seeded| seeded.index);
            assert_eq!(shared, all);
        }
        // A slice of a slice.
        let inner = parts[1].slice(2, 4);
        let mut indices: Vec<_> = inner.iter().flat_map(|batch| batch.unwrap()).map(|seeded| seeded.index).collect();
        indices.sort();
        assert_eq!(indices, [7, 8]);
    }

    #[test]
    #[should_panic(expected = "a slice must lie in 0..10, got 4..11")]
    fn a_slice_beyond_the_items_is_refused() {
        loader(10, SeededLoaderConfig::new(2)).slice(4, 11);
    }

    #[test]
    fn no_items_are_no_batches() {
        for prefetch in [0, 2] {
            let empty = loader(0, SeededLoaderConfig::new(2).with_shuffle(true).with_prefetch(prefetch));
            assert_eq!(empty.num_items(), 0);
            let mut iterator = empty.iter();
            assert!(iterator.next().is_none() && iterator.next().is_none());
            assert!(iterator.progress().is_completed());
            assert!(empty.slice(0, 0).iter().next().is_none());
        }
    }

    #[test]
    fn an_iterator_that_is_not_asked_reads_nothing() {
        struct Counted(Arc<AtomicUsize>);
        impl Dataset<usize> for Counted {
            fn get(&self, index: usize) -> Result<usize, DatasetError> {
                self.0.fetch_add(1, Ordering::SeqCst);
                Ok(index)
            }
            fn len(&self) -> usize {
                8
            }
        }
        let reads = Arc::new(AtomicUsize::new(0));
        let data = Arc::new(Counted(reads.clone()));
        let loader = SeededLoader::new(data, Keep, SeededLoaderConfig::new(2)).unwrap();
        for _ in 0..5 {
            drop(loader.iter());
        }
        assert_eq!(reads.load(Ordering::SeqCst), 0);
        assert_eq!(epoch(&loader).concat().len(), 8);
        assert_eq!(reads.load(Ordering::SeqCst), 8);
    }

    #[test]
    fn drop_last_counts_only_what_it_gives() {
        let loader = loader(10, SeededLoaderConfig::new(4).with_drop_last(true));
        assert_eq!(loader.num_items(), 8);
        let mut iterator = loader.iter();
        while iterator.next().is_some() {}
        assert!(iterator.progress().is_completed());
    }

    #[test]
    #[should_panic(expected = "bad item")]
    fn a_panic_in_the_batcher_is_not_a_short_epoch() {
        struct Bad;
        impl Batcher<Seeded<usize>, usize> for Bad {
            fn batch(&self, items: Vec<Seeded<usize>>, _device: &Device) -> usize {
                if items[0].item > 2 {
                    panic!("bad item")
                }
                0
            }
        }
        let data = Arc::new(InMemDataset::new((0..10).collect()));
        SeededLoader::new(data, Bad, SeededLoaderConfig::new(1)).unwrap().iter().for_each(drop);
    }

    #[test]
    fn zero_items_per_batch_or_views_are_refused() {
        let data = Arc::new(InMemDataset::new(vec![0_usize]));
        let error = SeededLoader::new(data, Keep, SeededLoaderConfig::new(0)).err().unwrap();
        assert_eq!(error.to_string(), "`batch_size` must be at least 1, got 0");
        let data = Arc::new(InMemDataset::new(vec![0_usize]));
        let error = SeededLoader::new(data, Keep, SeededLoaderConfig::new(1).with_views(Some(0))).err().unwrap();
        assert_eq!(error.to_string(), "`views` must be at least 1, got 0");
    }
}
