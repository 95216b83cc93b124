//! Micro-batches add up to one batch, and gradients are clipped by their global norm.

use std::path::Path;

use burn_distill_train::{OptimizerConfig, OptimizerRule};

use crate::fixture::*;

fn sgd() -> OptimizerConfig {
    OptimizerConfig::new(OptimizerRule::Sgd { momentum: 0.0, nesterov: false })
}

#[test]
fn micro_batches_equal_one_batch_last_group_included() {
    // 16 samples: groups of 6, 6 and 4.
    let run = |batch_size, accumulate, folder: &Path| {
        from_teacher(Mlp::plain(1), loader(samples(16, 5), batch_size), folder)
            .term("hard", 0.5, hard)
            .term("kd", 0.5, soft)
            .temperature(3.0)
            .optimizer(OptimizerConfig::sgd())
            .learning_rate(0.1)
            .clip_grad_norm(0.2)
            .accumulate(accumulate)
            .epochs(2)
            .run()
            .unwrap()
    };
    let (one, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (whole, parts) = (run(6, 1, one.path()), run(2, 3, many.path()));
    assert_eq!((whole.steps, parts.steps), (6, 6));
    assert_close(&numbers_of(one.path()), &numbers_of(many.path()), 1e-6);
    let norm = |trained: &burn_distill_train::Trained<Mlp>| value(&trained.metrics, 2, "train", "grad_norm").unwrap();
    assert!((norm(&whole) - norm(&parts)).abs() < 1e-6);
    // It is no accident of weights that hardly move.
    let other = tempfile::tempdir().unwrap();
    run(2, 1, other.path());
    let moved =
        numbers_of(other.path()).iter().zip(numbers_of(one.path())).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(moved > 1e-3, "{moved}");
}

#[test]
fn the_global_norm_is_clipped_and_shown_as_it_was() {
    // The gradient is (3, 4), its norm 5; the second run's is halved by the weight, and not above the limit.
    let run = |weight: f64, limit: f64| {
        let folder = tempfile::tempdir().unwrap();
        let trained = of_vector([1.0, 1.0], folder.path())
            .term("slope", weight, |view| {
                let slope = burn::tensor::Tensor::from_floats([3.0, 4.0], &view.student.device());
                (view.student.clone() * slope).sum()
            })
            .optimizer(sgd())
            .learning_rate(0.5)
            .clip_grad_norm(limit)
            .run()
            .unwrap();
        (trained.student.numbers(), value(&trained.metrics, 1, "train", "grad_norm").unwrap())
    };
    let (clipped, norm) = run(1.0, 1.0);
    assert_close(&clipped, &[1.0 - 0.5 * 0.6, 1.0 - 0.5 * 0.8], 1e-6);
    assert_eq!(norm, 5.0);
    let (free, norm) = run(0.5, 2.5);
    assert_close(&free, &[1.0 - 0.5 * 1.5, 1.0 - 0.5 * 2.0], 1e-6);
    assert_eq!(norm, 2.5);
}

#[test]
fn the_norm_is_over_all_parameters_learned_parts_included() {
    let folder = tempfile::tempdir().unwrap();
    let one = || loader(samples(2, 0), 2);
    let student = Vector::new([1.0]);
    let trained = burn_distill_train::Distillation::new(student, burn_distill_models::NoTeacher::new(), one(), one())
        .folder(folder.path())
        .progress(burn_distill_train::Progress::Silent)
        .parts(Vector::new([2.0]))
        .term("sum", 1.0, |view| view.student.clone().mul_scalar(3.0) + view.parts.values.val().mul_scalar(4.0))
        .optimizer(sgd())
        .learning_rate(1.0)
        .clip_grad_norm(1.0)
        .run()
        .unwrap();
    assert_eq!(trained.best("sum").unwrap(), round(3.0 * 0.4 + 4.0 * 1.2));
    assert_close(&trained.student.numbers(), &[0.4], 1e-6);
    assert_close(&trained.parts.numbers(), &[1.2], 1e-6);
}

/// To f32, in which the models compute.
fn round(value: f64) -> f64 {
    let digits = format!("{:.14e}", f64::from(value as f32));
    digits.parse().unwrap()
}

#[test]
fn a_weight_that_starts_at_zero_does_not_stand_still() {
    let folder = tempfile::tempdir().unwrap();
    let trained = of_vector([1.0], folder.path())
        .term("sum", burn_distill_schedules::Schedule::linear(0.0, 1.0, 2).unwrap(), |view| view.student.clone())
        .monitor(burn_distill_train::Monitor::lowest("sum"))
        .optimizer(sgd())
        .learning_rate(0.1)
        .epochs(3)
        .run()
        .unwrap();
    assert_eq!(trained.steps, 3);
    assert_close(&trained.student.numbers(), &[1.0 - 0.1 * (0.0 + 0.5 + 1.0)], 1e-6);
}
