//! The first pass: exponentials relative to the largest logit so far.

use super::{
    lanes::{BLOCK, FLOOR, LANES, Piece, extent, largest, pieces_of_two, shifted, total},
    math::{exp, fma},
    row::Factors,
};

/// Maxima and sums of exponentials of a row.
pub(super) struct Softmax {
    pub(super) max: [f32; 2],
    pub(super) sum: [f64; 2],
    /// `Σ exp(x_t) (x_t - x_s)`
    pub(super) cross: f64,
    low: [f32; 2],
    inverse: f32,
}

impl Softmax {
    pub(super) fn log_sum(&self) -> [f64; 2] {
        self.sum.map(f64::ln)
    }

    /// Whether exponentials down to these logits, relative to the maxima so far, are normal numbers.
    fn near(&self, low: [f32; 2]) -> bool {
        [0, 1].into_iter().all(|side| (self.max[side] - low[side]) * self.inverse < 86.0)
    }

    /// [`Softmax::near`] of the whole row.
    pub(super) fn row_is_near(&self) -> bool {
        self.near(self.low)
    }

    /// Moves the maxima up.
    fn raise(&mut self, max: [f32; 2]) {
        let max = [self.max[0].max(max[0]), self.max[1].max(max[1])];
        if max == self.max {
            return;
        }
        let [by_student, by_teacher] = [0, 1].map(|side| {
            let by = f64::from((self.max[side] - max[side]) * self.inverse);
            if by.is_finite() { by } else { f64::from(FLOOR) }
        });
        self.cross = by_teacher.exp() * (self.cross + self.sum[1] * (by_teacher - by_student));
        self.sum[0] *= by_student.exp();
        self.sum[1] *= by_teacher.exp();
        self.max = max;
    }
}

/// `exp((x - max) / T)` of both sides, and the logarithms' shift of each block in `factors`: what its exponentials are
/// multiplied by to be relative to the row's maximum.
#[inline(always)]
pub(super) fn exponentials<const FMA: bool>(
    student: &[f32],
    teacher: &[f32],
    inverse: f32,
    own: &mut [f32],
    other: &mut [f32],
    factors: &mut Vec<Factors>,
) -> Softmax {
    let mut softmax = Softmax { max: [FLOOR; 2], sum: [0.0; 2], cross: 0.0, low: [f32::INFINITY; 2], inverse };
    factors.clear();
    let blocks = student.chunks(BLOCK).zip(teacher.chunks(BLOCK));
    let outputs = own.chunks_mut(BLOCK).zip(other.chunks_mut(BLOCK));
    for ((student, teacher), (own, other)) in blocks.zip(outputs) {
        let ([low_student, high_student], [low_teacher, high_teacher]) = (extent(student), extent(teacher));
        softmax.raise([high_student, high_teacher]);
        softmax.low = [softmax.low[0].min(low_student), softmax.low[1].min(low_teacher)];
        let whole = if softmax.near([low_student, low_teacher]) { student.len() - student.len() % LANES } else { 0 };
        let (max, sums) = (softmax.max, [[0.0; LANES]; 3]);
        let mut near = Exponentials::<FMA, true> { max, inverse, sums };
        pieces_of_two(&student[..whole], &teacher[..whole], &mut own[..whole], &mut other[..whole], &mut near);
        let mut rest = Exponentials::<FMA, false> { max, inverse, sums: near.sums };
        pieces_of_two(&student[whole..], &teacher[whole..], &mut own[whole..], &mut other[whole..], &mut rest);
        let [of_student, of_teacher, cross] = rest.sums.map(total);
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

struct Exponentials<const FMA: bool, const NEAR: bool> {
    max: [f32; 2],
    inverse: f32,
    sums: [[f32; LANES]; 3],
}

impl<const FMA: bool, const NEAR: bool> Piece for Exponentials<FMA, NEAR> {
    #[inline(always)]
    fn of(&mut self, student: &[f32; LANES], teacher: &[f32; LANES], own: &mut [f32; LANES], other: &mut [f32; LANES]) {
        for lane in 0..LANES {
            let x_student = shifted::<NEAR>(student[lane], self.max[0], self.inverse);
            let x_teacher = shifted::<NEAR>(teacher[lane], self.max[1], self.inverse);
            own[lane] = exp::<FMA, NEAR>(x_student);
            other[lane] = exp::<FMA, NEAR>(x_teacher);
            self.sums[0][lane] += own[lane];
            self.sums[1][lane] += other[lane];
            self.sums[2][lane] = fma::<FMA>(other[lane], x_teacher - x_student, self.sums[2][lane]);
        }
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
pub(super) fn shifted_exponentials<const FMA: bool>(block: &[f32], max: f32, inverse: f32, output: &mut [f32]) -> f64 {
    let mut sums = [0f32; LANES];
    let (pieces, rest) = block.as_chunks::<LANES>();
    let (output_pieces, output_rest) = output.as_chunks_mut::<LANES>();
    for (x, output) in pieces.iter().zip(output_pieces) {
        for lane in 0..LANES {
            output[lane] = exp::<FMA, false>(shifted::<false>(x[lane], max, inverse));
            sums[lane] += output[lane];
        }
    }
    for (lane, (x, output)) in rest.iter().zip(output_rest).enumerate() {
        *output = exp::<FMA, false>(shifted::<false>(*x, max, inverse));
        sums[lane] += *output;
    }
    total(sums)
}
