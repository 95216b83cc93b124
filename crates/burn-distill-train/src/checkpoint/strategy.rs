use std::sync::Arc;

use burn::train::EarlyStoppingStrategy;
use burn::train::checkpoint::{CheckpointingAction, CheckpointingStrategy};
use burn::train::metric::store::{Aggregate, EventStoreClient, Split};
use burn_distill_schedules::PlateauHandle;

use super::CheckpointStore;
use crate::history::{History, Monitor};
use crate::state::RunState;

/// What happens at the end of every epoch: the plateau schedule sees the metric, the checkpoint is saved, and old
/// ones go, except the best and the last few. A pure function of the history, so that a resumed run decides alike.
#[derive(Clone)]
pub(crate) struct EpochEnd {
    pub(crate) history: History,
    pub(crate) monitor: Monitor,
    pub(crate) run: Arc<RunState>,
    pub(crate) store: Arc<CheckpointStore>,
    pub(crate) plateau: Option<PlateauHandle>,
    pub(crate) keep: usize,
    pub(crate) patience: Option<usize>,
}

impl CheckpointingStrategy for EpochEnd {
    fn checkpointing(&mut self, epoch: usize, events: &EventStoreClient) -> Vec<CheckpointingAction> {
        // The events of the epoch pass through a queue: asking for an answer waits until all of them are in.
        let _ = events.find_metric("total", epoch, Aggregate::Mean, &Split::Valid);
        if let (Some(plateau), Some(value)) = (&self.plateau, self.history.valid(epoch, &self.monitor.metric)) {
            plateau.observe(value);
        }
        self.store.begin(epoch, self.run.step());
        let best = self.history.best(&self.monitor).map(|(epoch, _)| epoch);
        let old = self.store.epochs().unwrap_or_default();
        let old = old.into_iter().filter(|other| other + self.keep <= epoch && Some(*other) != best);
        std::iter::once(CheckpointingAction::Save).chain(old.map(CheckpointingAction::Delete)).collect()
    }
}

impl EarlyStoppingStrategy for EpochEnd {
    fn should_stop(&mut self, epoch: usize, _events: &EventStoreClient) -> bool {
        match (self.patience, self.history.best(&self.monitor)) {
            (Some(patience), Some((best, _))) => epoch - best >= patience,
            _ => false,
        }
    }
}
