//! What holds for every loss, on random input.

use burn::tensor::{Device, Tensor};
use burn_distill_dev::device;
use burn_distill_losses::{Mask, SparseLogits, Tail};
use proptest::prelude::*;

use crate::{
    inputs::{assert_close, bools, gradient, ints, logits, number, random, stage, targets, values},
    table::{Logits, each_feature_loss, each_logit_loss, with},
};

/// Number of rows, number of classes, a seed and a magnitude.
fn shapes() -> impl Strategy<Value = (usize, usize, u64, f64)> {
    (1usize..6, 2usize..9, any::<u64>(), 0.1..6.0)
}

/// Student and teacher logits.
fn pair(rows: usize, classes: usize, seed: u64, scale: f64, device: &Device) -> (Tensor<2>, Tensor<2>) {
    (random(seed, [rows, classes], scale, device), random(!seed, [rows, classes], 1.2 * scale, device))
}

/// Rounding of f32 grows with temperature squared, which no setting of the suite takes above 16.
const ROUNDING: f64 = 4e-5;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn zero_when_student_equals_teacher((rows, classes, seed, scale) in shapes()) {
        let device = device();
        let (student, _) = pair(rows, classes, seed, scale, &device);
        each_logit_loss(|loss, settings| if loss.zero_at_equality {
            let value = values(&(loss.rows)(settings, logits(student.clone(), student.clone())));
            assert_close(loss.name, &value, &vec![0.0; rows], 0.0, ROUNDING);
        });
        let features = random(seed, [rows, classes, 3, 4], scale, &device);
        each_feature_loss(|loss, settings| {
            let value = values(&(loss.rows)(settings, stage(features.clone(), features.clone())));
            assert_close(loss.name, &value, &vec![0.0; rows], 0.0, ROUNDING);
        });
    }

    #[test]
    fn never_negative((rows, classes, seed, scale) in shapes()) {
        let device = device();
        let (student, teacher) = pair(rows, classes, seed, scale, &device);
        each_logit_loss(|loss, settings| {
            let value = values(&(loss.rows)(settings, logits(student.clone(), teacher.clone())));
            let fine = !loss.non_negative || value.iter().all(|value| *value >= -ROUNDING);
            assert!(fine, "{} {settings}: {value:?}", loss.name);
        });
        let features = |seed| random(seed, [rows, classes, 3, 4], scale, &device);
        each_feature_loss(|loss, settings| {
            let value = values(&(loss.rows)(settings, stage(features(seed), features(!seed))));
            assert!(value.iter().all(|value| *value >= -ROUNDING), "{} {settings}: {value:?}", loss.name);
        });
    }

    #[test]
    fn a_constant_added_to_a_row_changes_nothing((rows, classes, seed, scale) in shapes()) {
        let device = device();
        let (student, teacher) = pair(rows, classes, seed, scale, &device);
        let shift = |seed: u64| random(seed, [rows, 1], 8.0, &device).expand([rows, classes]);
        let (moved, teacher_moved) = (student.clone() + shift(seed ^ 1), teacher.clone() + shift(seed ^ 2));
        each_logit_loss(|loss, settings| if loss.shift_invariant {
            let value = values(&(loss.rows)(settings, logits(student.clone(), teacher.clone())));
            let shifted = values(&(loss.rows)(settings, logits(moved.clone(), teacher_moved.clone())));
            assert_close(&format!("{} {settings}", loss.name), &shifted, &value, 3e-4, 3e-4);
        });
    }

    #[test]
    fn order_of_the_batch_does_not_matter((rows, classes, seed, scale) in shapes()) {
        let device = device();
        let (student, teacher) = pair(rows, classes, seed, scale, &device);
        let order: Vec<i64> = (0..rows as i64).rev().collect();
        let order = ints(&order, [rows], &device);
        each_logit_loss(|loss, settings| {
            let straight = logits(student.clone(), teacher.clone());
            let turned = Logits {
                student: student.clone().select(0, order.clone()),
                teacher: teacher.clone().select(0, order.clone()).into(),
                targets: straight.targets.clone().select(0, order.clone()),
                mask: Mask::from(None),
            };
            let expected = values(&(loss.rows)(settings, straight).select(0, order.clone()));
            assert_close(loss.name, &values(&(loss.rows)(settings, turned)), &expected, 1e-5, ROUNDING);
        });
        let features = |seed| random(seed, [rows, classes, 3, 3], scale, &device);
        each_feature_loss(|loss, settings| {
            let (student, teacher) = (features(seed), features(!seed));
            let expected = (loss.rows)(settings, stage(student.clone(), teacher.clone())).select(0, order.clone());
            let turned = stage(student.select(0, order.clone()), teacher.select(0, order.clone()));
            assert_close(loss.name, &values(&(loss.rows)(settings, turned)), &values(&expected), 1e-5, ROUNDING);
        });
    }

    #[test]
    fn mean_is_the_mean_of_the_rows_and_sum_their_number_times_it((rows, classes, seed, scale) in shapes()) {
        let device = device();
        let (student, teacher) = pair(rows, classes, seed, scale, &device);
        let count = rows as f64;
        each_logit_loss(|loss, settings| {
            let inputs = || logits(student.clone(), teacher.clone());
            let average = values(&(loss.rows)(settings, inputs())).iter().sum::<f64>() / count;
            let mean = number((loss.reduced)(&with(settings, "reduction", "Mean"), inputs()));
            let sum = number((loss.reduced)(&with(settings, "reduction", "Sum"), inputs()));
            assert_close(loss.name, &[mean, sum], &[average, count * average], 1e-6, 1e-6);
        });
        let features = |seed| random(seed, [rows, classes, 3, 3], scale, &device);
        each_feature_loss(|loss, settings| {
            let inputs = || stage(features(seed), features(!seed));
            let average = values(&(loss.rows)(settings, inputs())).iter().sum::<f64>() / count;
            let mean = number((loss.reduced)(&with(settings, "reduction", "Mean"), inputs()));
            let sum = number((loss.reduced)(&with(settings, "reduction", "Sum"), inputs()));
            assert_close(loss.name, &[mean, sum], &[average, count * average], 1e-6, 1e-6);
        });
    }

    #[test]
    fn a_mask_equals_dropping_the_rows_whatever_they_hold((rows, classes, seed, scale) in shapes(), bits in any::<u8>()) {
        let device = device().autodiff();
        // Row 0 is dropped and the last one kept.
        let rows = rows + 1;
        let kept: Vec<bool> = (0..rows).map(|row| row > 0 && (row + 1 == rows || bits >> row & 1 == 1)).collect();
        let ids: Vec<i64> = (0..rows as i64).filter(|row| kept[*row as usize]).collect();
        let ids = ints(&ids, [ids.len()], &device);
        let (student, teacher) = pair(rows, classes, seed, scale, &device);
        let dropped: Tensor<2, burn::tensor::Bool> = bools(&kept, &device).bool_not().unsqueeze_dim(1);
        let spoilt = |tensor: Tensor<2>, value: f32| tensor.mask_fill(dropped.clone().expand([rows, classes]), value);
        each_logit_loss(|loss, settings| {
            let all = spoilt(student.clone(), f32::NAN).require_grad();
            let few = student.clone().select(0, ids.clone()).require_grad();
            let class = targets(rows, classes, &device);
            let ignored = class.clone().mask_fill(bools(&kept, &device).bool_not(), -100);
            let masked = (loss.reduced)(settings, Logits {
                student: all.clone(),
                teacher: spoilt(teacher.clone(), f32::INFINITY).into(),
                targets: ignored,
                mask: bools(&kept, &device).into(),
            });
            let selected = (loss.reduced)(settings, Logits {
                student: few.clone(),
                teacher: teacher.clone().select(0, ids.clone()).into(),
                targets: class.select(0, ids.clone()),
                mask: Mask::from(None),
            });
            let (got, expected) = (gradient(&masked, &all), gradient(&selected, &few));
            assert_close(loss.name, &[number(masked)], &[number(selected)], 1e-5, ROUNDING);
            let mut expected = expected.chunks(classes);
            let expected: Vec<f64> = kept
                .iter()
                .flat_map(|kept| if *kept { expected.next().unwrap().to_vec() } else { vec![0.0; classes] })
                .collect();
            assert_close(&format!("{} gradient", loss.name), &got, &expected, 1e-4, ROUNDING);
        });
    }

    #[test]
    fn tokens_are_rows((rows, classes, seed, scale) in shapes(), length in 1usize..4) {
        let device = device();
        let (student, teacher) = pair(rows * length, classes, seed, scale, &device);
        let tokens = [rows, length, classes];
        each_logit_loss(|loss, settings| {
            let flat = values(&(loss.rows)(settings, logits(student.clone(), teacher.clone())));
            let inputs = Logits {
                student: student.clone().reshape(tokens),
                teacher: teacher.clone().reshape(tokens).into(),
                targets: targets(rows * length, classes, &device),
                mask: Tensor::<2>::ones([rows, length], &device).bool().into(),
            };
            assert_close(loss.name, &values(&(loss.tokens)(settings, inputs)), &flat, 0.0, 0.0);
        });
    }

    #[test]
    fn a_row_does_not_depend_on_the_others((rows, classes, seed, scale) in shapes()) {
        let device = device();
        let (student, teacher) = pair(rows, classes, seed, scale, &device);
        each_logit_loss(|loss, settings| if loss.row_by_row {
            let inputs = logits(student.clone(), teacher.clone());
            let alone = Logits {
                student: student.clone().narrow(0, 0, 1),
                teacher: teacher.clone().narrow(0, 0, 1).into(),
                targets: inputs.targets.clone().narrow(0, 0, 1),
                mask: Mask::from(None),
            };
            let first = values(&(loss.rows)(settings, inputs))[0];
            assert_close(loss.name, &values(&(loss.rows)(settings, alone)), &[first], 1e-5, 1e-6);
        });
    }

    #[test]
    fn sparse_with_the_whole_vocabulary_is_dense((rows, classes, seed, scale) in shapes(), renormalise in any::<bool>()) {
        let device = device().autodiff();
        let (student, teacher) = pair(rows, classes, seed, scale, &device);
        let student = student.require_grad();
        let tail = if renormalise { Tail::Renormalise } else { Tail::Bucket };
        each_logit_loss(|loss, settings| if loss.teacher && loss.sparse {
            let dense = (loss.reduced)(settings, logits(student.clone(), teacher.clone()));
            let sparse = SparseLogits::from_dense(teacher.clone(), classes, tail).unwrap();
            let inputs = logits(student.clone(), teacher.clone());
            let sparse = (loss.reduced)(settings, Logits { teacher: sparse.into(), ..inputs });
            let (got, expected) = (gradient(&sparse, &student), gradient(&dense, &student));
            let what = format!("{} {settings}", loss.name);
            assert_close(&what, &[number(sparse)], &[number(dense)], 1e-5, ROUNDING);
            assert_close(&format!("{what} gradient"), &got, &expected, 1e-4, ROUNDING);
        });
    }

    #[test]
    fn sparse_is_zero_when_the_student_is_the_teacher((rows, classes, seed, scale) in shapes(), k in 1usize..8) {
        let device = device();
        let (student, _) = pair(rows, classes, seed, scale, &device);
        for tail in [Tail::Bucket, Tail::Renormalise] {
            let sparse = SparseLogits::from_dense(student.clone(), k.min(classes), tail).unwrap();
            each_logit_loss(|loss, settings| if loss.zero_at_equality && loss.sparse {
                let inputs = Logits { teacher: sparse.clone().into(), ..logits(student.clone(), student.clone()) };
                let value = values(&(loss.rows)(settings, inputs));
                assert_close(&format!("{} {settings} {tail:?}", loss.name), &value, &vec![0.0; rows], 0.0, ROUNDING);
            });
        }
    }
}
