//! Loops over pieces of a row that LLVM turns into vector instructions.

use crate::floor;

/// Columns of a block: two inputs and two outputs of so many fit into the first-level cache.
pub(super) const BLOCK: usize = 2048;
/// Elements that are computed side by side.
pub(super) const LANES: usize = 32;
pub(super) const FLOOR: f32 = floor::FLOOR as f32;

/// A loop body over `LANES` elements. A trait, because a closure could not be told to be inlined, and only what is
/// inlined into a kernel is compiled for its instructions.
pub(super) trait Piece {
    /// To be marked `#[inline(always)]`.
    fn of(&mut self, student: &[f32; LANES], teacher: &[f32; LANES], own: &mut [f32; LANES], other: &mut [f32; LANES]);
}

/// Calls `piece` for pieces of `LANES` elements; the last is filled up with logits of probability 0.
#[inline(always)]
pub(super) fn pieces_of_two(
    student: &[f32],
    teacher: &[f32],
    own: &mut [f32],
    other: &mut [f32],
    piece: &mut impl Piece,
) {
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

/// `(logit - max) / T`, finite: a class without probability is at [`FLOOR`] whatever the temperature, unless the row has
/// no other. NaN stays NaN. With `NEAR` the caller knows that no such class is there.
#[inline(always)]
pub(super) fn shifted<const NEAR: bool>(logit: f32, max: f32, inverse: f32) -> f32 {
    let x = (logit - max) * inverse;
    if NEAR {
        return x;
    }
    let absent = if max < 0.5 * FLOOR { 0.0 } else { FLOOR };
    if logit < 0.5 * FLOOR { absent } else { floored(x) }
}

/// `x`, at least [`FLOOR`]; NaN stays NaN.
#[inline(always)]
pub(super) fn floored(x: f32) -> f32 {
    if x < FLOOR { FLOOR } else { x }
}

#[inline(always)]
pub(super) fn positive(x: f32) -> f32 {
    if x < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { x }
}

/// The smallest and the largest element of a row, NaN left out.
#[inline(always)]
pub(super) fn extent(row: &[f32]) -> [f32; 2] {
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            low[lane] = if chunk[lane] < low[lane] { chunk[lane] } else { low[lane] };
            high[lane] = if chunk[lane] > high[lane] { chunk[lane] } else { high[lane] };
        }
    }
    let low = low.iter().chain(rest).copied().fold(f32::INFINITY, f32::min);
    [low, high.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)]
}

#[inline(always)]
pub(super) fn largest(row: &[f32]) -> f32 {
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
pub(super) fn total(lanes: [f32; LANES]) -> f64 {
    lanes.iter().copied().map(f64::from).sum()
}
