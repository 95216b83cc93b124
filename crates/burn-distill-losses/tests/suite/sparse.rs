//! What a sparse teacher stands for: by hand, padded, and refused.

use burn::tensor::Tensor;
use burn_distill_dev::device;
use burn_distill_losses::{KdLossConfig, LossError, Mask, SparseLogits, Tail};

use crate::{
    inputs::{assert_close, bools, gradient, ints, number, random, targets, values},
    table::{Logits, each_logit_loss},
};

#[test]
fn coarse_kl_by_hand() {
    let device = device();
    let student = random(7, [1, 5], 1.0, &device);
    let q = values(&burn::tensor::activation::softmax(student.clone(), 1));
    let indices = ints(&[3, 1], [1, 2], &device);
    let log_probs = Tensor::<2>::from_floats([[0.6, 0.3]], &device).log();
    let loss = KdLossConfig::new().with_temperature(1.0).init().unwrap();
    let value = |tail| {
        let teacher = SparseLogits::new(indices.clone(), log_probs.clone(), 5, 1.0, tail).unwrap();
        number(loss.forward(student.clone(), teacher, None))
    };
    let bucket = 0.6 * (0.6 / q[3]).ln() + 0.3 * (0.3 / q[1]).ln() + 0.1 * (0.1 / (1.0 - q[3] - q[1])).ln();
    assert_close("bucket", &[value(Tail::Bucket)], &[bucket], 1e-5, 0.0);
    let (p, r) = ([0.6 / 0.9, 0.3 / 0.9], [q[3] / (q[3] + q[1]), q[1] / (q[3] + q[1])]);
    let renormalised = p[0] * (p[0] / r[0]).ln() + p[1] * (p[1] / r[1]).ln();
    assert_close("renormalise", &[value(Tail::Renormalise)], &[renormalised], 1e-5, 0.0);
    let zero = p[0] * (p[0] / q[3]).ln() + p[1] * (p[1] / q[1]).ln();
    assert_close("zero", &[value(Tail::Zero)], &[zero], 1e-5, 0.0);
    let dropped = 0.6 * (0.6 / q[3]).ln() + 0.3 * (0.3 / q[1]).ln();
    assert_close("drop", &[value(Tail::Drop)], &[dropped], 1e-5, 0.0);
}

#[test]
fn a_tail_that_is_dropped_leaves_out_its_term_of_the_bucket() {
    let device = device();
    let student = random(7, [1, 6], 2.0, &device);
    let indices = ints(&[3, 1], [1, 2], &device);
    let log_probs = Tensor::<2>::from_floats([[0.6, 0.3]], &device).log();
    let teacher = SparseLogits::new(indices, log_probs, 6, 1.0, Tail::Bucket).unwrap();
    // At temperature 2 the coarse distributions are tempered by a square root and normalised again.
    let tempered = |probs: [f64; 3]| {
        let sum: f64 = probs.iter().map(|p| p.sqrt()).sum();
        probs.map(|p| p.sqrt() / sum)
    };
    let q = values(&burn::tensor::activation::softmax(student.clone(), 1));
    let (p, q) = (tempered([0.6, 0.3, 0.1]), tempered([q[3], q[1], 1.0 - q[3] - q[1]]));
    let term = |c: usize| 4.0 * p[c] * (p[c] / q[c]).ln();
    let loss = KdLossConfig::new().with_temperature(2.0).init().unwrap();
    let value = |tail| number(loss.forward(student.clone(), teacher.clone().with_tail(tail), None));
    assert_close("bucket", &[value(Tail::Bucket)], &[term(0) + term(1) + term(2)], 1e-5, 0.0);
    assert_close("drop", &[value(Tail::Drop)], &[term(0) + term(1)], 1e-5, 0.0);
}

#[test]
fn padding_equals_a_shorter_list() {
    let device = device().autodiff();
    let infinity = f32::NEG_INFINITY;
    let student = random(7, [2, 6], 1.5, &device).require_grad();
    let long = ints(&[3, 1, 0, 1, 5, 0, 0, 0], [2, 4], &device);
    // The logarithm of 0 on a GPU may be finite.
    let log = |values: Tensor<2>| values.log();
    let filling = Tensor::full([2, 2], infinity, &device);
    let padded = Tensor::cat(vec![log(Tensor::from_floats([[0.5, 0.2], [0.4, 0.3]], &device)), filling], 1);
    let short = ints(&[3, 1, 5, 0], [2, 2], &device);
    let listed = log(Tensor::from_floats([[0.5, 0.2], [0.4, 0.3]], &device));
    for tail in [Tail::Bucket, Tail::Renormalise, Tail::Zero, Tail::Drop] {
        each_logit_loss(|loss, settings| {
            if loss.teacher && loss.sparse {
                let value = |indices, log_probs| {
                    let teacher = SparseLogits::new(indices, log_probs, 6, 1.0, tail).unwrap();
                    let (targets, mask) = (targets(2, 6, &device), Mask::from(None));
                    (loss.reduced)(
                        settings,
                        Logits { student: student.clone(), teacher: teacher.into(), targets, mask },
                    )
                };
                let (got, expected) = (value(long.clone(), padded.clone()), value(short.clone(), listed.clone()));
                let slopes = (gradient(&got, &student), gradient(&expected, &student));
                let what = format!("{} {settings} {tail:?}", loss.name);
                assert_close(&what, &[number(got)], &[number(expected)], 1e-5, 1e-5);
                assert_close(&format!("{what} gradient"), &slopes.0, &slopes.1, 1e-5, 1e-6);
            }
        });
    }
}

#[test]
fn masked_rows_may_hold_anything() {
    let device = device().autodiff();
    let student = random(7, [2, 6], 1.5, &device).require_grad();
    for tail in [Tail::Bucket, Tail::Renormalise, Tail::Zero, Tail::Drop] {
        for vocabulary in [2, 6] {
            let student = student.clone().narrow(1, 0, vocabulary);
            let leaf = Tensor::<2>::from_data(student.into_data(), &device).require_grad();
            let indices = ints(&[1, 0, -7, 99], [2, 2], &device);
            let log_probs = Tensor::<2>::from_floats([[-0.7, -1.2], [f32::NAN, f32::INFINITY]], &device);
            let teacher = SparseLogits::new(indices, log_probs, vocabulary, 1.0, tail).unwrap();
            each_logit_loss(|loss, settings| {
                if loss.teacher && loss.sparse {
                    let value = (loss.reduced)(
                        settings,
                        Logits {
                            student: leaf.clone(),
                            teacher: teacher.clone().into(),
                            targets: ints(&[0, -100], [2], &device),
                            mask: bools(&[true, false], &device).into(),
                        },
                    );
                    let slopes = gradient(&value, &leaf);
                    assert!(number(value).is_finite(), "{}", loss.name);
                    assert!(slopes.iter().all(|slope| slope.is_finite()), "{}: {slopes:?}", loss.name);
                    assert!(slopes[vocabulary..].iter().all(|slope| *slope == 0.0), "{}: {slopes:?}", loss.name);
                }
            });
        }
    }
}

#[test]
fn a_mass_above_one_by_rounding_stays_finite() {
    let device = device().autodiff();
    let student = random(7, [1, 4], 1.0, &device).require_grad();
    let indices = ints(&[0, 2], [1, 2], &device);
    let log_probs = Tensor::<2>::from_floats([[0.7f32.ln(), 0.300001f32.ln()]], &device);
    let teacher = SparseLogits::new(indices, log_probs, 4, 1.0, Tail::Bucket).unwrap();
    each_logit_loss(|loss, settings| {
        if loss.teacher && loss.sparse {
            let (targets, mask) = (targets(1, 4, &device), Mask::from(None));
            let inputs = Logits { student: student.clone(), teacher: teacher.clone().into(), targets, mask };
            let value = (loss.reduced)(settings, inputs);
            assert!(gradient(&value, &student).iter().all(|slope| slope.is_finite()), "{}", loss.name);
            assert!(number(value).is_finite(), "{}", loss.name);
        }
    });
}

#[test]
fn a_row_without_a_listed_class_says_nothing_or_only_the_tail() {
    let device = device().autodiff();
    let student = random(7, [2, 4], 1.0, &device).require_grad();
    let log_probs = Tensor::<2>::from_floats([[f32::NEG_INFINITY; 2], [0.7f32.ln(), 0.2f32.ln()]], &device);
    for tail in [Tail::Bucket, Tail::Renormalise] {
        let teacher = SparseLogits::new(ints(&[0, 0, 3, 1], [2, 2], &device), log_probs.clone(), 4, 1.0, tail).unwrap();
        each_logit_loss(|loss, settings| {
            if loss.teacher && loss.sparse {
                let (targets, mask) = (targets(2, 4, &device), Mask::from(None));
                let inputs = Logits { student: student.clone(), teacher: teacher.clone().into(), targets, mask };
                let rows = (loss.rows)(settings, inputs);
                let slopes = gradient(&rows.clone().sum(), &student);
                assert!(slopes.iter().all(|slope| slope.is_finite()), "{}: {slopes:?}", loss.name);
                assert!(values(&rows).iter().all(|value| value.is_finite()), "{}: {rows}", loss.name);
                // All of the probability is the tail's, on both sides; labels have something to say all the same.
                if loss.row_by_row && loss.name != "kd_cross_entropy" {
                    assert_close(loss.name, &values(&rows)[..1], &[0.0], 0.0, 1e-5);
                    assert_close(loss.name, &slopes[..4], &[0.0; 4], 0.0, 1e-5);
                }
            }
        });
    }
}

#[test]
fn repeated_classes_stay_finite() {
    // Not what a sparse teacher may hold, but nothing that may stop a run either.
    let device = device().autodiff();
    let student = random(7, [1, 4], 1.0, &device).require_grad();
    for (indices, log_probs) in [(vec![1, 1], vec![-1.0, -1.5]), (vec![2, 2, 2, 0], vec![-1.0, -2.0, -3.0, -4.0])] {
        for tail in [Tail::Bucket, Tail::Renormalise] {
            let (shape, device) = ([1, indices.len()], student.device());
            let log_probs = crate::inputs::tensor(&log_probs, shape, burn::tensor::DType::F32, &device);
            let teacher = SparseLogits::new(ints(&indices, shape, &device), log_probs, 4, 1.0, tail).unwrap();
            each_logit_loss(|loss, settings| {
                if loss.teacher && loss.sparse {
                    let inputs = crate::inputs::logits(student.clone(), student.clone());
                    let value = (loss.reduced)(settings, Logits { teacher: teacher.clone().into(), ..inputs });
                    assert!(gradient(&value, &student).iter().all(|slope| slope.is_finite()), "{}", loss.name);
                    assert!(number(value).is_finite(), "{}", loss.name);
                }
            });
        }
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let device = device();
    let new = |indices: usize, k: usize, vocabulary, temperature| {
        let indices = ints(&vec![0; 2 * indices], [2, indices], &device);
        SparseLogits::new(indices, Tensor::zeros([2, k], &device), vocabulary, temperature, Tail::Bucket)
    };
    assert!(new(2, 2, 2, 1.0).is_ok());
    assert_eq!(new(2, 3, 5, 1.0).unwrap_err(), LossError::SparseShape { indices: [2, 2], log_probs: [2, 3] });
    assert_eq!(new(3, 3, 2, 1.0).unwrap_err(), LossError::SparseSize { k: 3, vocabulary: 2 });
    let error = new(2, 2, 5, 1.0).unwrap().with_tail_log_probs(Tensor::zeros([3], &device)).unwrap_err();
    assert_eq!(error, LossError::TailRows { rows: 2, given: 3 });
    let message = new(2, 2, 5, 0.0).unwrap_err().to_string();
    assert_eq!(message, "`temperature` must be in (0, inf), got 0");
    let message =
        SparseLogits::from_dense(Tensor::<2>::zeros([2, 3], &device), 4, Tail::Bucket).unwrap_err().to_string();
    assert_eq!(message, "`k` must be in [1, 3] (the vocabulary), got 4");
}
