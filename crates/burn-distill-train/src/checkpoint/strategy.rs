use std::sync::Arc;

use burn::train::EarlyStoppingStrategy;
use burn::train::checkpoint::{CheckpointingAction, CheckpointingStrategy};
use burn::train::metric::store::{Aggregate, EventStoreClient, Split};
use burn_distill_schedules::{PlateauState, ReduceOnPlateau};

use super::store::{CheckpointStore, Pending};
use crate::history::{History, Monitor};
use crate::state::{Fault, RunState};

/// What happens at the end of every epoch: the plateau schedule sees the metric, the checkpoint is saved, and old
/// ones go, except the best and the last few. A pure function of the history, so that a resumed run decides alike.
#[derive(Clone)]
pub(crate) struct EpochEnd {
    pub(crate) history: History,
    pub(crate) monitor: Option<Monitor>,
    pub(crate) run: Arc<RunState>,
    pub(crate) store: Arc<CheckpointStore>,
    pub(crate) plateau: Option<ReduceOnPlateau>,
    pub(crate) keep: usize,
    pub(crate) patience: Option<usize>,
}

impl CheckpointingStrategy for EpochEnd {
    fn checkpointing(&mut self, epoch: usize, events: &EventStoreClient) -> Vec<CheckpointingAction> {
        // The events of the epoch pass through a queue: asking for an answer waits until all of them are in.
        let _ = events.find_metric("total", epoch, Aggregate::Mean, &Split::Valid);
        let monitor = self.history.monitor(self.monitor.as_ref());
        let Some(value) = self.history.valid(epoch, &monitor.metric) else {
            let allowed = "a metric that the validation data gives";
            self.run.stop(Fault::Setting { field: "monitor", allowed, given: format!("`{}`", monitor.metric) });
            return Vec::new();
        };
        if let Some(plateau) = &self.plateau {
            if let Some(fault) = other_direction(plateau, &monitor) {
                self.run.stop(fault);
                return Vec::new();
            }
            plateau.observe(&mut self.run.plateau(), value);
        }
        let best = self.history.best(self.monitor.as_ref()).map(|(epoch, _)| epoch);
        self.store.begin(epoch, Pending::new(self.run.step(), self.run.skipped(), self.keep, best));
        vec![CheckpointingAction::Save]
    }
}

impl EarlyStoppingStrategy for EpochEnd {
    fn should_stop(&mut self, epoch: usize, _events: &EventStoreClient) -> bool {
        self.run.interrupter.0.should_stop() || stops_early(&self.history, self.monitor.as_ref(), self.patience, epoch)
    }
}

/// Whether the best epoch lies so far back that a run ends after `epoch`.
pub(crate) fn stops_early(history: &History, monitor: Option<&Monitor>, patience: Option<usize>, epoch: usize) -> bool {
    match (patience, history.best(monitor)) {
        (Some(patience), Some((best, _))) => epoch >= best + patience,
        _ => false,
    }
}

/// A plateau that waits for a fall of what should rise, or the other way, would shrink the rate of a run that goes
/// well.
pub(crate) fn other_direction(plateau: &ReduceOnPlateau, monitor: &Monitor) -> Option<Fault> {
    let mut state = PlateauState { best: Some(1.0), ..PlateauState::default() };
    plateau.observe(&mut state, f64::MAX);
    let rises = state.best != Some(1.0);
    let (allowed, given) = match (monitor.higher_is_better, rises) {
        (true, false) => ("a plateau with mode Max, as a higher metric is better", "Min"),
        (false, true) => ("a plateau with mode Min, as a lower metric is better", "Max"),
        _ => return None,
    };
    let given = format!("{given}, while the run monitors `{}`", monitor.metric);
    Some(Fault::Setting { field: "learning_rate", allowed, given })
}
