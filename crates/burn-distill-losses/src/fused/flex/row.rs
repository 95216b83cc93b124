//! One row: its value, and the gradient as a combination of what stays in the cache.
//!
//! A row is read in blocks that fit into the first-level cache. Exponentials are taken relative to the largest logit
//! seen so far, and each block remembers which that was, so that student and teacher come from memory only once however
//! long the row is. Sums run in f32 over one block and in f64 over blocks.
//!
//! With `q = softmax(student / T)` every divergence here has the gradient `q (h - Σ q h) / T` for some `h`, so the
//! second pass leaves `q` and `q h`, and writing the gradient is one linear combination of the two.

use super::math::{exp, fma, ln};
use crate::{
    floor,
    fused::spec::{Divergence, Spec},
};

const BLOCK: usize = 2048;
const LANES: usize = 32;
const FLOOR: f32 = floor::FLOOR as f32;

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

#[derive(Clone, Copy, Default)]
struct Factors {
    student: f32,
    other: f32,
    hard: f32,
}

/// What remains to be done after the value of a row is known.
pub(super) struct Row {
    pub(super) value: f64,
    width: usize,
    with_hard: bool,
    /// A class whose gradient is larger by so much.
    single: Option<(usize, f32)>,
}

/// Maxima and sums of exponentials of a row.
struct Softmax {
    max: [f32; 2],
    sum: [f64; 2],
    /// `Σ exp(x_t) (x_t - x_s)`
    cross: f64,
}

impl Softmax {
    fn log_sum(&self) -> [f64; 2] {
        self.sum.map(f64::ln)
    }

    /// Moves the maxima up.
    fn raise(&mut self, max: [f32; 2], inverse: f32) {
        let max = [self.max[0].max(max[0]), self.max[1].max(max[1])];
        if max == self.max {
            return;
        }
        let [by_student, by_teacher] = [0, 1].map(|side| {
            let by = f64::from((self.max[side] - max[side]) * inverse);
            if by.is_finite() { by } else { f64::from(FLOOR) }
        });
        self.cross = by_teacher.exp() * (self.cross + self.sum[1] * (by_teacher - by_student));
        self.sum[0] *= by_student.exp();
        self.sum[1] *= by_teacher.exp();
        self.max = max;
    }
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
        // A constant in `h` cancels, unless the sum leaves columns out.
        let constant = if terms < width { 1.0 } else { 0.0 };
        let pass = Pass { student, teacher, terms, inverse, max: softmax.max, sum: softmax.sum };
        let (value, mean) = match spec.divergence {
            Divergence::ForwardKl => pass.run::<FMA, _>(own, other, factors, ForwardKl),
            Divergence::CrossEntropy => pass.run::<FMA, _>(own, other, factors, CrossEntropy),
            Divergence::ReverseKl { excluded } => {
                let excluded = excluded.ln() as f32;
                pass.run::<FMA, _>(own, other, factors, ReverseKl { excluded, constant })
            }
            Divergence::JensenShannon { beta } => {
                let beta = beta as f32;
                pass.run::<FMA, _>(own, other, factors, JensenShannon { beta })
            }
            Divergence::SkewKl { alpha, cross_entropy } => {
                let skew = SkewKl { alpha: alpha as f32, cross_entropy };
                pass.run::<FMA, _>(own, other, factors, skew)
            }
            Divergence::SkewReverseKl { alpha } => {
                pass.run::<FMA, _>(own, other, factors, SkewReverseKl { alpha: alpha as f32, constant })
            }
            Divergence::Decoupled { .. } => unreachable!("returned above"),
        };
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

/// `exp((x - max) / T)` of both sides, and the logarithms' shift of each block in `factors`: what its exponentials are
/// multiplied by to be relative to the row's maximum.
#[inline(always)]
fn exponentials<const FMA: bool>(
    student: &[f32],
    teacher: &[f32],
    inverse: f32,
    own: &mut [f32],
    other: &mut [f32],
    factors: &mut Vec<Factors>,
) -> Softmax {
    let mut softmax = Softmax { max: [FLOOR; 2], sum: [0.0; 2], cross: 0.0 };
    factors.clear();
    let blocks = student.chunks(BLOCK).zip(teacher.chunks(BLOCK));
    let outputs = own.chunks_mut(BLOCK).zip(other.chunks_mut(BLOCK));
    for ((student, teacher), (own, other)) in blocks.zip(outputs) {
        softmax.raise([largest(student), largest(teacher)], inverse);
        let mut piece = Exponentials::<FMA> { max: softmax.max, inverse, sums: [[0.0; LANES]; 3] };
        pieces_of_two(student, teacher, own, other, &mut piece);
        let [of_student, of_teacher, cross] = piece.sums.map(total);
        softmax.sum[0] += of_student;
        softmax.sum[1] += of_teacher;
        softmax.cross += cross;
        factors.push(Factors { student: softmax.max[0], other: softmax.max[1], hard: 0.0 });
    }
    for block in factors.iter_mut() {
        block.student = ((block.student - softmax.max[0]) * inverse).exp();
        block.other = ((block.other - softmax.max[1]) * inverse).exp();
    }
    softmax
}

/// The second pass, for divergences whose terms need the normalised probabilities.
struct Pass<'a> {
    student: &'a [f32],
    teacher: &'a [f32],
    terms: usize,
    inverse: f32,
    max: [f32; 2],
    sum: [f64; 2],
}

impl Pass<'_> {
    /// Replaces the exponentials by `q` and `q h`; gives the value and `Σ q h`.
    #[inline(always)]
    fn run<const FMA: bool, E: Element>(
        &self,
        own: &mut [f32],
        other: &mut [f32],
        factors: &[Factors],
        divergence: E,
    ) -> (f64, f64) {
        let logs = Logs::new(self.sum);
        let [max_student, max_teacher] = self.max;
        let inverse = self.inverse;
        let (mut value, mut mean) = (0f64, 0f64);
        let blocks = self.student.chunks(BLOCK).zip(self.teacher.chunks(BLOCK)).zip(factors);
        let outputs = own.chunks_mut(BLOCK).zip(other.chunks_mut(BLOCK));
        for (((student, teacher), factors), (own, other)) in blocks.zip(outputs) {
            let mut piece = Terms::<FMA, E> {
                divergence,
                max: self.max,
                logs,
                by: [
                    (f64::from(factors.student) / self.sum[0]) as f32,
                    (f64::from(factors.other) / self.sum[1]) as f32,
                ],
                inverse,
                sums: [[0.0; LANES]; 2],
            };
            pieces_of_two(student, teacher, own, other, &mut piece);
            let [terms, q_h] = piece.sums.map(total);
            value += terms;
            mean += q_h;
        }
        // Columns beyond `terms` (one, the tail of a sparse teacher) belong to the softmax but not to the sum.
        for column in self.terms..self.student.len() {
            let x_student = shifted(self.student[column], max_student, inverse);
            let x_teacher = shifted(self.teacher[column], max_teacher, inverse);
            let p = (x_teacher - logs.teacher).exp();
            let (term, q_h) = divergence.of::<FMA>(logs.class(p, own[column], x_student, x_teacher));
            value -= f64::from(term);
            mean -= f64::from(q_h);
            other[column] = 0.0;
        }
        (value, mean)
    }
}

/// Logarithms of the sums of exponentials. Their difference is rounded once, in f64: an error there would be one of
/// every class.
#[derive(Clone, Copy)]
struct Logs {
    student: f32,
    teacher: f32,
    difference: f32,
}

impl Logs {
    fn new(sum: [f64; 2]) -> Self {
        let [student, teacher] = sum.map(f64::ln);
        Self { student: student as f32, teacher: teacher as f32, difference: (student - teacher) as f32 }
    }

    #[inline(always)]
    fn class(self, p: f32, q: f32, x_student: f32, x_teacher: f32) -> Class {
        let log_ratio = (x_student - x_teacher) - self.difference;
        Class { p, q, log_q: x_student - self.student, no_p: x_teacher < 0.5 * FLOOR, log_ratio }
    }
}

/// What is known of a class: the teacher's and the student's probability, `ln q`, whether `p` is exactly 0, and
/// `ln (q / p)`.
#[derive(Clone, Copy)]
struct Class {
    p: f32,
    q: f32,
    log_q: f32,
    no_p: bool,
    log_ratio: f32,
}

/// A class's term of the divergence, and `q h` of its gradient.
trait Element: Copy {
    /// To be marked `#[inline(always)]`.
    fn of<const FMA: bool>(self, class: Class) -> (f32, f32);
}

#[derive(Clone, Copy)]
struct ForwardKl;

impl Element for ForwardKl {
    #[inline(always)]
    fn of<const FMA: bool>(self, Class { p, log_ratio, .. }: Class) -> (f32, f32) {
        (-p * log_ratio, -p)
    }
}

#[derive(Clone, Copy)]
struct CrossEntropy;

impl Element for CrossEntropy {
    #[inline(always)]
    fn of<const FMA: bool>(self, Class { p, log_q, .. }: Class) -> (f32, f32) {
        (-p * log_q, -p)
    }
}

#[derive(Clone, Copy)]
struct ReverseKl {
    excluded: f32,
    constant: f32,
}

impl Element for ReverseKl {
    #[inline(always)]
    fn of<const FMA: bool>(self, Class { q, log_q, no_p, log_ratio, .. }: Class) -> (f32, f32) {
        let term = q * if no_p { log_q - self.excluded } else { log_ratio };
        (term, fma::<FMA>(q, self.constant, term))
    }
}

#[derive(Clone, Copy)]
struct JensenShannon {
    beta: f32,
}

impl Element for JensenShannon {
    #[inline(always)]
    fn of<const FMA: bool>(self, Class { p, q, log_ratio, .. }: Class) -> (f32, f32) {
        let (its, own) = (self.beta * p, (1.0 - self.beta) * q);
        // The mixture relative to the larger of the two, whose logarithm is small.
        let student_is_larger = log_ratio > 0.0;
        let larger = if student_is_larger { q } else { p };
        let log_m = ln::<FMA>((its + own) / positive(larger));
        let (of_p, of_q) = if student_is_larger { (-log_ratio - log_m, -log_m) } else { (-log_m, log_ratio - log_m) };
        let of_student = own * of_q;
        (fma::<FMA>(its, of_p, of_student), of_student)
    }
}

#[derive(Clone, Copy)]
struct SkewKl {
    alpha: f32,
    cross_entropy: bool,
}

impl Element for SkewKl {
    #[inline(always)]
    fn of<const FMA: bool>(self, Class { p, q, .. }: Class) -> (f32, f32) {
        let own = (1.0 - self.alpha) * q;
        let m = fma::<FMA>(self.alpha, p, own);
        let relative_to = if self.cross_entropy { 1.0 } else { positive(p) };
        (-p * ln::<FMA>(m / relative_to), -(own / positive(m)) * p)
    }
}

#[derive(Clone, Copy)]
struct SkewReverseKl {
    alpha: f32,
    constant: f32,
}

impl Element for SkewReverseKl {
    #[inline(always)]
    fn of<const FMA: bool>(self, Class { p, q, .. }: Class) -> (f32, f32) {
        let own = self.alpha * q;
        let m = fma::<FMA>(1.0 - self.alpha, p, own);
        let term = -q * ln::<FMA>(m / positive(q));
        (term, fma::<FMA>(q, self.constant - own / positive(m), term))
    }
}

/// DKD: the value, the target's gradient, and the factors of the other classes'.
#[expect(clippy::too_many_arguments, reason = "what the row knows")]
fn decoupled(
    softmax: &Softmax,
    student: &[f32],
    teacher: &[f32],
    target: Option<usize>,
    inverse: f32,
    alpha: f64,
    beta: f64,
    scale: f64,
    factors: &mut [Factors],
) -> (f64, Option<(usize, f32)>) {
    let log_sum = softmax.log_sum();
    let others = [0, 1].map(|side| f64::from(softmax.max[side]) * f64::from(inverse) + log_sum[side]);
    // Is it the target or not: `ln p_t` and `ln (1 - p_t)` of both sides.
    let [own, its] = [(student, 0), (teacher, 1)].map(|(logits, side)| {
        let at_target = match target {
            Some(target) => f64::from(floored(floored(logits[target]) * inverse)),
            None => f64::from(FLOOR),
        };
        let odds = at_target - others[side];
        (-(-odds).max(0.0) - (-odds.abs()).exp().ln_1p(), -odds.max(0.0) - (-odds.abs()).exp().ln_1p())
    });
    let (p_target, p_others) = (its.0.exp(), its.1.exp());
    let difference = own.0.exp() - p_target;
    let term = |p: f64, log_p: f64, log_q: f64| if p == 0.0 { 0.0 } else { p * (log_p - log_q) };
    let of_target = term(p_target, its.0, own.0) + term(p_others, its.1, own.1);
    // A teacher that is sure of the target says nothing of the others.
    let beta = if softmax.max[1] < 0.5 * FLOOR { 0.0 } else { beta };
    let among_others = softmax.cross / softmax.sum[1] - log_sum[1] + log_sum[0];
    for block in factors.iter_mut() {
        block.student = (f64::from(block.student) * scale * (beta - alpha * difference) / softmax.sum[0]) as f32;
        block.other = (f64::from(block.other) * -scale * beta / softmax.sum[1]) as f32;
    }
    let value = alpha * of_target + if beta == 0.0 { 0.0 } else { beta * among_others };
    (value, target.map(|target| (target, (scale * alpha * difference) as f32)))
}

/// Adds `hard` times the cross-entropy of the target to a row; at temperature 1 from the exponentials that are there.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "what the row knows")]
fn add_hard<const FMA: bool>(
    spec: &Spec,
    student: &[f32],
    target: Option<usize>,
    weight: f64,
    at_one: Option<(&Softmax, f64, bool)>,
    hard: &mut Vec<f32>,
    factors: &mut [Factors],
    row: &mut Row,
) {
    let Some(target) = target.filter(|_| spec.hard != 0.0) else {
        return;
    };
    let scale = weight * spec.hard;
    let (max, sum) = match at_one {
        Some((softmax, soft, normalised)) => {
            for block in factors.iter_mut() {
                // Without normalisation the factor is `soft / sum` times the block's shift.
                let more = if normalised { 1.0 } else { f64::from(block.student) / soft };
                block.student += (scale * more) as f32;
            }
            (softmax.max[0], softmax.sum[0])
        }
        None => {
            grow(hard, student.len());
            row.with_hard = true;
            hard_exponentials::<FMA>(student, &mut hard[..student.len()], scale, factors)
        }
    };
    row.value += spec.hard * (sum.ln() + f64::from(max) - f64::from(floored(student[target])));
    let so_far = row.single.map_or(0.0, |(_, more)| more);
    row.single = Some((target, so_far - scale as f32));
}

#[inline(always)]
fn hard_exponentials<const FMA: bool>(
    student: &[f32],
    hard: &mut [f32],
    scale: f64,
    factors: &mut [Factors],
) -> (f32, f64) {
    let (mut max, mut sum) = (FLOOR, 0f64);
    for ((student, hard), factors) in student.chunks(BLOCK).zip(hard.chunks_mut(BLOCK)).zip(factors.iter_mut()) {
        let higher = max.max(largest(student));
        sum *= f64::from(max - higher).exp();
        max = higher;
        sum += shifted_exponentials::<FMA>(student, max, 1.0, hard);
        factors.hard = max;
    }
    for block in factors {
        block.hard = (f64::from(block.hard - max).exp() * scale / sum) as f32;
    }
    (max, sum)
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

/// `exp((x - max) / T)` of one row, the maximum and the sum: what the tail of a sparse teacher needs of the student.
#[inline(always)]
pub(super) fn tail_exponentials<const FMA: bool>(row: &[f32], inverse: f32, output: &mut [f32]) -> (f32, f64) {
    let max = row.chunks(BLOCK).map(largest).fold(FLOOR, f32::max);
    let mut sum = 0f64;
    for (row, output) in row.chunks(BLOCK).zip(output.chunks_mut(BLOCK)) {
        sum += shifted_exponentials::<FMA>(row, max, inverse, output);
    }
    (max, sum)
}

/// `exp((x - max) / T)` of a block; gives their sum.
#[inline(always)]
fn shifted_exponentials<const FMA: bool>(block: &[f32], max: f32, inverse: f32, output: &mut [f32]) -> f64 {
    let mut sums = [0f32; LANES];
    let (pieces, rest) = block.as_chunks::<LANES>();
    let (output_pieces, output_rest) = output.as_chunks_mut::<LANES>();
    for (x, output) in pieces.iter().zip(output_pieces) {
        for lane in 0..LANES {
            output[lane] = exp::<FMA>(shifted(x[lane], max, inverse));
            sums[lane] += output[lane];
        }
    }
    for (lane, (x, output)) in rest.iter().zip(output_rest).enumerate() {
        *output = exp::<FMA>(shifted(*x, max, inverse));
        sums[lane] += *output;
    }
    total(sums)
}

/// A loop body over `LANES` elements. A trait, because a closure could not be told to be inlined, and only what is
/// inlined into a kernel is compiled for its instructions.
trait Piece {
    /// To be marked `#[inline(always)]`.
    fn of(&mut self, student: &[f32; LANES], teacher: &[f32; LANES], own: &mut [f32; LANES], other: &mut [f32; LANES]);
}

/// Calls `piece` for pieces of `LANES` elements; the last is filled up with logits of probability 0.
#[inline(always)]
fn pieces_of_two(student: &[f32], teacher: &[f32], own: &mut [f32], other: &mut [f32], piece: &mut impl Piece) {
    let (students, student_rest) = student.as_chunks::<LANES>();
    let (teachers, teacher_rest) = teacher.as_chunks::<LANES>();
    let (owns, own_rest) = own.as_chunks_mut::<LANES>();
    let (others, other_rest) = other.as_chunks_mut::<LANES>();
    for (((student, teacher), own), other) in students.iter().zip(teachers).zip(owns).zip(others) {
        piece.of(student, teacher, own, other);
    }
    let left = student_rest.len();
    if left > 0 {
        let mut inputs = [[f32::NEG_INFINITY; LANES]; 2];
        let mut outputs = [[0.0; LANES]; 2];
        inputs[0][..left].copy_from_slice(student_rest);
        inputs[1][..left].copy_from_slice(teacher_rest);
        outputs[0][..left].copy_from_slice(own_rest);
        outputs[1][..left].copy_from_slice(other_rest);
        let [own, other] = &mut outputs;
        piece.of(&inputs[0], &inputs[1], own, other);
        own_rest.copy_from_slice(&own[..left]);
        other_rest.copy_from_slice(&other[..left]);
    }
}

struct Exponentials<const FMA: bool> {
    max: [f32; 2],
    inverse: f32,
    sums: [[f32; LANES]; 3],
}

impl<const FMA: bool> Piece for Exponentials<FMA> {
    #[inline(always)]
    fn of(&mut self, student: &[f32; LANES], teacher: &[f32; LANES], own: &mut [f32; LANES], other: &mut [f32; LANES]) {
        for lane in 0..LANES {
            let x_student = shifted(student[lane], self.max[0], self.inverse);
            let x_teacher = shifted(teacher[lane], self.max[1], self.inverse);
            own[lane] = exp::<FMA>(x_student);
            other[lane] = exp::<FMA>(x_teacher);
            self.sums[0][lane] += own[lane];
            self.sums[1][lane] += other[lane];
            self.sums[2][lane] = fma::<FMA>(other[lane], x_teacher - x_student, self.sums[2][lane]);
        }
    }
}

struct Terms<const FMA: bool, E> {
    divergence: E,
    max: [f32; 2],
    logs: Logs,
    by: [f32; 2],
    inverse: f32,
    sums: [[f32; LANES]; 2],
}

impl<const FMA: bool, E: Element> Piece for Terms<FMA, E> {
    #[inline(always)]
    fn of(&mut self, student: &[f32; LANES], teacher: &[f32; LANES], own: &mut [f32; LANES], other: &mut [f32; LANES]) {
        for lane in 0..LANES {
            let (q, p) = (own[lane] * self.by[0], other[lane] * self.by[1]);
            let x_student = shifted(student[lane], self.max[0], self.inverse);
            let x_teacher = shifted(teacher[lane], self.max[1], self.inverse);
            let class = self.logs.class(p, q, x_student, x_teacher);
            let (term, q_h) = self.divergence.of::<FMA>(class);
            own[lane] = q;
            other[lane] = q_h;
            self.sums[0][lane] += term;
            self.sums[1][lane] += q_h;
        }
    }
}

pub(super) fn grow(buffer: &mut Vec<f32>, width: usize) {
    if buffer.len() < width {
        buffer.resize(width, 0.0);
    }
}

/// `(logit - max) / T`, finite: a class without probability is at [`FLOOR`] whatever the temperature, unless the row has
/// no other. NaN stays NaN.
#[inline(always)]
fn shifted(logit: f32, max: f32, inverse: f32) -> f32 {
    let absent = if max < 0.5 * FLOOR { 0.0 } else { FLOOR };
    if logit < 0.5 * FLOOR { absent } else { floored((logit - max) * inverse) }
}

/// `x`, at least [`FLOOR`]; NaN stays NaN.
#[inline(always)]
fn floored(x: f32) -> f32 {
    if x < FLOOR { FLOOR } else { x }
}

#[inline(always)]
fn positive(x: f32) -> f32 {
    if x < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { x }
}

#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

#[inline(always)]
fn total(lanes: [f32; LANES]) -> f64 {
    lanes.iter().copied().map(f64::from).sum()
}
