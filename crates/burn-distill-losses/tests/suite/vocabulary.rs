//! Numbers of classes that differ, for every loss with a teacher.

use burn::tensor::Tensor;
use burn_distill_dev::{bits_repeat, device, tolerance};
use burn_distill_losses::{KdLossConfig, Mask, SparseLogits, Tail, TeacherLogits, VocabularyPolicy};

use crate::{
    inputs::{assert_close, gradient, number, random, targets, values},
    table::{LogitLoss, Logits, each_logit_loss, with},
};

/// Nothing, where the same computation gives the same bits.
fn exactly() -> f64 {
    if bits_repeat() { 0.0 } else { tolerance() }
}

/// Rows of a loss under a policy; targets are classes that both sides have.
fn rows(
    loss: &LogitLoss,
    settings: &serde_json::Value,
    policy: &str,
    student: &Tensor<2>,
    teacher: impl Into<TeacherLogits>,
) -> Vec<f64> {
    let targets = targets(student.dims()[0], 4, &student.device());
    let inputs = Logits { student: student.clone(), teacher: teacher.into(), targets, mask: Mask::from(None) };
    values(&(loss.rows)(&with(settings, "vocabulary", policy), inputs))
}

fn columns(tensor: &Tensor<2>, count: usize) -> Tensor<2> {
    tensor.clone().narrow(1, 0, count)
}

fn without(tensor: &Tensor<2>, classes: usize) -> Tensor<2> {
    let [rows, width] = tensor.dims();
    let absent = Tensor::full([rows, width - classes], f32::NEG_INFINITY, &tensor.device());
    Tensor::cat(vec![columns(tensor, classes), absent], 1)
}

#[test]
fn truncate_drops_the_last_columns_of_the_larger_side() {
    let device = device();
    let (small, large) = (random(1, [3, 4], 2.0, &device), random(2, [3, 6], 2.0, &device));
    each_logit_loss(|loss, settings| {
        if loss.teacher {
            let cut = columns(&large, 4);
            let expected = rows(loss, settings, "Error", &small, cut.clone());
            let got = rows(loss, settings, "Truncate", &small, large.clone());
            assert_close(loss.name, &got, &expected, exactly(), 0.0);
            let expected = rows(loss, settings, "Error", &cut, small.clone());
            assert_close(
                loss.name,
                &rows(loss, settings, "Truncate", &large, small.clone()),
                &expected,
                exactly(),
                0.0,
            );
        }
    });
}

#[test]
fn mask_padding_compares_over_the_students_vocabulary() {
    let device = device();
    let (small, large) = (random(1, [3, 4], 2.0, &device), random(2, [3, 6], 2.0, &device));
    each_logit_loss(|loss, settings| {
        if loss.teacher {
            // Classes that the teacher lacks have teacher probability 0.
            let padded = without(&Tensor::cat(vec![small.clone(), columns(&large, 2)], 1), 4);
            let expected = rows(loss, settings, "Error", &large, padded);
            let got = rows(loss, settings, "MaskPadding", &large, small.clone());
            assert_close(loss.name, &got, &expected, exactly(), 0.0);
            // Classes that the student lacks are removed from the teacher.
            let expected = rows(loss, settings, "Error", &small, columns(&large, 4));
            let got = rows(loss, settings, "MaskPadding", &small, large.clone());
            assert_close(loss.name, &got, &expected, exactly(), 0.0);
        }
    });
}

#[test]
fn mask_padding_differs_from_truncate_where_the_student_is_larger() {
    let device = device();
    let (student, teacher) = (random(2, [3, 6], 2.0, &device), random(1, [3, 4], 2.0, &device));
    each_logit_loss(|loss, settings| {
        // What is no distribution has no probability to take from the padding.
        if loss.teacher && loss.shift_invariant {
            let masked = rows(loss, settings, "MaskPadding", &student, teacher.clone());
            let cut = rows(loss, settings, "Truncate", &student, teacher.clone());
            assert!(masked.iter().zip(&cut).any(|(masked, cut)| (masked - cut).abs() > 1e-4), "{}", loss.name);
        }
    });
}

#[test]
fn mask_padding_teaches_the_student_to_leave_the_padding() {
    let device = device().autodiff();
    let student = random(2, [3, 6], 1.0, &device).require_grad();
    let teacher = random(1, [3, 4], 1.0, &device);
    let loss = KdLossConfig::new().with_vocabulary(VocabularyPolicy::MaskPadding).init().unwrap();
    let slopes = gradient(&loss.forward(student.clone(), teacher, None), &student);
    // Gradient descent lowers the logits that the teacher lacks.
    assert!(slopes.chunks(6).all(|row| row[4] > 0.0 && row[5] > 0.0), "{slopes:?}");
}

#[test]
fn sparse_over_the_whole_vocabulary_meets_the_policy_as_dense_does() {
    let device = device();
    let (small, large) = (random(1, [3, 4], 2.0, &device), random(2, [3, 6], 2.0, &device));
    each_logit_loss(|loss, settings| {
        if loss.teacher && loss.sparse {
            for policy in ["Truncate", "MaskPadding"] {
                for (student, teacher) in [(&small, &large), (&large, &small)] {
                    let sparse = SparseLogits::from_dense(teacher.clone(), teacher.dims()[1], Tail::Bucket).unwrap();
                    let expected = rows(loss, settings, policy, student, teacher.clone());
                    let what = format!("{} {policy}", loss.name);
                    assert_close(&what, &rows(loss, settings, policy, student, sparse), &expected, 1e-5, 4e-5);
                }
            }
        }
    });
}

#[test]
fn sparse_classes_that_the_student_lacks_are_dropped() {
    let device = device();
    let student = random(1, [1, 4], 1.0, &device);
    // The teacher's classes 4 and 5 do not exist for the student: p = (0.1, 0.2, 0.1, 0.1 | 0.3, 0.2), top 3 listed.
    let indices = crate::inputs::ints(&[4, 1, 5], [1, 3], &device);
    let log_probs = Tensor::<2>::from_floats([[0.3, 0.2, 0.2]], &device).log();
    let teacher = SparseLogits::new(indices, log_probs, 6, 1.0, Tail::Bucket).unwrap();
    // What is left: class 1 with 0.2, any other with 0.3, renormalised to 0.4 and 0.6.
    let q = values(&burn::tensor::activation::softmax(student.clone(), 1))[1];
    let expected = 0.4 * (0.4 / q).ln() + 0.6 * (0.6 / (1.0 - q)).ln();
    for policy in [VocabularyPolicy::Truncate, VocabularyPolicy::MaskPadding] {
        let loss = KdLossConfig::new().with_temperature(1.0).with_vocabulary(policy).init().unwrap();
        let value = number(loss.forward(student.clone(), teacher.clone(), None));
        assert_close(&format!("{policy:?}"), &[value], &[expected], 1e-5, 0.0);
    }
}

#[test]
fn sparse_teacher_that_lists_all_of_the_students_classes_has_no_tail() {
    let device = device();
    let student = random(1, [1, 2], 1.0, &device);
    let indices = crate::inputs::ints(&[2, 0, 1], [1, 3], &device);
    let log_probs = Tensor::<2>::from_floats([[0.4, 0.3, 0.1]], &device).log();
    let teacher = SparseLogits::new(indices, log_probs, 4, 1.0, Tail::Bucket).unwrap();
    let q = values(&burn::tensor::activation::softmax(student.clone(), 1));
    let expected = 0.75 * (0.75 / q[0]).ln() + 0.25 * (0.25 / q[1]).ln();
    let loss = KdLossConfig::new().with_temperature(1.0).with_vocabulary(VocabularyPolicy::Truncate).init().unwrap();
    assert_close("kd", &[number(loss.forward(student, teacher, None))], &[expected], 1e-5, 0.0);
}

#[test]
fn sparse_tail_holds_the_students_padding() {
    let device = device();
    let student = random(1, [1, 6], 1.0, &device);
    let indices = crate::inputs::ints(&[2, 0], [1, 2], &device);
    let log_probs = Tensor::<2>::from_floats([[0.5, 0.3]], &device).log();
    let teacher = SparseLogits::new(indices, log_probs, 4, 1.0, Tail::Bucket).unwrap();
    for (policy, classes) in [(VocabularyPolicy::MaskPadding, 6), (VocabularyPolicy::Truncate, 4)] {
        let q = values(&burn::tensor::activation::softmax(columns(&student, classes), 1));
        let rest = 1.0 - q[2] - q[0];
        let expected = 0.5 * (0.5 / q[2]).ln() + 0.3 * (0.3 / q[0]).ln() + 0.2 * (0.2 / rest).ln();
        let loss = KdLossConfig::new().with_temperature(1.0).with_vocabulary(policy).init().unwrap();
        let value = number(loss.forward(student.clone(), teacher.clone(), None));
        assert_close(&format!("{policy:?}"), &[value], &[expected], 1e-5, 0.0);
    }
}

#[test]
fn error_is_the_default_of_every_loss() {
    let device = device();
    let (student, teacher) = (random(1, [3, 4], 2.0, &device), random(2, [3, 6], 2.0, &device));
    each_logit_loss(|loss, settings| {
        // What is no distribution has no probability to take from the padding.
        if loss.teacher && loss.shift_invariant {
            let sparse = SparseLogits::from_dense(teacher.clone(), 2, Tail::Bucket).unwrap();
            let teachers = [TeacherLogits::Dense(teacher.clone()), TeacherLogits::Sparse(sparse)];
            for teacher in teachers.into_iter().filter(|teacher| loss.takes(teacher)) {
                let targets = targets(3, 4, &device);
                let inputs = Logits { student: student.clone(), teacher, targets, mask: Mask::from(None) };
                let call = std::panic::AssertUnwindSafe(|| (loss.rows)(settings, inputs));
                let panic = std::panic::catch_unwind(call).err();
                let panic = panic.unwrap_or_else(|| panic!("{} accepts 4 against 6 classes", loss.name));
                let message = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                let named = ["4 classes", "`teacher_logits` 6", "Truncate", "MaskPadding"];
                assert!(named.iter().all(|part| message.contains(part)), "{}: {message}", loss.name);
            }
        }
    });
}
