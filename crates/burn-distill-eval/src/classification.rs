use std::collections::BTreeMap;

use burn::tensor::{Bool, Int, Tensor};

use crate::{
    CalibrationBins, Mean,
    row::{LogSoftmax, argmax, rank},
};

/// Everything there is to say about a batch of classifications, in one pass; batches add up with
/// [`merge`](Self::merge).
///
/// A part is `None` where its input was missing: the targets or the teacher.
///
/// Ties: the smaller class stands first, as in `argmax`. A row with a NaN logit counts as wrong and as disagreeing,
/// and its likelihood, divergence and calibration error are NaN, so a diverged model shows. Logits of -inf have
/// probability 0; a student that gives probability 0 to the target, or to what the teacher allows, has an infinite
/// likelihood or divergence.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClassificationStats {
    /// The target is the most likely class.
    pub top1: Option<Mean>,
    /// The target is among the five most likely classes (always, of five classes or fewer).
    pub top5: Option<Mean>,
    /// Student and teacher predict the same class.
    pub agreement: Option<Mean>,
    /// KL(teacher || student) at temperature 1, in nats.
    pub kl: Option<Mean>,
    /// Negative log-likelihood of the targets, in nats.
    pub nll: Option<Mean>,
    /// Confidence against accuracy.
    pub calibration: Option<CalibrationBins>,
}

impl ClassificationStats {
    /// Statistics of one batch.
    ///
    /// # Shapes
    /// - `student_logits`, `teacher_logits`: `[rows, classes]`;
    /// - `targets`: class ids, `[rows]`; `mask`: `[rows]`, true = counts. A masked-out row is not read at all.
    ///
    /// # Panics
    /// If the shapes differ, or if the target of a row that counts is not in [0, classes).
    pub fn of(
        student_logits: Tensor<2>,
        teacher_logits: Option<Tensor<2>>,
        targets: Option<Tensor<1, Int>>,
        mask: Option<Tensor<1, Bool>>,
    ) -> Self {
        let [rows, classes] = student_logits.dims();
        if let Some(teacher) = &teacher_logits {
            assert_eq!(teacher.dims(), [rows, classes], "`teacher_logits` must have the shape of `student_logits`");
        }
        let student = host(student_logits);
        let teacher = teacher_logits.map(host);
        let targets = targets.map(host_ids);
        let mask = mask.map(host_mask);
        Self::from_rows(classes, &student, teacher.as_deref(), targets.as_deref(), mask.as_deref())
    }

    /// Statistics of rows of `classes` logits that are already on the host, laid out one row after the other.
    ///
    /// # Panics
    /// As [`of`](Self::of).
    pub fn from_rows(
        classes: usize,
        student_logits: &[f32],
        teacher_logits: Option<&[f32]>,
        targets: Option<&[i64]>,
        mask: Option<&[bool]>,
    ) -> Self {
        let rows = student_logits.len() / classes.max(1);
        assert_eq!(student_logits.len(), rows * classes, "`student_logits` must hold whole rows of {classes} classes");
        if let Some(teacher) = teacher_logits {
            assert_eq!(teacher.len(), rows * classes, "`teacher_logits` must have the shape of `student_logits`");
        }
        if let Some(targets) = targets {
            assert_eq!(targets.len(), rows, "`targets` must have one value per row");
        }
        let mut stats = Self::empty(teacher_logits.is_some(), targets.is_some());
        for row in counted(rows, mask) {
            let range = row * classes..(row + 1) * classes;
            let student = &student_logits[range.clone()];
            let log_probs = LogSoftmax::new(student);
            if let Some(targets) = targets {
                stats.add_target(student, log_probs, class_id(targets[row], classes, row));
            }
            if let Some(teacher) = teacher_logits {
                stats.add_teacher(student, log_probs, &teacher[range]);
            }
        }
        stats
    }

    /// Nothing seen yet, with the parts that those inputs will fill.
    fn empty(teacher: bool, targets: bool) -> Self {
        let of_targets = targets.then(Mean::default);
        let of_teacher = teacher.then(Mean::default);
        Self {
            top1: of_targets,
            top5: of_targets,
            nll: of_targets,
            calibration: targets.then(CalibrationBins::default),
            agreement: of_teacher,
            kl: of_teacher,
        }
    }

    fn add_target(&mut self, student: &[f32], log_probs: LogSoftmax, target: usize) {
        let rank = rank(student, target);
        let within = |k| rank.is_some_and(|rank| rank < k);
        add(&mut self.top1, f64::from(within(1)));
        add(&mut self.top5, f64::from(within(5)));
        add(&mut self.nll, -log_probs.at(target));
        if let Some(bins) = &mut self.calibration {
            bins.add(log_probs.confidence(), within(1));
        }
    }

    fn add_teacher(&mut self, student: &[f32], log_probs: LogSoftmax, teacher: &[f32]) {
        add(&mut self.agreement, f64::from(agree(student, teacher)));
        add(&mut self.kl, log_probs.kl_to(&LogSoftmax::new(teacher)));
    }

    /// Adds the rows of `other`. A part that one side lacks is taken from the other, so that
    /// `ClassificationStats::default()` is a start for any batches.
    pub fn merge(&mut self, other: &Self) {
        merge(&mut self.top1, &other.top1, Mean::merge);
        merge(&mut self.top5, &other.top5, Mean::merge);
        merge(&mut self.agreement, &other.agreement, Mean::merge);
        merge(&mut self.kl, &other.kl, Mean::merge);
        merge(&mut self.nll, &other.nll, Mean::merge);
        merge(&mut self.calibration, &other.calibration, CalibrationBins::merge);
    }

    /// The values by their names: `accuracy`, `accuracy_top5`, `agreement`, `kl_to_teacher`,
    /// `negative_log_likelihood`, `calibration_error`. A name is absent where there was no input or no row.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let mean = |part: Option<Mean>| part.and_then(|mean| mean.value());
        [
            ("accuracy", mean(self.top1)),
            ("accuracy_top5", mean(self.top5)),
            ("agreement", mean(self.agreement)),
            ("kl_to_teacher", mean(self.kl)),
            ("negative_log_likelihood", mean(self.nll)),
            ("calibration_error", self.calibration.and_then(|bins| bins.expected_calibration_error())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_string(), value?)))
        .collect()
    }
}

/// Share of rows whose target is among the `k` largest logits; `k` beyond the number of classes means all of them.
///
/// Shapes, ties and NaN as [`ClassificationStats`].
///
/// # Panics
/// As [`ClassificationStats::of`].
pub fn top_k_accuracy(logits: Tensor<2>, targets: Tensor<1, Int>, k: usize, mask: Option<Tensor<1, Bool>>) -> Mean {
    let [rows, classes] = logits.dims();
    assert_eq!(targets.dims(), [rows], "`targets` must have one value per row");
    let logits = host(logits);
    let targets = host_ids(targets);
    let mask = mask.map(host_mask);
    let mut mean = Mean::default();
    for row in counted(rows, mask.as_deref()) {
        let target = class_id(targets[row], classes, row);
        let rank = rank(&logits[row * classes..(row + 1) * classes], target);
        mean.add(f64::from(rank.is_some_and(|rank| rank < k)));
    }
    mean
}

/// Share of rows for which student and teacher predict the same class.
///
/// Shapes, ties and NaN as [`ClassificationStats`].
///
/// # Panics
/// If the shapes differ.
pub fn agreement(student_logits: Tensor<2>, teacher_logits: Tensor<2>, mask: Option<Tensor<1, Bool>>) -> Mean {
    ClassificationStats::of(student_logits, Some(teacher_logits), None, mask).agreement.unwrap_or_default()
}

/// KL(teacher || student) at temperature 1, in nats per row.
///
/// Shapes and edges as [`ClassificationStats`].
///
/// # Panics
/// If the shapes differ.
pub fn kl_to_teacher(student_logits: Tensor<2>, teacher_logits: Tensor<2>, mask: Option<Tensor<1, Bool>>) -> Mean {
    ClassificationStats::of(student_logits, Some(teacher_logits), None, mask).kl.unwrap_or_default()
}

/// Negative log-likelihood of the targets, in nats per row.
///
/// Shapes and edges as [`ClassificationStats`].
///
/// # Panics
/// As [`ClassificationStats::of`].
pub fn negative_log_likelihood(logits: Tensor<2>, targets: Tensor<1, Int>, mask: Option<Tensor<1, Bool>>) -> Mean {
    ClassificationStats::of(logits, None, Some(targets), mask).nll.unwrap_or_default()
}

fn host(logits: Tensor<2>) -> Vec<f32> {
    let data = logits.into_data();
    match data.as_slice::<f32>() {
        Ok(values) => values.to_vec(),
        Err(_) => data.iter::<f32>().collect(), // another float type
    }
}

fn host_ids(targets: Tensor<1, Int>) -> Vec<i64> {
    targets.into_data().iter::<i64>().collect()
}

fn host_mask(mask: Tensor<1, Bool>) -> Vec<bool> {
    mask.into_data().iter::<bool>().collect()
}

/// The rows that count.
fn counted(rows: usize, mask: Option<&[bool]>) -> impl Iterator<Item = usize> {
    if let Some(mask) = mask {
        assert_eq!(mask.len(), rows, "`mask` must have one value per row");
    }
    (0..rows).filter(move |&row| mask.is_none_or(|mask| mask[row]))
}

fn class_id(target: i64, classes: usize, row: usize) -> usize {
    match usize::try_from(target) {
        Ok(target) if target < classes => target,
        _ => panic!("`targets` must be in [0, {classes}), got {target} in row {row}; mask out rows without a target"),
    }
}

fn agree(student: &[f32], teacher: &[f32]) -> bool {
    argmax(student).is_some_and(|class| argmax(teacher) == Some(class))
}

fn add(mean: &mut Option<Mean>, value: f64) {
    if let Some(mean) = mean {
        mean.add(value);
    }
}

fn merge<T: Copy>(part: &mut Option<T>, other: &Option<T>, add: impl Fn(&mut T, &T)) {
    match (part, other) {
        (Some(part), Some(other)) => add(part, other),
        (part @ None, other) => *part = *other,
        (Some(_), None) => {}
    }
}
