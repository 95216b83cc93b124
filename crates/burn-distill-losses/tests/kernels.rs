//! The fused kernels against the composed form in f64, over drawn shapes, masks, temperatures and logits.
//!
//! The composed form is computed on `flex`, whatever the device under test.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Once;

use burn::tensor::{Bool, DType, Device, Distribution, Int, Tensor, TensorData};
use burn_distill_losses::*;
use proptest::{prelude::*, test_runner::RngSeed};

/// Greatest difference of a value, relative; and of a gradient, relative to its largest element.
const TOLERANCE: f64 = 1e-5;

fn device() -> Device {
    burn_distill_dev::device()
}

/// A batch of logits as numbers, so that each device makes its own tensors of them.
#[derive(Debug, Clone)]
struct Case {
    rows: usize,
    classes: usize,
    student: Vec<f32>,
    teacher: Vec<f32>,
    targets: Vec<i64>,
    mask: Option<Vec<bool>>,
    temperature: f64,
    /// Upstream gradient of the loss.
    factor: f64,
}

impl Case {
    fn tensor(&self, values: &[f32], device: &Device, dtype: DType) -> Tensor<2> {
        let data = TensorData::new(values.to_vec(), [self.rows, self.classes]);
        Tensor::<2>::from_data(data, (device, DType::F32)).cast(dtype)
    }

    fn targets(&self, device: &Device) -> Tensor<1, Int> {
        Tensor::from_data(TensorData::new(self.targets.clone(), [self.rows]), device)
    }

    fn mask(&self, device: &Device) -> Mask {
        self.mask.as_ref().map(|mask| Tensor::<1, Bool>::from_bool(mask.as_slice(), device)).into()
    }
}

fn case() -> impl Strategy<Value = Case> {
    let classes = prop_oneof![3 => 2usize..80, 1 => 90usize..140, 1 => 2040usize..2120, 1 => 4090usize..4200];
    (1usize..7, classes, 0.1f32..30.0, 0.3f64..8.0, any::<u64>(), 0.0f64..1.2, 0.2f64..3.0).prop_map(
        |(rows, classes, scale, temperature, seed, masked, factor)| {
            let mut state = seed | 1;
            let mut draw = move || {
                // xorshift64*: enough for inputs, and no dependency on a tensor's generator
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
            };
            let mut logits = |zeros: f64| -> Vec<f32> {
                let normal = |u: f64, v: f64| (-2.0 * u.max(1e-12).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
                let one = |drawn: f64, value: f64| if drawn < zeros { f32::NEG_INFINITY } else { scale * value as f32 };
                (0..rows * classes)
                    .map(|_| {
                        let (d, u, v) = (draw(), draw(), draw());
                        one(d, normal(u, v))
                    })
                    .collect()
            };
            let zeros = if seed % 3 == 0 { 0.2 } else { 0.0 };
            let (student, mut teacher) = (logits(0.0), logits(zeros));
            // A teacher that excludes all classes says nothing.
            teacher.chunks_mut(classes).filter(|row| row.iter().all(|x| x.is_infinite())).for_each(|row| row[0] = 0.0);
            let targets = (0..rows).map(|_| (draw() * classes as f64) as i64).collect();
            let mask = (masked < 1.0).then(|| (0..rows).map(|_| draw() >= 0.5 * masked).collect());
            Case { rows, classes, student, teacher, targets, mask, temperature, factor }
        },
    )
}

/// A loss as a function of a device's tensors, fused or composed.
type Loss = Box<dyn Fn(Tensor<2>, TeacherLogits, Tensor<1, Int>, Mask, bool) -> Tensor<1>>;

macro_rules! loss {
    ($config:expr) => {{
        let loss = $config.init().unwrap();
        Box::new(
            move |s: Tensor<2>, t: TeacherLogits, _: Tensor<1, Int>, m: Mask, fused: bool| {
                if fused { loss.forward(s, t, m) } else { loss.forward_composed(s, t, m) }
            },
        ) as Loss
    }};
    (targets $config:expr) => {{
        let loss = $config.init().unwrap();
        Box::new(
            move |s: Tensor<2>, t: TeacherLogits, y: Tensor<1, Int>, m: Mask, fused: bool| {
                if fused { loss.forward(s, t, y, m) } else { loss.forward_composed(s, t, y, m) }
            },
        ) as Loss
    }};
}

/// Every loss that has a kernel, in several settings.
fn losses(temperature: f64) -> Vec<(&'static str, Loss)> {
    let cross_entropy = KdLossConfig::new().with_form(KdForm::CrossEntropy);
    let skew = SkewKlLossConfig::new().with_alpha(0.3).with_form(KdForm::CrossEntropy);
    let one_pass = KdCrossEntropyLossConfig::new().with_soft_weight(0.4).with_hard_weight(1.3);
    let t = temperature;
    vec![
        ("kd", loss!(KdLossConfig::new().with_temperature(t))),
        ("kd, sum", loss!(KdLossConfig::new().with_temperature(t).with_reduction(Reduction::Sum))),
        ("kd, cross-entropy", loss!(cross_entropy.with_temperature(t))),
        ("reverse_kl", loss!(ReverseKlLossConfig::new().with_temperature(t))),
        ("reverse_kl, excluded", loss!(ReverseKlLossConfig::new().with_temperature(t).with_excluded(1e-5))),
        ("jsd", loss!(JsdLossConfig::new().with_temperature(t))),
        ("jsd, beta 0.1", loss!(JsdLossConfig::new().with_beta(0.1).with_temperature(t))),
        ("jsd, beta 0", loss!(JsdLossConfig::new().with_beta(0.0).with_temperature(t))),
        ("jsd, beta 1", loss!(JsdLossConfig::new().with_beta(1.0).with_temperature(t))),
        ("skew_kl", loss!(SkewKlLossConfig::new().with_temperature(t))),
        ("skew_kl, cross-entropy", loss!(skew.with_temperature(t))),
        ("skew_reverse_kl", loss!(SkewReverseKlLossConfig::new().with_temperature(t))),
        ("dkd", loss!(targets DkdLossConfig::new().with_temperature(t))),
        (
            "dkd, alpha 3, beta 0.5",
            loss!(targets DkdLossConfig::new().with_alpha(3.0).with_beta(0.5).with_temperature(t)),
        ),
        ("kd_cross_entropy", loss!(targets one_pass.with_temperature(t))),
        ("kd_cross_entropy, T 1", loss!(targets KdCrossEntropyLossConfig::new().with_temperature(1.0))),
    ]
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// Value and gradient of `factor` times the loss.
fn outcome(loss: &Loss, student: Tensor<2>, teacher: TeacherLogits, case: &Case, fused: bool) -> (f64, Vec<f64>) {
    let device = student.device().without_autodiff();
    let student = student.autodiff().require_grad();
    let value = loss(student.clone(), teacher, case.targets(&device), case.mask(&device), fused);
    let gradients = value.clone().mul_scalar(case.factor).backward();
    (numbers(value)[0], numbers(student.grad(&gradients).expect("the student takes a gradient")))
}

/// How large the terms are of which a value and a gradient are sums: where they cancel, as where student and teacher
/// nearly agree, the error of f32 is theirs and not that of what is left.
struct Terms {
    value: f64,
    gradient: f64,
}

impl Terms {
    fn of(name: &str, case: &Case) -> Self {
        let largest = |values: &[f32]| values.iter().filter(|x| x.is_finite()).fold(0f32, |most, x| most.max(x.abs()));
        let weight = if name.starts_with("dkd") {
            8.0
        } else if ["reverse_kl", "jsd, beta 1"].iter().any(|start| name.starts_with(start)) {
            // Differences of logarithms, which are as large as the logits.
            let spread = f64::from(largest(&case.student) + largest(&case.teacher)) / case.temperature;
            let absent = name.contains("Zero") || case.teacher.iter().any(|x| x.is_infinite());
            if absent { spread.max(-f64::from(f32::MIN_POSITIVE).ln()) } else { spread }
        } else {
            1.0
        };
        let rows = if name.contains("sum") { case.rows as f64 } else { 1.0 };
        let weight = rows * weight.max(1.0);
        let gradient = weight * case.factor * case.temperature.max(1.0);
        Self { value: weight * case.temperature.powi(2).max(1.0), gradient }
    }
}

fn compare(name: &str, got: &(f64, Vec<f64>), expected: &(f64, Vec<f64>), terms: Terms) -> Result<(), TestCaseError> {
    let error = (got.0 - expected.0).abs() / expected.0.abs().max(0.03 * terms.value);
    prop_assert!(error < TOLERANCE, "{}: value {} instead of {}", name, got.0, expected.0);
    let largest = expected.1.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    prop_assert_eq!(got.1.len(), expected.1.len());
    for (i, (got, expected)) in got.1.iter().zip(&expected.1).enumerate() {
        let error = (got - expected).abs() / largest.max(0.03 * terms.gradient);
        prop_assert!(error < TOLERANCE, "{}: gradient {} at {} instead of {} (of {})", name, got, i, expected, largest);
    }
    Ok(())
}

fn dense(case: &Case, device: &Device) -> Result<(), TestCaseError> {
    let flex = Device::flex();
    for (name, loss) in losses(case.temperature) {
        let exact = case.tensor(&case.student, &flex, DType::F64);
        let exact = outcome(&loss, exact, case.tensor(&case.teacher, &flex, DType::F64).into(), case, false);
        let student = case.tensor(&case.student, device, DType::F32);
        // Kept: somebody else holds the teacher's logits, which must not change.
        let teacher = case.tensor(&case.teacher, device, DType::F32);
        let before = numbers(teacher.clone());
        let kept = outcome(&loss, student.clone(), teacher.clone().into(), case, true);
        compare(name, &kept, &exact, Terms::of(name, case))?;
        prop_assert_eq!(&numbers(teacher.clone()), &before, "{} changed the teacher's logits", name);
        prop_assert_eq!(numbers(student.clone()), case.student.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
        // Handed over: the gradient may go over them.
        let handed = outcome(&loss, student.clone(), teacher.into(), case, true);
        prop_assert_eq!(&handed, &kept, "{}", name);
        // Without a gradient the value is the same.
        let teacher = case.tensor(&case.teacher, device, DType::F32);
        let value = loss(student, teacher.into(), case.targets(device), case.mask(device), true);
        prop_assert_eq!(numbers(value)[0], kept.0, "{} without a gradient", name);
    }
    Ok(())
}

fn sparse(case: &Case, device: &Device) -> Result<(), TestCaseError> {
    let flex = Device::flex();
    for tail in [Tail::Bucket, Tail::Renormalise, Tail::Zero, Tail::Drop] {
        for k in [1, case.classes.div_ceil(3), case.classes] {
            let teacher = |device: &Device, dtype: DType| {
                SparseLogits::from_dense(case.tensor(&case.teacher, device, dtype), k, tail).unwrap()
            };
            for (name, loss) in losses(case.temperature) {
                let exact = case.tensor(&case.student, &flex, DType::F64);
                let exact = outcome(&loss, exact, teacher(&flex, DType::F64).into(), case, false);
                let student = case.tensor(&case.student, device, DType::F32);
                let got = outcome(&loss, student, teacher(device, DType::F32).into(), case, true);
                compare(&format!("{name}, top {k}, {tail:?}"), &got, &exact, Terms::of(name, case))?;
            }
        }
    }
    Ok(())
}

/// Whether the device has kernels for such a teacher; says so where it has none.
fn has_kernels(device: &Device, said: &Once, teacher: impl Fn(Tensor<2>) -> TeacherLogits) -> bool {
    let logits = Tensor::<2>::zeros([1, 2], device);
    let path = KdLossConfig::new().init().unwrap().kernel_path(&logits, &teacher(logits.clone()));
    if let KernelPath::Composed(reason) = &path {
        said.call_once(|| println!("skipped: no kernels on {}: {reason}", burn_distill_dev::name()));
    }
    !matches!(path, KernelPath::Composed(_))
}

/// The same cases each time, so that a change is judged by what it changes; kernels on software drivers are slow.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        cases: if device() == Device::flex() { 48 } else { 6 },
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn dense_kernels_agree_with_the_composed_form(case in case()) {
        static SAID: Once = Once::new();
        if has_kernels(&device(), &SAID, TeacherLogits::from) {
            dense(&case, &device())?;
        }
    }

    #[test]
    fn sparse_kernels_agree_with_the_composed_form(case in case()) {
        prop_assume!(case.classes < 200);
        static SAID: Once = Once::new();
        if has_kernels(&device(), &SAID, |logits| SparseLogits::from_dense(logits, 1, Tail::Bucket).unwrap().into()) {
            sparse(&case, &device())?;
        }
    }
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 2.0), device)
}

/// Kernels read a row block by block, relative to the largest logit so far.
#[test]
fn logits_that_rise_along_a_row_agree_with_the_composed_form() {
    let device = device();
    if !has_kernels(&device, &Once::new(), TeacherLogits::from) {
        return;
    }
    let classes = 6200;
    let wave = |i: usize| ((i * 7919) % 101) as f32 / 50.0;
    let row = |of: &dyn Fn(usize) -> f32| (0..classes).map(|i| of(i) + wave(i)).collect::<Vec<f32>>();
    let peak = |at: usize| move |i: usize| if i == at { 30.0 } else { 0.0 };
    let steps = |i: usize| 9.0 * (i / 2048) as f32;
    let rows: [[Vec<f32>; 2]; 4] = [
        [row(&|i| i as f32 * 0.01), row(&|i| i as f32 * -0.01)],
        [row(&peak(3000)), row(&peak(6199))],
        [row(&|_| 0.0), row(&steps)],
        // A teacher whose first classes, and one among others, are excluded.
        [row(&steps), row(&|i| if i < 2100 || i == 5000 { f32::NEG_INFINITY } else { 0.0 })],
    ];
    for [student, teacher] in rows {
        let (targets, factor) = (vec![2050], 1.0);
        let case = Case { rows: 1, classes, student, teacher, targets, mask: None, temperature: 1.5, factor };
        dense(&case, &device).unwrap();
    }
}

#[test]
fn which_path_runs_is_told() {
    let device = Device::flex();
    let (student, teacher) = (random([2, 5], &device), TeacherLogits::from(random([2, 5], &device)));
    let kd = KdLossConfig::new().init().unwrap();
    assert_eq!(kd.kernel_path(&student, &teacher), KernelPath::Cpu);
    assert_eq!(kd.kernel_path(&student.clone().autodiff(), &teacher), KernelPath::Cpu);
    let path = kd.at_temperature(1e-37).kernel_path(&student, &teacher);
    assert!(matches!(&path, KernelPath::Composed(reason) if reason.contains("temperature")), "{path}");
    let path = TvdLossConfig::new().init().unwrap().kernel_path(&student, &teacher);
    assert_eq!(path.to_string(), "composed of tensor operations: this loss has no kernel");
}

#[test]
fn a_strided_student_and_teacher_are_read_in_their_order() {
    let device = device();
    let kd = KdLossConfig::new().init().unwrap();
    let (student, teacher) = (random([5, 3], &device), random([5, 3], &device));
    let value = |s: Tensor<2>, t: Tensor<2>| numbers(kd.forward(s, t, None))[0];
    let expected = numbers(kd.forward_composed(student.clone().transpose(), teacher.clone().transpose(), None))[0];
    assert!((value(student.clone().transpose(), teacher.clone().transpose()) - expected).abs() < 1e-5);
    // Part of a larger tensor: the gradient must not go over its neighbours.
    let whole = random([4, 6], &device);
    let before = numbers(whole.clone());
    let part = whole.clone().slice([1..3, 0..6]);
    let own = random([2, 6], &device).autodiff().require_grad();
    let gradient = own.grad(&kd.forward(own.clone(), part, None).backward()).unwrap();
    assert_eq!(gradient.dims(), [2, 6]);
    assert_eq!(numbers(whole), before);
}

#[test]
fn half_precision_is_read_and_written_as_it_is() {
    let device = Device::flex();
    let (student, teacher) = (random([3, 70], &device), random([3, 70], &device));
    for dtype in [DType::F16, DType::BF16] {
        let own = student.clone().cast(dtype).autodiff().require_grad();
        let kd = KdLossConfig::new().with_temperature(2.0).init().unwrap();
        assert_eq!(kd.kernel_path(&own, &teacher.clone().cast(dtype).into()), KernelPath::Cpu);
        let loss = kd.forward(own.clone(), teacher.clone().cast(dtype), None);
        let gradient = own.grad(&loss.backward()).unwrap();
        assert_eq!(gradient.dtype(), dtype);
        let rounded = own.clone().inner().cast(DType::F64).autodiff().require_grad();
        let exact = kd.forward_composed(rounded.clone(), teacher.clone().cast(dtype).cast(DType::F64), None);
        let exact = numbers(rounded.grad(&exact.backward()).unwrap());
        let largest = exact.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        for (got, expected) in numbers(gradient).iter().zip(exact) {
            assert!((got - expected).abs() < 0.01 * largest, "{dtype:?}: {got} instead of {expected}");
        }
    }
}

#[test]
fn not_a_number_stays_one_and_masked_rows_are_not_read() {
    let device = device();
    let spoilt = Tensor::<2>::from_floats([[0.0, 1.0, 2.0], [f32::NAN, 0.0, 1.0]], &device);
    let teacher = Tensor::<2>::from_floats([[1.0, 0.0, 0.5], [f32::INFINITY, f32::NAN, 0.0]], &device);
    for (name, loss) in losses(1.0) {
        let targets = Tensor::<1, Int>::from_ints([0, 0], &device);
        let value = loss(spoilt.clone(), teacher.clone().into(), targets, None.into(), true);
        assert!(numbers(value)[0].is_nan(), "{name}");
        let targets = Tensor::<1, Int>::from_ints([0, -100], &device);
        let mask = Tensor::<1, Bool>::from_bool([true, false], &device);
        let student = spoilt.clone().autodiff().require_grad();
        let value = loss(student.clone(), teacher.clone().into(), targets, mask.into(), true);
        let gradient = numbers(student.grad(&value.backward()).unwrap());
        assert!(gradient.iter().all(|x| x.is_finite()), "{name}: {gradient:?}");
        assert_eq!(gradient[3..], [0.0; 3], "{name}");
        assert!(numbers(value)[0].is_finite(), "{name}");
    }
}

#[test]
#[should_panic(expected = "`targets` must be class ids in [0, 3), row 1 has 7")]
fn a_target_out_of_range_is_named() {
    let device = Device::flex();
    let loss = DkdLossConfig::new().init().unwrap();
    let targets = Tensor::<1, Int>::from_ints([0, 7], &device);
    loss.forward(random([2, 3], &device), random([2, 3], &device), targets, None);
}
