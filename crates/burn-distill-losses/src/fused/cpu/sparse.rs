//! Rows of a teacher's top k: one pass over the student's row for the rest, then a short row of k or k + 1 columns.

use super::{
    inputs::{Evaluate, Inputs, Local, Write},
    row::{Scratch, Slot, grow},
    rows::{Half, Rows},
    simd::{Kernel, dispatch},
    softmax::tail_exponentials,
};
use crate::{
    Tail,
    fused::spec::{Spec, TopK},
};

pub(super) struct Teacher<'a> {
    pub(super) indices: Vec<i64>,
    pub(super) log_probs: Rows<'a>,
    pub(super) tail: Rows<'a>,
    pub(super) top_k: TopK,
}

impl Teacher<'_> {
    /// Weighted values of the rows.
    pub(super) fn values(&self, inputs: &Inputs<'_>, student: &Rows<'_>) -> Vec<f32> {
        inputs.each(vec![(); inputs.rows], |row, (), local| self.row(inputs, row, student, false, local))
    }

    /// The values, and in `gradient` that of their sum: every element is written.
    pub(super) fn gradient<S: Slot + Send>(
        &self,
        inputs: &Inputs<'_>,
        student: &Rows<'_>,
        gradient: &mut [S],
    ) -> Vec<f32> {
        let width = student.width();
        inputs.each(gradient.chunks_mut(width.max(1)).collect(), |row, slots, local| {
            let value = self.row(inputs, row, student, true, local);
            slots.iter_mut().zip(&local.gradient[..width]).for_each(|(slot, value)| slot.put(*value));
            value
        })
    }

    /// [`Teacher::gradient`] in half precision.
    pub(super) fn half_gradient<H: Half>(
        &self,
        inputs: &Inputs<'_>,
        student: &Rows<'_>,
        gradient: &mut [H],
    ) -> Vec<f32> {
        let width = student.width();
        inputs.each(gradient.chunks_mut(width.max(1)).collect(), |row, slots, local| {
            let value = self.row(inputs, row, student, true, local);
            H::narrow(&local.gradient[..width], slots);
            value
        })
    }

    /// The weighted value of a row; its gradient goes into `local.gradient`.
    fn row(&self, inputs: &Inputs<'_>, row: usize, students: &Rows<'_>, gradient: bool, local: &mut Local) -> f32 {
        let width = students.width();
        grow(&mut local.gradient, width);
        let Local { student, gradient: output, rest } = local;
        let output = &mut output[..width];
        output.fill(0.0);
        let weight = inputs.weight(row);
        if weight == 0.0 {
            return 0.0;
        }
        let classes = inputs.spec.classes;
        let target = inputs.target(row, classes);
        let student = &students.row(row, student)[..classes];
        let mut buffer = Vec::new();
        let log_probs = self.log_probs.row(row, &mut buffer);
        let k = log_probs.len();
        let indices = &self.indices[row * k..(row + 1) * k];
        // Column and class; padding, and classes that the student lacks, have no column of their own.
        let listed = || {
            let columns = indices.iter().zip(log_probs).enumerate();
            columns.filter_map(|(column, (index, log_prob))| {
                let class = usize::try_from(*index).ok().filter(|class| *class < classes)?;
                (*log_prob != f32::NEG_INFINITY).then_some((column, class, *log_prob))
            })
        };
        let temperature = self.top_k.temperature as f32;

        if self.top_k.whole {
            let teacher = &mut rest.teacher;
            teacher.clear();
            teacher.resize(classes, f32::NEG_INFINITY);
            for (_, class, log_prob) in listed() {
                teacher[class] = log_prob * temperature;
            }
            let evaluate = Evaluate { spec: inputs.spec, student, teacher, terms: classes, target, weight };
            let done = dispatch(evaluate.with(&mut rest.scratch));
            if gradient {
                dispatch(Write { row: &done, scratch: &rest.scratch, gradient: output });
            }
            return (weight * done.value) as f32;
        }

        let with_tail = matches!(self.top_k.tail, Tail::Bucket | Tail::Drop);
        let mut columns = [vec![f32::NEG_INFINITY; k + 1], vec![f32::NEG_INFINITY; k + 1]];
        let mut others = student.to_vec();
        let mut target_column = None;
        let mut count = 0;
        for (column, class, log_prob) in listed() {
            columns[0][column] = student[class];
            columns[1][column] = log_prob * temperature;
            others[class] = f32::NEG_INFINITY;
            count += 1;
            if target == Some(class) {
                target_column = Some(column);
            }
        }
        let mut tail_sum = 1.0;
        if with_tail && count < classes {
            let (max, sum) = dispatch(TailExponentials { row: &others, inverse: 1.0 / temperature, output });
            columns[0][k] = (f64::from(max) + f64::from(temperature) * sum.ln()) as f32;
            let mut one = Vec::new();
            columns[1][k] = self.tail.row(row, &mut one)[0] * temperature;
            tail_sum = sum;
        }
        let short = if with_tail { k + 1 } else { k };
        let terms = if self.top_k.tail == Tail::Bucket { short } else { k };
        if target_column.is_none() && self.top_k.tail == Tail::Bucket {
            target_column = Some(k);
        }
        let spec = Spec { hard: 0.0, classes: short, ..*inputs.spec };
        let [own, its] = &columns;
        let short_target = target_column.filter(|_| spec.divergence.needs_targets());
        let evaluate = Evaluate {
            spec: &spec,
            student: &own[..short],
            teacher: &its[..short],
            terms,
            target: short_target,
            weight,
        };
        let done = dispatch(evaluate.with(&mut rest.scratch));
        let mut value = done.value;
        if gradient {
            let mut by_column = vec![0f32; short];
            dispatch(Write { row: &done, scratch: &rest.scratch, gradient: &mut by_column });
            // The tail's column is the logarithm of a sum: its gradient is shared out by the summands.
            let by = if with_tail { (f64::from(by_column[k]) / tail_sum) as f32 } else { 0.0 };
            output[..classes].iter_mut().for_each(|share| *share *= by);
            for (column, class, _) in listed() {
                output[class] += by_column[column];
            }
        }
        if let Some(target) = target.filter(|_| inputs.spec.hard != 0.0) {
            value += hard(inputs.spec.hard, student, target, weight, gradient.then_some(output), &mut rest.scratch);
        }
        (weight * value) as f32
    }
}

/// `by` times the cross-entropy of the target; adds its gradient to `output`.
fn hard(
    by: f64,
    student: &[f32],
    target: usize,
    weight: f64,
    output: Option<&mut [f32]>,
    scratch: &mut Scratch,
) -> f64 {
    let exponentials = scratch.wide(student.len());
    let (max, sum) = dispatch(TailExponentials { row: student, inverse: 1.0, output: exponentials });
    if let Some(output) = output {
        let share = (weight * by / sum) as f32;
        output.iter_mut().zip(&*exponentials).for_each(|(slot, exponential)| *slot += share * exponential);
        output[target] -= (weight * by) as f32;
    }
    by * (sum.ln() + f64::from(max) - f64::from(student[target]))
}

struct TailExponentials<'a> {
    row: &'a [f32],
    inverse: f32,
    output: &'a mut [f32],
}

impl Kernel for TailExponentials<'_> {
    type Output = (f32, f64);

    #[inline(always)]
    fn run<const FMA: bool>(self) -> (f32, f64) {
        let output = &mut self.output[..self.row.len()];
        tail_exponentials::<FMA>(self.row, self.inverse, output)
    }
}
