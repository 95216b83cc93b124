//! The teacher asked ahead of the student: a loader whose batches come with its answer.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use burn_distill_models::{OnDevice, Teacher};

use crate::taught::Taught;

/// How a teacher is asked about a batch, and on which device its answer is wanted.
type Ask<T, B> = Arc<dyn Fn(&T, &B, &Device) -> Box<dyn Any + Send> + Send + Sync>;

/// Where the teacher's forward pass runs.
pub(crate) struct Prefetch<T, B> {
    ask: Ask<T, B>,
    /// A device of the teacher's own.
    device: Option<Device>,
}

impl<T: Teacher<B>, B> Prefetch<T, B>
where
    T::Output: Send + 'static,
{
    /// On the student's device.
    pub(crate) fn beside() -> Self {
        Self { ask: Arc::new(|teacher: &T, batch, _| Box::new(teacher.forward(batch))), device: None }
    }

    /// On a device of its own.
    pub(crate) fn on(device: Device) -> Self
    where
        B: OnDevice,
        T::Output: OnDevice,
    {
        let own = device.clone();
        let ask = move |teacher: &T, batch: &B, home: &Device| -> Box<dyn Any + Send> {
            Box::new(teacher.forward(&batch.on_device(&like(&own, home))).on_device(home))
        };
        Self { ask: Arc::new(ask), device: Some(device) }
    }
}

/// A device with or without gradients, as the other one is.
fn like(device: &Device, other: &Device) -> Device {
    if other.is_autodiff() { device.clone().autodiff() } else { device.clone().inner() }
}

impl<T, B> Clone for Prefetch<T, B> {
    fn clone(&self) -> Self {
        Self { ask: self.ask.clone(), device: self.device.clone() }
    }
}

/// The same batches in the same order, each with the teacher's answer, which a thread of its own computes one batch
/// ahead.
pub(crate) struct Ahead<T, B> {
    loader: Arc<dyn DataLoader<B>>,
    teacher: Mutex<T>,
    prefetch: Prefetch<T, B>,
    /// Where the batches are.
    device: Device,
}

impl<T: Teacher<B> + 'static, B: Send + 'static> Ahead<T, B> {
    pub(crate) fn new(loader: Arc<dyn DataLoader<B>>, teacher: T, prefetch: Prefetch<T, B>) -> Self {
        let device = teacher.devices().into_iter().next().unwrap_or_default();
        Self { loader, teacher: Mutex::new(teacher), prefetch, device }
    }

    fn teacher(&self) -> T {
        self.teacher.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<T: Teacher<B> + 'static, B: Send + 'static> DataLoader<Taught<B>> for Ahead<T, B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Taught<B>> + 'a> {
        let progress = Progress::new(0, self.num_items(), Some("items".into()));
        Box::new(Batches { source: self, worker: Worker::Waiting, progress })
    }

    fn num_items(&self) -> usize {
        self.loader.num_items()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Taught<B>>> {
        let of_teacher = self.prefetch.device.as_ref().map_or(device.clone(), |own| like(own, device));
        Arc::new(Self {
            loader: self.loader.to_device(device),
            teacher: Mutex::new(self.teacher().fork(&of_teacher)),
            prefetch: self.prefetch.clone(),
            device: device.clone(),
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Taught<B>>> {
        Arc::new(Self {
            loader: self.loader.slice(start, end),
            teacher: Mutex::new(self.teacher()),
            prefetch: self.prefetch.clone(),
            device: self.device.clone(),
        })
    }
}

type Message<B> = (Progress, Result<Taught<B>, DatasetError>);

/// The thread that asks the teacher.
enum Worker<B> {
    /// Not yet started: an epoch that is not asked for reads nothing.
    Waiting,
    Running {
        receiver: mpsc::Receiver<Message<B>>,
        thread: JoinHandle<()>,
    },
    Ended,
}

/// One epoch.
struct Batches<'a, T: Teacher<B> + 'static, B: Send + 'static> {
    source: &'a Ahead<T, B>,
    worker: Worker<B>,
    progress: Progress,
}

impl<T: Teacher<B> + 'static, B: Send + 'static> Batches<'_, T, B> {
    fn start(&self) -> std::io::Result<Worker<B>> {
        // Without a buffer: one answer waits to be taken, and the next is begun when it has been.
        let (sender, receiver) = mpsc::sync_channel(0);
        let (loader, teacher) = (self.source.loader.clone(), self.source.teacher());
        let (ask, device) = (self.source.prefetch.ask.clone(), self.source.device.clone());
        let work = move || {
            let mut batches = loader.iter();
            while let Some(batch) = batches.next() {
                let taught = batch.map(|batch| Taught { answer: Some(ask(&teacher, &batch, &device)), batch });
                if sender.send((batches.progress(), taught)).is_err() {
                    return; // the iterator was dropped
                }
            }
        };
        let thread = std::thread::Builder::new().name("teacher".into()).spawn(work)?;
        Ok(Worker::Running { receiver, thread })
    }
}

impl<T: Teacher<B> + 'static, B: Send + 'static> Iterator for Batches<'_, T, B> {
    type Item = Result<Taught<B>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Worker::Waiting = self.worker {
            self.worker = match self.start() {
                Ok(worker) => worker,
                Err(error) => {
                    self.worker = Worker::Ended;
                    return Some(Err(DatasetError::new(error)));
                }
            };
        }
        let Worker::Running { receiver, .. } = &self.worker else { return None };
        if let Ok((progress, taught)) = receiver.recv() {
            self.progress = progress;
            return Some(taught);
        }
        // The thread is gone: at the end of the epoch, or because the teacher or the loader panicked.
        match std::mem::replace(&mut self.worker, Worker::Ended) {
            Worker::Running { thread, .. } => {
                thread.join().err().map(|panic| Err(DatasetError::new(Panicked::of(panic))))
            }
            _ => None,
        }
    }
}

impl<T: Teacher<B> + 'static, B: Send + 'static> DataLoaderIterator<Taught<B>> for Batches<'_, T, B> {
    fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

impl<T: Teacher<B> + 'static, B: Send + 'static> Drop for Batches<'_, T, B> {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.worker, Worker::Ended) {
            Worker::Waiting => drop(self.source.loader.iter()), // the epoch counts as drawn
            Worker::Running { receiver, thread } => {
                drop(receiver); // the thread's next send fails, and it ends
                let _ = thread.join();
            }
            Worker::Ended => {}
        }
    }
}

/// What ended the teacher's thread.
#[derive(Debug, thiserror::Error)]
#[error("the teacher, or its loader, panicked: {message}")]
struct Panicked {
    message: String,
}

impl Panicked {
    fn of(panic: Box<dyn Any + Send>) -> Self {
        let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
        let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Self { message: message.unwrap_or_else(|| "no message".to_string()) }
    }
}
