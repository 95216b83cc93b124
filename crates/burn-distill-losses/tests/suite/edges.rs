//! Inputs at the edge of what a loss must survive.

use burn::tensor::{DType, Device, Tensor};
use burn_distill_dev::{device, supported, tolerance};
use burn_distill_losses::{Mask, SparseLogits, Tail, TeacherLogits};

use crate::{
    inputs::{assert_close, bools, gradient, logits, number, random, stage, targets, values},
    table::{Logits, each_feature_loss, each_logit_loss},
};

#[track_caller]
fn assert_finite(what: &str, numbers: &[f64]) {
    assert!(numbers.iter().all(|number| number.is_finite()), "{what}: {numbers:?}");
}

/// Value and gradient are finite.
fn check_finite(student: Tensor<2>, teacher: impl Into<TeacherLogits>) {
    let teacher = teacher.into();
    let [rows, classes] = student.dims();
    let student = student.autodiff().require_grad();
    each_logit_loss(|loss, settings| {
        if !loss.takes(&teacher) {
            return;
        }
        let (targets, mask) = (targets(rows, classes, &student.device()), Mask::from(None));
        let inputs = Logits { student: student.clone(), teacher: teacher.clone(), targets, mask };
        let value = (loss.reduced)(settings, inputs);
        assert_finite(&format!("{} {settings} gradient", loss.name), &gradient(&value, &student));
        assert_finite(&format!("{} {settings}", loss.name), &[number(value)]);
    });
}

fn extreme(device: &Device) -> (Tensor<2>, Tensor<2>) {
    let student = [[1e4, -1e4, 0.0, 5.0], [-1e4, -1e4, 1e4, 1e4], [1e4, 1e4, 1e4, 1e4], [0.1, -0.2, 0.3, 1e4]];
    let teacher = [[-1e4, 1e4, 2.0, 1.0], [1e4, 1e4, -1e4, -1e4], [-1e4, 0.0, 1e4, 9e3], [1e4, -0.1, 0.2, 0.3]];
    (Tensor::from_floats(student, device), Tensor::from_floats(teacher, device))
}

#[test]
fn logits_of_ten_thousand_stay_finite() {
    let device = device();
    let (student, teacher) = extreme(&device);
    for k in 1..=4 {
        for tail in [Tail::Bucket, Tail::Renormalise] {
            check_finite(student.clone(), SparseLogits::from_dense(teacher.clone(), k, tail).unwrap());
        }
    }
    check_finite(student, teacher);
}

#[test]
fn classes_without_probability_stay_finite() {
    let device = device();
    let infinity = f32::INFINITY;
    let student = random(1, [3, 4], 2.0, &device);
    let teacher = Tensor::<2>::from_floats(
        [[1.0, -infinity, 0.5, -infinity], [-infinity, 2.0, -infinity, -infinity], [0.0, 1.0, 2.0, 3.0]],
        &device,
    );
    for k in 1..=4 {
        for tail in [Tail::Bucket, Tail::Renormalise] {
            check_finite(student.clone(), SparseLogits::from_dense(teacher.clone(), k, tail).unwrap());
        }
    }
    // The same classes masked out of the student as well.
    check_finite(teacher.clone(), teacher.clone());
    check_finite(student, teacher);
}

#[test]
fn classes_without_probability_on_either_side_change_nothing() {
    let device = device();
    let (student, teacher) = (random(1, [3, 4], 2.0, &device), random(2, [3, 4], 2.0, &device));
    let absent = Tensor::<2>::full([3, 2], f32::NEG_INFINITY, &device);
    let padded = |tensor: &Tensor<2>| Tensor::cat(vec![tensor.clone(), absent.clone()], 1);
    each_logit_loss(|loss, settings| {
        // A mean over classes counts the absent ones: label smoothing and DIST's intra-class relation.
        if loss.row_by_row && loss.teacher {
            let targets = targets(3, 4, &device);
            let value = |student: Tensor<2>, teacher: Tensor<2>| {
                let (targets, mask) = (targets.clone(), Mask::from(None));
                values(&(loss.rows)(settings, Logits { student, teacher: teacher.into(), targets, mask }))
            };
            let expected = value(student.clone(), teacher.clone());
            let got = value(padded(&student), padded(&teacher));
            assert_close(loss.name, &got, &expected, 1e-6, 1e-6);
        }
    });
}

#[test]
fn one_row_is_enough() {
    let device = device();
    check_finite(random(1, [1, 3], 2.0, &device), random(2, [1, 3], 2.0, &device));
    let device = device.autodiff();
    each_feature_loss(|loss, settings| {
        let student = random(1, [1, 2, 5, 5], 1.0, &device).require_grad();
        let value = (loss.reduced)(settings, stage(student.clone(), random(2, [1, 2, 5, 5], 1.0, &device)));
        assert_finite(&format!("{} {settings} gradient", loss.name), &gradient(&value, &student));
        assert_finite(&format!("{} {settings}", loss.name), &[number(value)]);
    });
}

#[test]
fn one_class_stays_finite() {
    let device = device();
    let (student, teacher) = (random(1, [3, 1], 2.0, &device), random(2, [3, 1], 2.0, &device));
    for tail in [Tail::Bucket, Tail::Renormalise] {
        check_finite(student.clone(), SparseLogits::from_dense(teacher.clone(), 1, tail).unwrap());
    }
    each_logit_loss(|loss, settings| {
        if loss.row_by_row && loss.shift_invariant {
            let value = values(&(loss.rows)(settings, logits(student.clone(), teacher.clone())));
            // One class leaves nothing to say.
            assert_close(loss.name, &value, &[0.0; 3], 0.0, 1e-6);
        }
    });
    check_finite(student, teacher);
}

#[test]
fn temperatures_far_from_one_stay_finite() {
    let device = device();
    let student = random(1, [3, 5], 2.0, &device).autodiff().require_grad();
    let teacher = random(2, [3, 5], 2.0, &device);
    let teacher = Tensor::cat(vec![teacher.narrow(1, 0, 4), Tensor::full([3, 1], f32::NEG_INFINITY, &device)], 1);
    let sparse = |tail| SparseLogits::from_dense(teacher.clone(), 2, tail).unwrap();
    let teachers: [TeacherLogits; 3] =
        [teacher.clone().into(), sparse(Tail::Bucket).into(), sparse(Tail::Renormalise).into()];
    each_logit_loss(|loss, settings| {
        if settings.get("temperature").is_some() {
            for temperature in [1e-20, 1e-6, 1e-2, 1e4, 1e9] {
                for teacher in teachers.iter().filter(|teacher| loss.takes(teacher)) {
                    let mut settings = settings.clone();
                    settings["temperature"] = temperature.into();
                    let inputs = Logits { teacher: teacher.clone(), ..logits(student.clone(), student.clone()) };
                    let value = (loss.reduced)(&settings, inputs);
                    assert_finite(&format!("{} {settings} gradient", loss.name), &gradient(&value, &student));
                    assert_finite(&format!("{} {settings}", loss.name), &[number(value)]);
                }
            }
        }
    });
}

#[test]
fn views_of_other_tensors_equal_their_copies() {
    let device = device();
    // Transposed, cut out, and repeated without a copy: none of them lies in memory row after row.
    let (wide, deep) = (random(1, [7, 9], 2.0, &device), random(2, [5, 4], 2.0, &device));
    let student = wide.slice([1..5, 2..7]);
    let teacher = deep.transpose();
    let copied = |tensor: &Tensor<2>| Tensor::<2>::from_data(tensor.to_data(), &device);
    each_logit_loss(|loss, settings| {
        let numbers = |student: &Tensor<2>, teacher: &Tensor<2>| {
            let leaf = student.clone().autodiff().require_grad();
            let value = (loss.reduced)(settings, logits(leaf.clone(), teacher.clone()));
            (gradient(&value, &leaf), [number(value)])
        };
        let check = |teacher: &Tensor<2>| {
            let (got, expected) = (numbers(&student, teacher), numbers(&copied(&student), &copied(teacher)));
            assert_close(&format!("{} {settings} gradient", loss.name), &got.0, &expected.0, tolerance(), 1e-6);
            assert_close(&format!("{} {settings}", loss.name), &got.1, &expected.1, tolerance(), 1e-6);
        };
        check(&teacher);
        check(&teacher.clone().narrow(0, 0, 1).expand([4, 5]));
    });
    let image = random(3, [5, 5, 2, 4], 1.0, &device).permute([3, 2, 0, 1]);
    let other = random(4, [4, 2, 8, 5], 1.0, &device).narrow(2, 1, 5);
    let copied = |tensor: &Tensor<4>| Tensor::<4>::from_data(tensor.to_data(), &device);
    each_feature_loss(|loss, settings| {
        let got = number((loss.reduced)(settings, stage(image.clone(), other.clone())));
        let expected = number((loss.reduced)(settings, stage(copied(&image), copied(&other))));
        assert!((got - expected).abs() <= 1e-6 * expected.abs(), "{}: {got}, {expected}", loss.name);
    });
}

#[test]
fn features_of_zero_stay_finite() {
    let device = device().autodiff();
    let shape = [3, 2, 5, 5];
    let teachers = [random(2, shape, 1.0, &device), Tensor::zeros(shape, &device)];
    // All samples zero, and two coinciding ones beside a third.
    let half = Tensor::cat(vec![Tensor::zeros([2, 2, 5, 5], &device), random(4, [1, 2, 5, 5], 1.0, &device)], 0);
    for student in [Tensor::zeros(shape, &device), half] {
        for teacher in &teachers {
            each_feature_loss(|loss, settings| {
                let student = student.clone().require_grad();
                let value = (loss.reduced)(settings, stage(student.clone(), teacher.clone()));
                let gradient = gradient(&value, &student);
                assert_finite(&format!("{} {settings} gradient", loss.name), &gradient);
                assert!(gradient.iter().all(|slope| slope.abs() < 1e3), "{}: {gradient:?}", loss.name);
                assert_finite(&format!("{} {settings}", loss.name), &[number(value)]);
            });
        }
    }
}

#[test]
fn no_unmasked_row_gives_zero_and_no_gradient() {
    let device = device().autodiff();
    let student = Tensor::<2>::full([2, 3], f32::NAN, &device).require_grad();
    let teacher = random(2, [2, 3], 1.0, &device);
    each_logit_loss(|loss, settings| {
        for reduction in ["Mean", "Sum"] {
            let mask = Mask::from(bools(&[false, false], &device));
            let inputs = Logits { mask, ..logits(student.clone(), teacher.clone()) };
            let value = (loss.reduced)(&crate::table::with(settings, "reduction", reduction), inputs);
            assert_eq!(gradient(&value, &student), vec![0.0; 6], "{}", loss.name);
            assert_eq!(number(value), 0.0, "{}", loss.name);
        }
    });
}

#[test]
fn no_unmasked_token_gives_zero_and_no_gradient() {
    let device = device().autodiff();
    let student = Tensor::<3>::full([2, 3, 4], f32::NAN, &device).require_grad();
    let teacher = Tensor::<3>::full([2, 3, 4], f32::INFINITY, &device);
    each_logit_loss(|loss, settings| {
        let inputs = Logits {
            student: student.clone(),
            teacher: teacher.clone().into(),
            targets: crate::inputs::ints(&[-100; 6], [6], &device),
            mask: Tensor::<2>::zeros([2, 3], &device).bool().into(),
        };
        let rows = (loss.tokens)(settings, inputs);
        assert_eq!(values(&rows), vec![0.0; 6], "{}", loss.name);
        assert_eq!(gradient(&rows.sum(), &student), vec![0.0; 24], "{}", loss.name);
    });
}

#[test]
fn no_gradient_reaches_the_teacher() {
    let device = device().autodiff();
    let leaf = |seed| random(seed, [3, 4], 1.0, &device).require_grad();
    each_logit_loss(|loss, settings| {
        let (student, teacher) = (leaf(1), leaf(2));
        // Not the leaf itself but something computed from it, as a model's output is.
        let inputs = logits(student.clone(), teacher.clone().mul_scalar(2.0));
        let gradients = (loss.reduced)(settings, inputs).backward();
        assert!(student.grad(&gradients).is_some(), "{}", loss.name);
        assert!(teacher.grad(&gradients).is_none(), "{}", loss.name);
        if loss.teacher && loss.sparse {
            for tail in [Tail::Bucket, Tail::Renormalise] {
                let (student, teacher) = (leaf(1), leaf(2));
                let sparse = SparseLogits::from_dense(teacher.clone().mul_scalar(2.0), 2, tail).unwrap();
                let inputs = Logits { teacher: sparse.into(), ..logits(student.clone(), teacher.clone()) };
                let gradients = (loss.reduced)(settings, inputs).backward();
                assert!(student.grad(&gradients).is_some(), "{}", loss.name);
                assert!(teacher.grad(&gradients).is_none(), "{}", loss.name);
            }
        }
    });
    each_feature_loss(|loss, settings| {
        let leaf = |seed| random(seed, [3, 2, 5, 5], 1.0, &device).require_grad();
        let (student, teacher) = (leaf(1), leaf(2));
        let value = (loss.reduced)(settings, stage(student.clone(), teacher.clone().mul_scalar(2.0)));
        let gradients = value.backward();
        assert!(student.grad(&gradients).is_some(), "{}", loss.name);
        assert!(teacher.grad(&gradients).is_none(), "{}", loss.name);
    });
}

#[test]
fn student_and_teacher_may_differ_in_autodiff() {
    let device = device();
    each_logit_loss(|loss, settings| {
        let (student, teacher) = (random(1, [3, 4], 1.0, &device), random(2, [3, 4], 1.0, &device));
        let plain = number((loss.reduced)(settings, logits(student.clone(), teacher.clone())));
        let tracked = student.clone().autodiff().require_grad();
        assert_eq!(number((loss.reduced)(settings, logits(tracked, teacher.clone()))), plain, "{}", loss.name);
        let validated = number((loss.reduced)(settings, logits(student, teacher.autodiff())));
        assert_eq!(validated, plain, "{}", loss.name);
    });
}

#[test]
fn half_precision_stays_finite_and_near() {
    let device = device();
    let (student, teacher) = (random(1, [3, 5], 2.0, &device), random(2, [3, 5], 2.0, &device));
    let spoilt = Tensor::<2>::from_floats([[0.0, f32::NEG_INFINITY, 1.0, 2.0, 0.5]], &device).expand([3, 5]);
    for dtype in supported(&device, &[DType::F16, DType::BF16]) {
        for teacher in [&teacher, &spoilt] {
            // A teacher cached in another type than the student's is converted.
            check_finite(student.clone().cast(dtype), teacher.clone());
            for tail in [Tail::Bucket, Tail::Renormalise] {
                let sparse = SparseLogits::from_dense(teacher.clone(), 2, tail).unwrap();
                check_finite(student.clone().cast(dtype), sparse);
            }
        }
        each_logit_loss(|loss, settings| {
            let single = number((loss.reduced)(settings, logits(student.clone(), teacher.clone())));
            let half = logits(student.clone().cast(dtype), teacher.clone().cast(dtype));
            let half = number((loss.reduced)(settings, half));
            assert!((half - single).abs() < 0.05 * single.abs() + 0.05, "{} {dtype:?}: {half}, {single}", loss.name);
        });
        let shape = [3, 2, 5, 5];
        for student in [Tensor::zeros(shape, &device), random(3, shape, 1.0, &device)] {
            each_feature_loss(|loss, settings| {
                let student = student.clone().cast(dtype).autodiff().require_grad();
                let value =
                    (loss.reduced)(settings, stage(student.clone(), random(4, shape, 1.0, &device).cast(dtype)));
                assert_finite(&format!("{} {dtype:?} gradient", loss.name), &gradient(&value, &student));
                assert_finite(&format!("{} {dtype:?}", loss.name), &[number(value)]);
            });
        }
    }
}
