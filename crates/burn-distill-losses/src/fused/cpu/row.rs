//! One row: its value, and the gradient as a combination of what stays in the cache.
//!
//! A row is read in blocks that fit into the first-level cache. Exponentials are taken relative to a reference that
//! rises where logits are higher, and each block remembers its own, so that student and teacher come from memory only
//! once however long the row is. Sums run in f32 over one block and in f64 over blocks.
//!
//! With `q = softmax(student / T)` every divergence here has the gradient `q (h - Σ q h) / T` for some `h`. What stays in
//! the cache is the student's exponentials and something proportional to `q h`, block by block, so that writing the
//! gradient is one linear combination of the two. The forward and the reverse KL have both after the first pass, the
//! others after a second.

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
    /// What the exponentials of each block are relative to.
    references: Vec<[f32; 2]>,
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
    let Scratch { student: own, other, hard, references, factors, masked } = scratch;
    let (own, other) = (&mut own[..width], &mut other[..width]);
    let mut row = Row { value: 0.0, width, with_hard: false, single: None };
    let combine = |factors: &mut Vec<Factors>, references: &[[f32; 2]], of: &dyn Fn([f32; 2]) -> [f64; 2]| {
        factors.clear();
        factors.extend(references.iter().map(|block| {
            let [student, other] = of(*block).map(|factor| factor as f32);
            Factors { student, other, hard: 0.0 }
        }));
    };

    if let Divergence::Decoupled { alpha, beta } = spec.divergence {
        let [student_others, teacher_others] = masked;
        for (others, logits) in [(&mut *student_others, student), (&mut *teacher_others, teacher)] {
            others.clear();
            others.extend_from_slice(logits);
            if let Some(target) = target {
                others[target] = f32::NEG_INFINITY;
            }
        }
        let softmax = exponentials::<FMA, false>(student_others, teacher_others, inverse, own, other, references);
        let parts = decoupled(&softmax, student, teacher, target, inverse, alpha, beta);
        combine(factors, references, &|block| {
            let [student, other] = softmax.normalisers(block);
            [scale * parts.student * student, -scale * parts.teacher * other]
        });
        row.value = spec.soft * parts.value;
        row.single = target.map(|target| (target, (scale * parts.target) as f32));
        add_hard::<FMA>(spec, student, target, weight, None, hard, references, factors, &mut row);
        return row;
    }

    if let (Divergence::ReverseKl { .. }, true) = (spec.divergence, terms == width) {
        let softmax = exponentials::<FMA, true>(student, teacher, inverse, own, other, references);
        if softmax.is_whole() {
            let (mean, [of_student, of_teacher]) = (softmax.cross / softmax.sum[0], softmax.log_sum());
            combine(factors, references, &|block| {
                let ([normaliser, _], [student, teacher]) = (softmax.normalisers(block), softmax.shifts(block));
                [scale * normaliser * (student - teacher - mean), scale * normaliser]
            });
            row.value = spec.soft * (mean - of_student + of_teacher);
            let at_one = (spec.temperature == 1.0).then_some(&softmax);
            add_hard::<FMA>(spec, student, target, weight, at_one, hard, references, factors, &mut row);
            return row;
        }
    }

    let softmax = exponentials::<FMA, false>(student, teacher, inverse, own, other, references);
    let value = if let (Divergence::ForwardKl, true) = (spec.divergence, terms == width) {
        let [of_student, of_teacher] = softmax.log_sum();
        combine(factors, references, &|block| {
            let [student, teacher] = softmax.normalisers(block);
            [scale * student, -scale * teacher]
        });
        softmax.cross / softmax.sum[1] - of_teacher + of_student
    } else {
        let pass = Pass { student, teacher, terms, inverse, softmax: &softmax };
        let (value, mean) = pass.evaluate::<FMA>(spec.divergence, own, other, references);
        combine(factors, references, &|block| [-scale * mean * softmax.normalisers(block)[0], scale]);
        value
    };
    row.value = spec.soft * value;
    let at_one = (spec.temperature == 1.0).then_some(&softmax);
    add_hard::<FMA>(spec, student, target, weight, at_one, hard, references, factors, &mut row);
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
