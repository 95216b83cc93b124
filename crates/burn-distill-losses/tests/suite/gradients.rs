//! Gradients against central differences, in f64 on random asymmetric input.

use burn::tensor::{DType, Tensor};
use burn_distill_dev::{device, supported};
use burn_distill_losses::{Mask, SparseLogits, Tail};

use crate::{
    inputs::{assert_close, bools, gradient, ints, number, numbers, stage, targets, tensor},
    table::{Logits, each_feature_loss, each_logit_loss},
};

const STEP: f64 = 1e-5;

/// Compares the gradient of `loss` at `point` with central differences.
fn check<const D: usize>(what: &str, point: &[f64], shape: [usize; D], loss: impl Fn(Tensor<D>) -> Tensor<1>) {
    let device = device();
    let input = tensor(point, shape, DType::F64, &device.clone().autodiff()).require_grad();
    let exact = gradient(&loss(input.clone()), &input);
    let differences: Vec<_> = (0..point.len())
        .map(|index| {
            let at = |offset: f64| {
                let mut moved = point.to_vec();
                moved[index] += offset;
                number(loss(tensor(&moved, shape, DType::F64, &device)))
            };
            (at(STEP) - at(-STEP)) / (2.0 * STEP)
        })
        .collect();
    assert!(differences.iter().any(|slope| slope.abs() > 1e-4), "{what}: the loss does not depend on its input");
    assert_close(what, &exact, &differences, 1e-6, 1e-8);
}

#[test]
fn logit_losses() {
    let device = device();
    if supported(&device, &[DType::F64]).is_empty() {
        return;
    }
    let shape = [4, 5];
    let teacher = tensor(&numbers(2, 20, 2.5), shape, DType::F64, &device);
    let indices = ints(&[0, 2, 1, 4, 3, 0, 2, 4], [4, 2], &device);
    let log_probs = tensor(&[0.5, 0.3, 0.2, 0.1, 0.7, 0.25, 0.4, 0.3], [4, 2], DType::F64, &device).log();
    let sparse = |tail| SparseLogits::new(indices.clone(), log_probs.clone(), 5, 2.0, tail).unwrap();
    let tails = [Tail::Bucket, Tail::Renormalise, Tail::Zero, Tail::Drop].map(|tail| sparse(tail).into());
    let teachers = [teacher.into()].into_iter().chain(tails);
    for (index, teacher) in teachers.enumerate() {
        each_logit_loss(|loss, settings| {
            if !loss.takes(&teacher) || !loss.descends {
                return;
            }
            for kept in [None, Some(bools(&[true, false, true, true], &device))] {
                check(&format!("{} {settings} teacher {index}", loss.name), &numbers(1, 20, 2.0), shape, |student| {
                    let (targets, mask) = (targets(4, 5, &device), Mask::from(kept.clone()));
                    (loss.reduced)(settings, Logits { student, teacher: teacher.clone(), targets, mask })
                });
            }
        });
    }
}

#[test]
fn feature_losses() {
    let device = device();
    if supported(&device, &[DType::F64]).is_empty() {
        return;
    }
    let student = [4, 2, 5, 5];
    each_feature_loss(|loss, settings| {
        let shape = if loss.any_teacher_shape { [4, 3, 4, 3] } else { student };
        let teacher = tensor(&numbers(4, shape.iter().product(), 1.5), shape, DType::F64, &device);
        check(&format!("{} {settings}", loss.name), &numbers(3, 200, 1.0), student, |student| {
            (loss.reduced)(settings, stage(student, teacher.clone()))
        });
    });
}
