//! Classification statistics against numbers worked out by hand, and their laws.

use burn::tensor::{Bool, Device, Int, Tensor};
use burn_distill_eval::{ClassificationStats, Mean, agreement, kl_to_teacher, negative_log_likelihood, top_k_accuracy};
use proptest::prelude::*;

fn close(value: f64, expected: f64) {
    assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
}

fn ln(probs: [f32; 3]) -> [f32; 3] {
    probs.map(f32::ln)
}

#[test]
fn three_rows_by_hand() {
    let device = Device::flex();
    // Shifts of a row change no probability.
    let student = Tensor::<2>::from_floats([ln([0.5, 0.3, 0.2]), ln([0.1, 0.2, 0.7]), ln([0.25, 0.5, 0.25])], &device);
    let student = student + Tensor::<2>::from_floats([[3.0], [-7.0], [0.5]], &device);
    let teacher = Tensor::<2>::from_floats([ln([0.6, 0.2, 0.2]), ln([0.5, 0.2, 0.3]), ln([0.25, 0.5, 0.25])], &device);
    let targets = Tensor::<1, Int>::from_ints([0, 1, 0], &device);

    let stats = ClassificationStats::of(student.clone(), Some(teacher.clone()), Some(targets.clone()), None);
    let kl = 0.6 * (0.6f64 / 0.5).ln() + 0.2 * (0.2f64 / 0.3).ln() // row 0, class 2 adds nothing
        + 0.5 * 5f64.ln() + 0.3 * (0.3f64 / 0.7).ln(); // row 1, class 1 adds nothing; row 2 is equal
    let nll = -(0.5f64.ln() + 0.2f64.ln() + 0.25f64.ln());
    assert_eq!(stats.top1, Some(Mean { sum: 1.0, count: 3 }));
    assert_eq!(stats.top5, Some(Mean { sum: 3.0, count: 3 }));
    assert_eq!(stats.agreement, Some(Mean { sum: 2.0, count: 3 }));
    close(stats.kl.unwrap().sum, kl);
    close(stats.nll.unwrap().sum, nll);
    // Confidences 0.5 (right), 0.7 (wrong), 0.5 (wrong): bin 7 holds two, |1 - 1.0| = 0; bin 10 holds 0.7.
    close(stats.metrics()["calibration_error"], 0.7 / 3.0);

    assert_eq!(agreement(student.clone(), teacher.clone(), None), stats.agreement.unwrap());
    assert_eq!(kl_to_teacher(student.clone(), teacher, None), stats.kl.unwrap());
    assert_eq!(negative_log_likelihood(student.clone(), targets.clone(), None), stats.nll.unwrap());
    // Row 0: rank 0; row 1: rank 1; row 2: classes 0 and 2 tie behind class 1, the smaller one stands first: rank 1.
    for (k, hits) in [(0, 0.0), (1, 1.0), (2, 3.0), (3, 3.0), (99, 3.0)] {
        assert_eq!(top_k_accuracy(student.clone(), targets.clone(), k, None), Mean { sum: hits, count: 3 }, "k = {k}");
    }
}

#[test]
fn the_direction_of_kl_is_teacher_first() {
    let device = Device::flex();
    let student = Tensor::<2>::from_floats([ln([0.98, 0.01, 0.01])], &device);
    let teacher = Tensor::<2>::from_floats([[0.0; 3]], &device);
    let forward = (1.0 / 3.0) * ((1.0f64 / 3.0 / 0.98).ln() + 2.0 * (1.0f64 / 3.0 / 0.01).ln());
    close(kl_to_teacher(student, teacher, None).sum, forward);
}

#[test]
fn masked_rows_are_not_read() {
    let device = Device::flex();
    let student = Tensor::<2>::from_floats([[0.0, 1.0], [f32::NAN, 0.0]], &device);
    let teacher = Tensor::<2>::from_floats([[0.0, 1.0], [f32::INFINITY, 0.0]], &device);
    let targets = Tensor::<1, Int>::from_ints([1, -100], &device);
    let mask = Tensor::<1, Bool>::from_bool([true, false], &device);
    let stats = ClassificationStats::of(student.clone(), Some(teacher), Some(targets.clone()), Some(mask.clone()));
    assert_eq!(stats.top1, Some(Mean { sum: 1.0, count: 1 }));
    assert_eq!(stats.kl, Some(Mean { sum: 0.0, count: 1 }));
    assert_eq!(top_k_accuracy(student, targets, 1, Some(mask)), Mean { sum: 1.0, count: 1 });
    assert!(stats.metrics().values().all(|value| value.is_finite()), "{:?}", stats.metrics());
}

#[test]
fn a_nan_row_is_wrong_and_shows() {
    let logits = [f32::NAN, 9.0, 0.0, 9.0];
    let stats = ClassificationStats::from_rows(2, &logits, Some(&[0.0, 9.0, 0.0, 9.0]), Some(&[1, 1]), None);
    let metrics = stats.metrics();
    assert_eq!((metrics["accuracy"], metrics["accuracy_top5"], metrics["agreement"]), (0.5, 0.5, 0.5));
    for name in ["kl_to_teacher", "negative_log_likelihood", "calibration_error"] {
        assert!(metrics[name].is_nan(), "{name}");
    }
}

#[test]
fn excluded_classes_have_probability_zero() {
    let excluded = f32::NEG_INFINITY;
    let student = [excluded, 0.0, 0.0];
    let ruled_out_by_both = ClassificationStats::from_rows(3, &student, Some(&student), Some(&[1]), None).metrics();
    assert_eq!((ruled_out_by_both["kl_to_teacher"], ruled_out_by_both["accuracy"]), (0.0, 1.0));
    let ruled_out_by_student = ClassificationStats::from_rows(3, &student, Some(&[0.0; 3]), Some(&[0]), None).metrics();
    assert_eq!(ruled_out_by_student["kl_to_teacher"], f64::INFINITY);
    assert_eq!(ruled_out_by_student["negative_log_likelihood"], f64::INFINITY);
}

#[test]
fn no_rows_and_missing_inputs() {
    let empty = ClassificationStats::from_rows(10, &[], Some(&[]), Some(&[]), None);
    assert_eq!(empty.top1, Some(Mean::default()));
    assert!(empty.metrics().is_empty());
    let unlabelled = ClassificationStats::from_rows(2, &[1.0, 0.0], Some(&[1.0, 0.0]), None, None);
    assert_eq!(unlabelled.metrics().into_keys().collect::<Vec<_>>(), ["agreement", "kl_to_teacher"]);
    let alone = ClassificationStats::from_rows(2, &[1.0, 0.0], None, Some(&[0]), None);
    assert!(alone.agreement.is_none() && alone.kl.is_none());
    let nothing_counts = ClassificationStats::from_rows(2, &[1.0, 0.0], None, Some(&[0]), Some(&[false]));
    assert!(nothing_counts.metrics().is_empty());
}

#[test]
#[should_panic(expected = "`targets` must be in [0, 2), got -100 in row 1")]
fn a_target_out_of_range_is_a_bug() {
    ClassificationStats::from_rows(2, &[0.0; 4], None, Some(&[0, -100]), None);
}

#[test]
#[should_panic(expected = "`teacher_logits` must have the shape of `student_logits`")]
fn classes_must_agree() {
    let device = Device::flex();
    agreement(Tensor::zeros([2, 3], &device), Tensor::zeros([3, 2], &device), None);
}

#[test]
fn half_precision_and_double_are_read() {
    let device = Device::flex();
    let logits = Tensor::<2>::from_floats([[0.0, 1.0], [2.0, 1.0]], &device);
    let targets = Tensor::<1, Int>::from_ints([1, 1], &device);
    for dtype in [burn::tensor::DType::F16, burn::tensor::DType::F64] {
        let accuracy = top_k_accuracy(logits.clone().cast(dtype), targets.clone(), 1, None);
        assert_eq!(accuracy, Mean { sum: 1.0, count: 2 });
    }
}

fn logit() -> impl Strategy<Value = f32> {
    prop_oneof![8 => -20f32..20.0, 1 => Just(0.0), 1 => Just(1e4), 1 => Just(-1e4)]
}

proptest! {
    #[test]
    fn halves_add_up_to_the_whole(
        rows in prop::collection::vec((prop::array::uniform7(logit()), prop::array::uniform7(logit()), 0i64..7, any::<bool>()), 0..20),
        cut in 0usize..20,
    ) {
        let stats = |rows: &[([f32; 7], [f32; 7], i64, bool)]| {
            let student: Vec<f32> = rows.iter().flat_map(|row| row.0).collect();
            let teacher: Vec<f32> = rows.iter().flat_map(|row| row.1).collect();
            let targets: Vec<i64> = rows.iter().map(|row| row.2).collect();
            let mask: Vec<bool> = rows.iter().map(|row| row.3).collect();
            ClassificationStats::from_rows(7, &student, Some(&teacher), Some(&targets), Some(&mask))
        };
        let cut = cut.min(rows.len());
        let mut halves = ClassificationStats::default();
        halves.merge(&stats(&rows[..cut]));
        halves.merge(&stats(&rows[cut..]));
        let whole = stats(&rows);
        // Counts are exact; sums of logarithms differ by rounding alone.
        prop_assert_eq!((halves.top1, halves.top5, halves.agreement), (whole.top1, whole.top5, whole.agreement));
        let (halves, whole) = (halves.metrics(), whole.metrics());
        prop_assert_eq!(halves.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
        for (name, value) in &whole {
            prop_assert!((halves[name] - value).abs() <= 1e-12 * value.abs().max(1.0), "{} {}", name, value);
        }
    }

    #[test]
    fn laws(student in prop::array::uniform7(logit()), teacher in prop::array::uniform7(logit()), target in 0i64..7) {
        let metrics = ClassificationStats::from_rows(7, &student, Some(&teacher), Some(&[target]), None).metrics();
        prop_assert!(metrics["kl_to_teacher"] >= 0.0);
        prop_assert!(metrics["negative_log_likelihood"] >= 0.0);
        prop_assert!(metrics["accuracy"] <= metrics["accuracy_top5"]);
        prop_assert!((0.0..=1.0).contains(&metrics["calibration_error"]));
        let itself = ClassificationStats::from_rows(7, &teacher, Some(&teacher), None, None).metrics();
        prop_assert_eq!((itself["kl_to_teacher"], itself["agreement"]), (0.0, 1.0));
    }
}
