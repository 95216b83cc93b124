use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::tensor::Device;

/// A loader that starts at a later epoch, whatever kind it is: epochs that were already trained are drawn, unread.
pub(crate) struct FromEpoch<B> {
    pub(crate) loader: Arc<dyn DataLoader<B>>,
    pub(crate) epoch: usize,
}

impl<B> FromEpoch<B> {
    fn skip(loader: Arc<dyn DataLoader<B>>, epochs: usize) -> Arc<dyn DataLoader<B>> {
        for _ in 0..epochs {
            drop(loader.iter());
        }
        loader
    }
}

impl<B: Send + 'static> DataLoader<B> for FromEpoch<B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<B> + 'a> {
        self.loader.iter()
    }

    fn num_items(&self) -> usize {
        self.loader.num_items()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<B>> {
        Self::skip(self.loader.to_device(device), self.epoch)
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B>> {
        Arc::new(Self { loader: self.loader.slice(start, end), epoch: self.epoch })
    }
}
