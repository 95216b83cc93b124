//! How far the device of the suite is from `flex`, over all losses.

use burn::tensor::{DType, Device};
use burn_distill_dev::{device, name, tolerance};
use burn_distill_losses::{SparseLogits, Tail};

use crate::{
    inputs::{gradient, logits, number, random, stage, values},
    table::{Logits, each_feature_loss, each_logit_loss, other_losses},
};

/// Rows, values and gradients of every loss on one device, each with its name.
fn all(device: &Device) -> Vec<(String, Vec<f64>)> {
    let found = std::cell::RefCell::new(Vec::new());
    let keep = |what: String, numbers: Vec<f64>| found.borrow_mut().push((what, numbers));
    let training = device.clone().autodiff();
    let (student, teacher) = (random(1, [16, 33], 2.0, &training), random(2, [16, 33], 2.5, device));
    let sparse = SparseLogits::from_dense(teacher.clone(), 8, Tail::Bucket).unwrap();
    for teacher in [teacher.clone().into(), sparse.into()] {
        each_logit_loss(|loss, settings| {
            if !loss.takes(&teacher) {
                return;
            }
            let student = student.clone().require_grad();
            let inputs = || Logits { teacher: teacher.clone(), ..logits(student.clone(), student.clone().inner()) };
            let value = (loss.reduced)(settings, inputs());
            keep(format!("gradient of {}", loss.name), gradient(&value, &student));
            keep(loss.name.into(), vec![number(value)]);
            keep(format!("rows of {}", loss.name), values(&(loss.rows)(settings, inputs())));
        });
    }
    each_feature_loss(|loss, settings| {
        let student = random(3, [6, 4, 5, 5], 1.0, &training).require_grad();
        let inputs = || stage(student.clone(), random(4, [6, 4, 5, 5], 1.5, device));
        let value = (loss.reduced)(settings, inputs());
        keep(format!("gradient of {}", loss.name), gradient(&value, &student));
        keep(loss.name.into(), vec![number(value)]);
        keep(format!("rows of {}", loss.name), values(&(loss.rows)(settings, inputs())));
    });
    for loss in other_losses() {
        for settings in loss.settings {
            let inputs = (loss.inputs)(7, 6).tensors(DType::F32, &training);
            let outcome = (loss.run)(&serde_json::from_str(settings).unwrap(), &inputs);
            keep(format!("rows of {}", loss.name), values(&outcome.rows));
            let (value, gradients) = outcome.backward(loss.name, &inputs);
            keep(loss.name.into(), vec![value]);
            for (input, slopes) in gradients {
                keep(format!("gradient of {} to {input}", loss.name), slopes);
            }
        }
    }
    found.into_inner()
}

/// The largest difference, relative to the largest of the numbers that belong together; numbers below a thousandth
/// count as that much.
#[test]
fn greatest_difference_from_flex() {
    if name() == "flex" {
        println!("skipped: flex is what other devices are compared with");
        return;
    }
    let (expected, got) = (all(&Device::flex()), all(&device()));
    assert_eq!(expected.len(), got.len());
    let mut greatest = (0.0, String::from("none"));
    for ((what, expected), (also, got)) in expected.into_iter().zip(got) {
        assert_eq!((&what, expected.len()), (&also, got.len()));
        let scale = expected.iter().fold(1e-3, |largest: f64, number| largest.max(number.abs()));
        for (expected, got) in expected.iter().zip(&got) {
            let difference = (got - expected).abs() / scale;
            assert!(difference.is_finite(), "{what}: {got} instead of {expected}");
            if difference > greatest.0 {
                greatest = (difference, what.clone());
            }
        }
    }
    let (difference, what) = greatest;
    println!("greatest difference from flex: {difference:.1e} ({what})");
    assert!(difference <= tolerance(), "{difference:.1e} ({what}), allowed {:.0e}", tolerance());
}
