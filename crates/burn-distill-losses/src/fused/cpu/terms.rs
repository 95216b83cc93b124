//! The second pass, for divergences whose terms need the normalised probabilities.

use super::{
    lanes::{BLOCK, FLOOR, LANES, Piece, pieces_of_two, positive, shifted, total},
    math::{fma, ln},
    softmax::Softmax,
};
use crate::fused::spec::Divergence;

/// A row after its first pass.
pub(super) struct Pass<'a> {
    pub(super) student: &'a [f32],
    pub(super) teacher: &'a [f32],
    /// Over how many columns the divergence sums.
    pub(super) terms: usize,
    pub(super) inverse: f32,
    pub(super) softmax: &'a Softmax,
}

impl Pass<'_> {
    /// Replaces the teacher's exponentials by `q h` of a divergence; gives its value and `Σ q h`.
    #[inline(always)]
    pub(super) fn evaluate<const FMA: bool>(
        &self,
        divergence: Divergence,
        own: &mut [f32],
        other: &mut [f32],
        references: &[[f32; 2]],
    ) -> (f64, f64) {
        // A constant in `h` cancels, unless the sum leaves columns out.
        let constant = if self.terms < self.student.len() { 1.0 } else { 0.0 };
        match divergence {
            Divergence::ForwardKl | Divergence::Decoupled { .. } => {
                self.run::<FMA, _>(own, other, references, ForwardKl)
            }
            Divergence::CrossEntropy => self.run::<FMA, _>(own, other, references, CrossEntropy),
            Divergence::ReverseKl { excluded } => {
                self.run::<FMA, _>(own, other, references, ReverseKl { excluded: excluded.ln() as f32, constant })
            }
            Divergence::JensenShannon { beta } => {
                self.run::<FMA, _>(own, other, references, JensenShannon { beta: beta as f32 })
            }
            Divergence::SkewKl { alpha, cross_entropy: false } => {
                self.run::<FMA, _>(own, other, references, SkewKl { alpha: alpha as f32 })
            }
            Divergence::SkewKl { alpha, cross_entropy: true } => {
                self.run::<FMA, _>(own, other, references, SkewCrossEntropy { alpha: alpha as f32 })
            }
            Divergence::SkewReverseKl { alpha } => {
                self.run::<FMA, _>(own, other, references, SkewReverseKl { alpha: alpha as f32, constant })
            }
        }
    }

    #[inline(always)]
    fn run<const FMA: bool, E: Element>(
        &self,
        own: &mut [f32],
        other: &mut [f32],
        references: &[[f32; 2]],
        divergence: E,
    ) -> (f64, f64) {
        let (logs, inverse, reference) = (Logs::new(self.softmax.log_sum()), self.inverse, self.softmax.reference);
        let (mut value, mut mean) = (0f64, 0f64);
        let (student, teacher) = (&self.student[..self.terms], &self.teacher[..self.terms]);
        let blocks = student.chunks(BLOCK).zip(teacher.chunks(BLOCK)).zip(references);
        let outputs = own[..self.terms].chunks_mut(BLOCK).zip(other[..self.terms].chunks_mut(BLOCK));
        for (((student, teacher), block), (own, other)) in blocks.zip(outputs) {
            let by = self.softmax.normalisers(*block).map(|by| by as f32);
            // The last piece is filled up with classes that are not there.
            let whole = if self.softmax.is_near() { student.len() - student.len() % LANES } else { 0 };
            let sums = [[0.0; LANES]; 2];
            let mut near = Terms::<FMA, true, E> { divergence, reference, logs, by, inverse, sums };
            pieces_of_two(&student[..whole], &teacher[..whole], &mut own[..whole], &mut other[..whole], &mut near);
            let mut rest = Terms::<FMA, false, E> { divergence, reference, logs, by, inverse, sums: near.sums };
            pieces_of_two(&student[whole..], &teacher[whole..], &mut own[whole..], &mut other[whole..], &mut rest);
            let [terms, q_h] = rest.sums.map(total);
            value += terms;
            mean += q_h;
        }
        // Columns beyond `terms` (one, the tail of a sparse teacher) belong to the softmax but not to the sum.
        other[self.terms..].fill(0.0);
        (value, mean)
    }
}

/// Logarithms of the sums of exponentials. Their difference is rounded once, in f64: an error there would be one of
/// every class.
#[derive(Clone, Copy)]
struct Logs {
    student: f32,
    difference: f32,
}

impl Logs {
    fn new([student, teacher]: [f64; 2]) -> Self {
        Self { student: student as f32, difference: (student - teacher) as f32 }
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
}

impl Element for SkewKl {
    #[inline(always)]
    fn of<const FMA: bool>(self, Class { p, q, .. }: Class) -> (f32, f32) {
        let own = (1.0 - self.alpha) * q;
        let ratio = p / positive(fma::<FMA>(self.alpha, p, own));
        (p * ln::<FMA>(ratio), -own * ratio)
    }
}

#[derive(Clone, Copy)]
struct SkewCrossEntropy {
    alpha: f32,
}

impl Element for SkewCrossEntropy {
    #[inline(always)]
    fn of<const FMA: bool>(self, Class { p, q, .. }: Class) -> (f32, f32) {
        let own = (1.0 - self.alpha) * q;
        let m = positive(fma::<FMA>(self.alpha, p, own));
        (-p * ln::<FMA>(m), -own * (p / m))
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
        let ratio = q / positive(fma::<FMA>(self.alpha, q, (1.0 - self.alpha) * p));
        let term = q * ln::<FMA>(ratio);
        (term, fma::<FMA>(q, fma::<FMA>(-self.alpha, ratio, self.constant), term))
    }
}

struct Terms<const FMA: bool, const NEAR: bool, E> {
    divergence: E,
    reference: [f32; 2],
    logs: Logs,
    by: [f32; 2],
    inverse: f32,
    sums: [[f32; LANES]; 2],
}

impl<const FMA: bool, const NEAR: bool, E: Element> Piece for Terms<FMA, NEAR, E> {
    #[inline(always)]
    fn of(&mut self, student: &[f32; LANES], teacher: &[f32; LANES], own: &mut [f32; LANES], other: &mut [f32; LANES]) {
        for lane in 0..LANES {
            let (q, p) = (own[lane] * self.by[0], other[lane] * self.by[1]);
            let x_student = shifted::<NEAR>(student[lane], self.reference[0], self.inverse);
            let x_teacher = shifted::<NEAR>(teacher[lane], self.reference[1], self.inverse);
            let class = self.logs.class(p, q, x_student, x_teacher);
            let (term, q_h) = self.divergence.of::<FMA>(class);
            other[lane] = q_h;
            self.sums[0][lane] += term;
            self.sums[1][lane] += q_h;
        }
    }
}
