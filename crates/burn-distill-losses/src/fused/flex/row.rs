//! One row: its value, and the gradient as a combination of what stays in the cache.
//!
//! A row is read in blocks that fit into the first-level cache. Exponentials are taken relative to the largest logit
//! seen so far, and each block remembers which that was, so that student and teacher come from memory only once however
//! long the row is. Sums run in f32 over one block and in f64 over blocks.
//!
//! With `q = softmax(student / T)` every divergence here has the gradient `q (h - Σ q h) / T` for some `h`, so the
//! second pass leaves `q` and `q h`, and writing the gradient is one linear combination of the two.

use super::{decoupled::decoupled, hard::add_hard, lanes::BLOCK, math::fma, softmax::exponentials, terms::Pass};
use crate::fused::spec::{Divergence, Spec};

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    /// The student's part of the gradient, and the other one.
    student: Vec<f32>,
    other: Vec<f32>,
    /// Exponentials at temperature 1, for the cross-entropy.
    hard: Vec<f32>,
    /// What the parts are multiplied by, block by block.
    factors: Vec<Factors>,
    masked: [Vec<f32>; 2],
}

impl Scratch {
    /// A buffer of `width` elements.
    pub(super) fn wide(&mut self, width: usize) -> &mut [f32] {
        grow(&mut self.hard, width);
        &mut self.hard[..width]
    }
}

/// What a block of the parts is multiplied by.
#[derive(Clone, Copy, Default)]
pub(super) struct Factors {
    pub(super) student: f32,
    pub(super) other: f32,
    pub(super) hard: f32,
}

/// What remains to be done after the value of a row is known.
pub(super) struct Row {
    pub(super) value: f64,
    width: usize,
    pub(super) with_hard: bool,
    /// A class whose gradient is larger by so much.
    pub(super) single: Option<(usize, f32)>,
}

/// The value of a row whose gradient is to be multiplied by `weight`.
///
/// `terms` is over how many columns the divergence sums, all of `student` unless a sparse teacher drops its tail.
#[inline(always)]
pub(super) fn evaluate<const FMA: bool>(
    spec: &Spec,
    student: &[f32],
    teacher: &[f32],
    terms: usize,
    target: Option<usize>,
    weight: f64,
    scratch: &mut Scratch,
) -> Row {
    let width = student.len();
    let inverse = (1.0 / spec.temperature) as f32;
    let scale = weight * spec.soft / spec.temperature;
    for buffer in [&mut scratch.student, &mut scratch.other] {
        grow(buffer, width);
    }
    let Scratch { student: own, other, hard, factors, masked } = scratch;
    let (own, other) = (&mut own[..width], &mut other[..width]);

    if let Divergence::Decoupled { alpha, beta } = spec.divergence {
        let [student_others, teacher_others] = masked;
        for (others, logits) in [(&mut *student_others, student), (&mut *teacher_others, teacher)] {
            others.clear();
            others.extend_from_slice(logits);
            if let Some(target) = target {
                others[target] = f32::NEG_INFINITY;
            }
        }
        let softmax = exponentials::<FMA>(student_others, teacher_others, inverse, own, other, factors);
        let (value, single) = decoupled(&softmax, student, teacher, target, inverse, alpha, beta, scale, factors);
        let mut row = Row { value: spec.soft * value, width, with_hard: false, single };
        add_hard::<FMA>(spec, student, target, weight, None, hard, factors, &mut row);
        return row;
    }

    let softmax = exponentials::<FMA>(student, teacher, inverse, own, other, factors);
    let log_sum = softmax.log_sum();
    let (value, normalised) = if spec.divergence == Divergence::ForwardKl && terms == width {
        let [by_student, by_teacher] = softmax.sum.map(|sum| scale / sum);
        for block in factors.iter_mut() {
            block.student = (f64::from(block.student) * by_student) as f32;
            block.other = (f64::from(block.other) * -by_teacher) as f32;
        }
        (softmax.cross / softmax.sum[1] - log_sum[1] + log_sum[0], false)
    } else {
        let pass =
            Pass { student, teacher, terms, inverse, max: softmax.max, sum: softmax.sum, near: softmax.row_is_near() };
        let (value, mean) = pass.evaluate::<FMA>(spec.divergence, own, other, factors);
        for block in factors.iter_mut() {
            *block = Factors { student: (-scale * mean) as f32, other: scale as f32, hard: 0.0 };
        }
        (value, true)
    };
    let mut row = Row { value: spec.soft * value, width, with_hard: false, single: None };
    let at_one = (spec.temperature == 1.0 && scale != 0.0).then_some((&softmax, scale, normalised));
    add_hard::<FMA>(spec, student, target, weight, at_one, hard, factors, &mut row);
    row
}

impl Row {
    /// Writes the gradient.
    #[inline(always)]
    pub(super) fn write<const FMA: bool>(&self, scratch: &Scratch, gradient: &mut [impl Slot]) {
        let gradient = &mut gradient[..self.width];
        let (own, other) = (&scratch.student[..self.width], &scratch.other[..self.width]);
        let blocks = own.chunks(BLOCK).zip(other.chunks(BLOCK)).zip(&scratch.factors).zip(gradient.chunks_mut(BLOCK));
        if self.with_hard {
            let hard = scratch.hard[..self.width].chunks(BLOCK);
            for ((((own, other), by), gradient), hard) in blocks.zip(hard) {
                for (((slot, own), other), hard) in gradient.iter_mut().zip(own).zip(other).zip(hard) {
                    slot.put(fma::<FMA>(*own, by.student, fma::<FMA>(*other, by.other, *hard * by.hard)));
                }
            }
        } else {
            for (((own, other), by), gradient) in blocks {
                for ((slot, own), other) in gradient.iter_mut().zip(own).zip(other) {
                    slot.put(fma::<FMA>(*own, by.student, *other * by.other));
                }
            }
        }
        if let Some((class, more)) = self.single {
            let by = scratch.factors[class / BLOCK];
            let hard = if self.with_hard { scratch.hard[class] * by.hard } else { 0.0 };
            gradient[class].put(scratch.student[class] * by.student + scratch.other[class] * by.other + hard + more);
        }
    }
}

/// Where an element of the gradient is written: memory that may hold nothing yet.
pub(super) trait Slot {
    fn put(&mut self, value: f32);
}

impl Slot for f32 {
    #[inline(always)]
    fn put(&mut self, value: f32) {
        *self = value;
    }
}

impl Slot for std::mem::MaybeUninit<f32> {
    #[inline(always)]
    fn put(&mut self, value: f32) {
        self.write(value);
    }
}

pub(super) fn grow(buffer: &mut Vec<f32>, width: usize) {
    if buffer.len() < width {
        buffer.resize(width, 0.0);
    }
}
