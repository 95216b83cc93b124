use serde::{Deserialize, Serialize};

use crate::TrainError;

/// How the losses of several tasks become one.
///
/// ```text
/// Fixed        total = Σ w_i L_i                          w_i by `Task::weight`, 1 by default
/// Uncertainty  total = Σ exp(-s_i) L_i + s_i / 2          s_i = ln σ_i², learned, 0 at the start
/// GradNorm     total = Σ w_i L_i                          w = tasks · softmax(u), u learned by gradient norms
/// ```
///
/// Whatever balances them, the weight of each task is the metric `weight:TASK`, and what is learned is saved and
/// resumed with the run. A task without a row in a batch (see [`Task::mask`](crate::Task::mask)) takes no part in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// By weights that are given: each task's own schedule.
    #[default]
    Fixed,
    /// By learned uncertainty (Kendall, Gal and Cipolla 2018, arXiv 1705.07115, equation 10): a parameter for each
    /// task, trained by the run's optimiser without weight decay.
    ///
    /// Where a task's loss stays at `L`, its weight goes to `1 / (2 L)`: tasks come to count alike, whatever the scale
    /// of their losses. The paper's form for regression, `exp(-s) L / 2 + s / 2`, is the same with `s` moved by ln 2
    /// and a constant. Losses must not be negative.
    Uncertainty,
    /// By the norms of the tasks' gradients at the features that they share (GradNorm, Chen et al. 2018, arXiv
    /// 1711.02257). Each task needs a [`branch`](crate::Task::branch).
    ///
    /// ```text
    /// G_i = |∇ w_i L_i|,  r_i = (L_i / L_i(0)) / mean_j (L_j / L_j(0))
    /// L_grad = Σ |G_i / mean G - r_i^alpha|,  u <- u - learning_rate ∂L_grad / ∂u,  w = tasks · softmax(u)
    /// ```
    ///
    /// `mean G` and `r` are constants of the derivative, `L_i(0)` is the loss at the first step at which the task had a
    /// row. The update is taken once per optimiser step.
    ///
    /// It departs from the paper in three places. The gradient is that at the shared features instead of the last
    /// shared layer's weights, which needs no second backward pass (LibMTL's `rep_grad`, at `4336804`). The softmax
    /// keeps weights positive and their sum at the number of tasks, where the paper divides after each step (as LibMTL
    /// does). `L_grad` is divided by `mean G`, so that `learning_rate` means the same whatever the scale of the
    /// gradients.
    GradNorm {
        /// How strongly a task that lags behind is favoured; in [0, inf). 0 makes all gradients equally long.
        alpha: f64,
        /// The step of `u`; in (0, inf).
        learning_rate: f64,
    },
}

impl Balance {
    /// By gradient norm with a step of 0.025. The paper takes an `alpha` of 1.5 where tasks differ much, and 0.12 where
    /// they are alike.
    pub fn grad_norm(alpha: f64) -> Self {
        Self::GradNorm { alpha, learning_rate: 0.025 }
    }

    pub(crate) fn validate(&self) -> Result<(), TrainError> {
        let Self::GradNorm { alpha, learning_rate } = *self else { return Ok(()) };
        if !(alpha >= 0.0 && alpha.is_finite()) {
            return Err(TrainError::setting("alpha", "in [0, inf)", alpha));
        }
        if !(learning_rate > 0.0 && learning_rate.is_finite()) {
            return Err(TrainError::setting("balance.learning_rate", "in (0, inf)", learning_rate));
        }
        Ok(())
    }
}

/// One task's part of one batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TaskObservation {
    /// The squared norm of the gradient of its weighted loss at the shared features.
    pub(crate) squared_norm: f64,
    /// Its loss, without its weight.
    pub(crate) loss: f64,
}

/// What GradNorm learns, a number of each kind per task, and what it has seen since the last optimiser step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct GradNormState {
    /// `u`; 0 where there is none yet.
    pub(crate) logits: Vec<f64>,
    /// `L(0)`.
    pub(crate) initial: Vec<Option<f64>>,
    seen: Vec<Seen>,
    batches: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Seen {
    squared_norm: f64,
    loss: f64,
    batches: usize,
}

impl GradNormState {
    /// The weights of so many tasks.
    pub(crate) fn weights(&self, tasks: usize) -> Vec<f64> {
        let logit = |task: usize| self.logits.get(task).copied().unwrap_or(0.0);
        let most = (0..tasks).map(logit).fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = (0..tasks).map(|task| (logit(task) - most).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|power| tasks as f64 * power / sum).collect()
    }

    /// Takes a batch in; `None` for a task without a row in it.
    pub(crate) fn observe(&mut self, tasks: &[Option<TaskObservation>]) {
        self.seen.resize(tasks.len(), Seen::default());
        self.batches += 1;
        for (seen, task) in self.seen.iter_mut().zip(tasks) {
            if let Some(task) = task {
                seen.squared_norm += task.squared_norm;
                seen.loss += task.loss;
                seen.batches += 1;
            }
        }
    }

    /// Forgets the batches since the last optimiser step, when there is to be none.
    pub(crate) fn forget(&mut self) {
        self.seen.clear();
        self.batches = 0;
    }

    /// The update of one optimiser step, on the batches since the last one. The gradient of their mean at their
    /// features together has the norm `√(Σ norm²) / batches`.
    pub(crate) fn step(&mut self, alpha: f64, learning_rate: f64) {
        let (seen, batches) = (std::mem::take(&mut self.seen), std::mem::take(&mut self.batches) as f64);
        if seen.is_empty() {
            return;
        }
        self.logits.resize(seen.len(), 0.0);
        self.initial.resize(seen.len(), None);
        let weights = self.weights(seen.len());
        // Of each task that had a row: its index, the norm of its gradient, how much of its first loss is left.
        let mut present = Vec::with_capacity(seen.len());
        for (index, seen) in seen.iter().enumerate().filter(|(_, seen)| seen.batches > 0) {
            let loss = seen.loss / seen.batches as f64;
            let initial = *self.initial[index].get_or_insert(loss);
            let left = if initial > 0.0 { (loss / initial).max(0.0) } else { 1.0 };
            present.push((index, seen.squared_norm.sqrt() / batches, left));
        }
        let mean = |value: fn(&(usize, f64, f64)) -> f64| present.iter().map(value).sum::<f64>() / present.len() as f64;
        let (mean_norm, mean_left) = (mean(|task| task.1), mean(|task| task.2));
        if present.len() < 2 || !(mean_norm > 0.0 && mean_norm.is_finite()) {
            return; // nothing to compare
        }
        // ∂L_grad/∂ln w_i, and through the softmax to u.
        let signed: Vec<(usize, f64)> = present
            .iter()
            .map(|&(index, norm, left)| {
                let relative = norm / mean_norm;
                let rate = if mean_left > 0.0 { left / mean_left } else { 1.0 };
                let gap = relative - rate.powf(alpha);
                (index, if gap == 0.0 { 0.0 } else { gap.signum() * relative })
            })
            .collect();
        let sum: f64 = signed.iter().map(|(_, gradient)| gradient).sum();
        let share = |index: usize| weights[index] / weights.len() as f64;
        let mut gradient: Vec<f64> = (0..weights.len()).map(|index| -share(index) * sum).collect();
        signed.into_iter().for_each(|(index, own)| gradient[index] += own);
        for (logit, gradient) in self.logits.iter_mut().zip(gradient) {
            *logit -= learning_rate * gradient;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(state: &mut GradNormState, count: usize, unit_norms: &[f64], losses: &[f64], alpha: f64) {
        for _ in 0..count {
            let weights = state.weights(losses.len());
            let task = |index: usize| {
                let squared_norm = (weights[index] * unit_norms[index]).powi(2);
                Some(TaskObservation { squared_norm, loss: losses[index] })
            };
            state.observe(&(0..losses.len()).map(task).collect::<Vec<_>>());
            state.step(alpha, 0.01);
        }
    }

    #[test]
    fn gradients_become_equally_long() {
        let (mut state, norms) = (GradNormState::default(), [8.0, 2.0, 0.5]);
        steps(&mut state, 3000, &norms, &[1.0, 1.0, 1.0], 1.5);
        let weights = state.weights(3);
        let lengths: Vec<f64> = weights.iter().zip(norms).map(|(weight, norm)| weight * norm).collect();
        assert!((weights.iter().sum::<f64>() - 3.0).abs() < 1e-12);
        assert!(lengths.iter().all(|length| (length / lengths[0] - 1.0).abs() < 0.05), "{lengths:?}");
    }

    #[test]
    fn a_task_that_lags_behind_pulls_harder() {
        let mut state = GradNormState::default();
        steps(&mut state, 1, &[1.0, 1.0], &[2.0, 10.0], 1.0); // the first losses
        steps(&mut state, 3000, &[1.0, 1.0], &[1.0, 2.5], 1.0); // a half and a quarter are left
        let weights = state.weights(2);
        assert!((weights[0] / weights[1] - 2.0).abs() < 0.1, "{weights:?}");
    }

    #[test]
    fn a_task_without_rows_is_left_alone() {
        let mut state = GradNormState::default();
        let task = |squared_norm| Some(TaskObservation { squared_norm, loss: 1.0 });
        state.observe(&[task(4.0), None, task(1.0)]);
        state.step(1.0, 0.1);
        assert_eq!(state.initial, [Some(1.0), None, Some(1.0)]);
        let before = state.clone();
        state.observe(&[None, task(9.0), None]);
        state.step(1.0, 0.1);
        assert_eq!(state.logits, before.logits); // one task alone compares with nothing
        assert_eq!(state.initial, [Some(1.0); 3]);
        state.observe(&[task(4.0), task(1.0), task(1.0)]);
        state.forget();
        state.step(1.0, 0.1);
        assert_eq!((state.logits, state.initial), (before.logits, vec![Some(1.0); 3]));
    }

    #[test]
    fn batches_of_one_step_are_one_batch() {
        let task = |squared_norm, loss| Some(TaskObservation { squared_norm, loss });
        let (mut parts, mut whole) = (GradNormState::default(), GradNormState::default());
        parts.observe(&[task(4.0, 1.0), task(1.0, 2.0)]);
        parts.observe(&[task(12.0, 3.0), task(3.0, 4.0)]);
        whole.observe(&[task(4.0, 2.0), task(1.0, 3.0)]); // (4 + 12) / 2², (1 + 3) / 2²
        for state in [&mut parts, &mut whole] {
            state.step(1.5, 0.1);
        }
        assert_eq!(parts, whole);
        assert_ne!(parts.logits, [0.0; 2]);
    }

    #[test]
    fn refusals() {
        let message = |balance: Balance| balance.validate().unwrap_err().to_string();
        assert_eq!(message(Balance::grad_norm(-1.0)), "`alpha` must be in [0, inf), got -1");
        let stuck = Balance::GradNorm { alpha: 1.0, learning_rate: 0.0 };
        assert_eq!(message(stuck), "`balance.learning_rate` must be in (0, inf), got 0");
    }
}
