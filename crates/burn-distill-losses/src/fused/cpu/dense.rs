//! Dense teachers.

use super::{
    inputs::Inputs,
    row::{Slot, grow},
    rows::{Half, Rows},
};

/// Weighted values of the rows.
pub(super) fn values(inputs: &Inputs<'_>, student: &Rows<'_>, teacher: &Rows<'_>) -> Vec<f32> {
    inputs.each(vec![(); inputs.rows], |row, (), local| inputs.row(row, student, teacher, local).value)
}

/// The values, and in `gradient` that of their sum: every element is written.
pub(super) fn gradient<S: Slot + Send>(
    inputs: &Inputs<'_>,
    student: &Rows<'_>,
    teacher: &Rows<'_>,
    gradient: &mut [S],
) -> Vec<f32> {
    inputs.each(gradient.chunks_mut(student.width().max(1)).collect(), |row, gradient, local| {
        let done = inputs.row(row, student, teacher, local);
        inputs.write(&done, &local.rest.scratch, gradient);
        done.value
    })
}

/// [`gradient`] over the teacher's logits, which are as wide as the student's.
pub(super) fn gradient_over(inputs: &Inputs<'_>, student: &Rows<'_>, teacher: &mut [f32]) -> Vec<f32> {
    inputs.each(teacher.chunks_mut(student.width().max(1)).collect(), |row, gradient, local| {
        let teacher = Rows::one(gradient);
        let done = inputs.row_of(row, student.row(row, &mut local.student), &teacher, 0, &mut local.rest);
        inputs.write(&done, &local.rest.scratch, gradient);
        done.value
    })
}

/// [`gradient`] in half precision.
pub(super) fn half_gradient<H: Half>(
    inputs: &Inputs<'_>,
    student: &Rows<'_>,
    teacher: &Rows<'_>,
    gradient: &mut [H],
) -> Vec<f32> {
    let width = student.width();
    inputs.each(gradient.chunks_mut(width.max(1)).collect(), |row, gradient, local| {
        let done = inputs.row(row, student, teacher, local);
        grow(&mut local.gradient, width);
        inputs.write(&done, &local.rest.scratch, &mut local.gradient[..width]);
        H::narrow(&local.gradient[..width], gradient);
        done.value
    })
}
