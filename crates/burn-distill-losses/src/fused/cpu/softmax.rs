//! The first pass: exponentials of a row relative to a reference that rises with its logits.

use super::{
    lanes::{BLOCK, FLOOR, LANES, Piece, extent, largest, pieces_of_two, shifted, total},
    math::{exp, fma},
};

/// How far above the reference a logit may be, in units of the temperature, before the reference is raised: the larger
/// the number, the coarser it is in f32.
const SLACK: f32 = 4.0;
/// Below the reference by more than this, exponentials are hardly normal numbers.
const TINY: f32 = -86.0;

/// Sums of exponentials of a row.
pub(super) struct Softmax {
    /// What the exponentials are relative to: the largest logit, or one near to it.
    pub(super) reference: [f32; 2],
    pub(super) sum: [f64; 2],
    /// `Σ exp(x_t) (x_t - x_s)`, or with `REVERSE` `Σ exp(x_s) (x_s - x_t)`.
    pub(super) cross: f64,
    /// The lowest `(logit - reference) / T` of both sides, or below it.
    low: f32,
    inverse: f32,
}

impl Softmax {
    pub(super) fn log_sum(&self) -> [f64; 2] {
        self.sum.map(f64::ln)
    }

    /// Whether no exponential of the row is tiny.
    pub(super) fn is_near(&self) -> bool {
        self.low > TINY
    }

    /// Whether all classes have a logit.
    pub(super) fn is_whole(&self) -> bool {
        self.low > 0.5 * FLOOR
    }

    /// By how much the logits of a block are shifted, in units of the temperature.
    pub(super) fn shifts(&self, block: [f32; 2]) -> [f64; 2] {
        [0, 1].map(|side| f64::from((block[side] - self.reference[side]) * self.inverse))
    }

    /// What the exponentials of a block are multiplied by to be probabilities.
    pub(super) fn normalisers(&self, block: [f32; 2]) -> [f64; 2] {
        let shifts = self.shifts(block);
        [0, 1].map(|side| shifts[side].exp() / self.sum[side])
    }

    /// Moves the references up to these logits.
    fn raise<const REVERSE: bool>(&mut self, logits: [f32; 2]) {
        let reference = [0, 1].map(|side| self.reference[side].max(logits[side]));
        if reference == self.reference {
            return;
        }
        let by = [0, 1].map(|side| {
            let by = f64::from((self.reference[side] - reference[side]) * self.inverse);
            if by.is_finite() { by } else { f64::from(FLOOR) }
        });
        let (of, to) = if REVERSE { (0, 1) } else { (1, 0) };
        self.cross = by[of].exp() * (self.cross + self.sum[of] * (by[of] - by[to]));
        self.sum = [0, 1].map(|side| self.sum[side] * by[side].exp());
        self.low += by[0].min(by[1]) as f32;
        self.reference = reference;
    }

    fn add(&mut self, sums: [[f32; LANES]; 3], low: f32) {
        let [student, teacher, cross] = sums.map(total);
        self.sum[0] += student;
        self.sum[1] += teacher;
        self.cross += cross;
        self.low = self.low.min(low);
    }

    /// Takes a block in at the reference as it is, in one pass; `false` if it does not fit there.
    #[inline(always)]
    fn fits<const FMA: bool, const REVERSE: bool>(
        &mut self,
        student: &[f32],
        teacher: &[f32],
        own: &mut [f32],
        other: &mut [f32],
    ) -> bool {
        if !student.len().is_multiple_of(LANES) || self.reference.contains(&FLOOR) {
            return false;
        }
        let mut guess = Exponentials::<FMA, true, REVERSE>::new(self.reference, self.inverse);
        pieces_of_two(student, teacher, own, other, &mut guess);
        let low = guess.low.into_iter().fold(f32::INFINITY, f32::min);
        let fits = guess.high.into_iter().fold(f32::NEG_INFINITY, f32::max) <= SLACK && low > TINY;
        if fits {
            self.add(guess.sums, low);
        }
        fits
    }

    /// Takes a block in whatever it holds.
    #[inline(always)]
    fn take<const FMA: bool, const REVERSE: bool>(
        &mut self,
        student: &[f32],
        teacher: &[f32],
        own: &mut [f32],
        other: &mut [f32],
    ) {
        let ([low_student, high_student], [low_teacher, high_teacher]) = (extent(student), extent(teacher));
        self.raise::<REVERSE>([high_student, high_teacher]);
        let (reference, inverse) = (self.reference, self.inverse);
        let low_student = shifted::<false>(low_student, reference[0], inverse);
        let low = low_student.min(shifted::<false>(low_teacher, reference[1], inverse));
        // Its own extent would count what fills up the last piece.
        let mut block = Exponentials::<FMA, false, REVERSE>::new(reference, inverse);
        pieces_of_two(student, teacher, own, other, &mut block);
        self.add(block.sums, low);
    }
}

/// Leaves `exp((x - reference) / T)` of the student in `own`, and in `other` that of the teacher, or with `REVERSE` the
/// student's times `x_s - x_t`; `references` are those of the blocks.
#[inline(always)]
pub(super) fn exponentials<const FMA: bool, const REVERSE: bool>(
    student: &[f32],
    teacher: &[f32],
    inverse: f32,
    own: &mut [f32],
    other: &mut [f32],
    references: &mut Vec<[f32; 2]>,
) -> Softmax {
    let mut softmax = Softmax { reference: [FLOOR; 2], sum: [0.0; 2], cross: 0.0, low: f32::INFINITY, inverse };
    references.clear();
    let blocks = student.chunks(BLOCK).zip(teacher.chunks(BLOCK));
    let outputs = own.chunks_mut(BLOCK).zip(other.chunks_mut(BLOCK));
    for ((student, teacher), (own, other)) in blocks.zip(outputs) {
        if !softmax.fits::<FMA, REVERSE>(student, teacher, own, other) {
            softmax.take::<FMA, REVERSE>(student, teacher, own, other);
        }
        references.push(softmax.reference);
    }
    softmax
}

/// The sums of a block, and how low and how high it is; with `NEAR` none of its exponentials is tiny.
struct Exponentials<const FMA: bool, const NEAR: bool, const REVERSE: bool> {
    reference: [f32; 2],
    inverse: f32,
    sums: [[f32; LANES]; 3],
    low: [f32; LANES],
    high: [f32; LANES],
}

impl<const FMA: bool, const NEAR: bool, const REVERSE: bool> Exponentials<FMA, NEAR, REVERSE> {
    #[inline(always)]
    fn new(reference: [f32; 2], inverse: f32) -> Self {
        let (low, high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
        Self { reference, inverse, sums: [[0.0; LANES]; 3], low, high }
    }
}

impl<const FMA: bool, const NEAR: bool, const REVERSE: bool> Piece for Exponentials<FMA, NEAR, REVERSE> {
    #[inline(always)]
    fn of(&mut self, student: &[f32; LANES], teacher: &[f32; LANES], own: &mut [f32; LANES], other: &mut [f32; LANES]) {
        let (low, high) = (&mut self.low, &mut self.high);
        for lane in 0..LANES {
            let x_student = shifted::<NEAR>(student[lane], self.reference[0], self.inverse);
            let x_teacher = shifted::<NEAR>(teacher[lane], self.reference[1], self.inverse);
            for x in [x_student, x_teacher] {
                low[lane] = if x < low[lane] { x } else { low[lane] };
                high[lane] = if x > high[lane] { x } else { high[lane] };
            }
            let (e_student, e_teacher) = (exp::<FMA, NEAR>(x_student), exp::<FMA, NEAR>(x_teacher));
            (own[lane], other[lane]) =
                add::<FMA, REVERSE>(&mut self.sums, lane, [x_student, x_teacher], [e_student, e_teacher]);
        }
    }
}

/// Adds a class to the sums; gives what is kept of it.
#[inline(always)]
fn add<const FMA: bool, const REVERSE: bool>(
    sums: &mut [[f32; LANES]; 3],
    lane: usize,
    [x_student, x_teacher]: [f32; 2],
    [e_student, e_teacher]: [f32; 2],
) -> (f32, f32) {
    sums[0][lane] += e_student;
    sums[1][lane] += e_teacher;
    if REVERSE {
        let weighted = e_student * (x_student - x_teacher);
        sums[2][lane] += weighted;
        (e_student, weighted)
    } else {
        sums[2][lane] = fma::<FMA>(e_teacher, x_teacher - x_student, sums[2][lane]);
        (e_student, e_teacher)
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
