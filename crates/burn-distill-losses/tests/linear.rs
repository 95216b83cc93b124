//! Losses from hidden states, chunk by chunk, against the loss on the logits of all tokens.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use burn::tensor::{Bool, DType, Device, Distribution, Int, Tensor};
use burn_distill_losses::*;

const TOKENS: usize = 11;
const VOCABULARY: usize = 37;

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

fn head(hidden: usize, bias: bool, device: &Device) -> LinearHead {
    let head = LinearHead::new(random([TOKENS, hidden], device), random([VOCABULARY, hidden], device));
    if bias { head.with_bias(random([VOCABULARY], device)) } else { head }
}

fn tracked(head: &LinearHead) -> LinearHead {
    LinearHead {
        hidden: head.hidden.clone().autodiff().require_grad(),
        weight: head.weight.clone().autodiff().require_grad(),
        bias: head.bias.clone().map(|bias| bias.autodiff().require_grad()),
    }
}

fn logits(head: &LinearHead) -> Tensor<2> {
    let logits = head.hidden.clone().matmul(head.weight.clone().transpose());
    match &head.bias {
        Some(bias) => logits + bias.clone().unsqueeze_dim(0),
        None => logits,
    }
}

/// Value and gradients of 1.7 times a loss: hidden states, projection, bias.
fn outcome(student: &LinearHead, loss: Tensor<1>) -> Vec<Vec<f64>> {
    let gradients = loss.clone().mul_scalar(1.7).backward();
    let mut found = vec![numbers(loss)];
    found.push(numbers(student.hidden.grad(&gradients).unwrap()));
    found.push(numbers(student.weight.grad(&gradients).unwrap()));
    found.extend(student.bias.as_ref().map(|bias| numbers(bias.grad(&gradients).unwrap())));
    found
}

fn assert_close(what: &str, got: &[Vec<f64>], expected: &[Vec<f64>]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (part, (got, expected)) in got.iter().zip(expected).enumerate() {
        let largest = expected.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-5 * largest, "{what}, part {part}: {got} instead of {expected}");
        }
    }
}

/// Every linear loss beside the loss on logits, with weights 0.6 and 0.4.
fn check(bias: bool, chunk: Option<usize>, sparse: Option<Tail>, masked: bool) {
    let device = burn_distill_dev::device();
    let (student, teacher) = (head(6, bias, &device), head(9, bias, &device));
    let targets = Tensor::<1, Int>::arange(0..TOKENS as i64, &device).mul_scalar(5).remainder_scalar(VOCABULARY as i64);
    let mask: Mask = masked
        .then(|| Tensor::<1, Bool>::from_bool(std::array::from_fn::<_, TOKENS, _>(|i| i % 4 != 1), &device))
        .into();
    let signal = || match sparse {
        Some(tail) => TeacherLogits::from(SparseLogits::from_dense(logits(&teacher), 5, tail).unwrap()),
        None => logits(&teacher).into(),
    };
    macro_rules! compare {
        ($linear:ident, $plain:ident $(, $with:ident, $value:literal)?) => {
            let what = format!("{} bias {bias} chunk {chunk:?} sparse {sparse:?} masked {masked}", stringify!($linear));
            let linear = $linear::new()$(.$with($value))?.with_temperature(2.0).with_chunk_tokens(chunk);
            let linear = linear.with_soft_weight(0.6).with_hard_weight(0.4).init().unwrap();
            let own = tracked(&student);
            let loss = match sparse {
                Some(_) => linear.forward(own.clone(), signal(), Some(targets.clone()), mask.clone()),
                None => linear.forward(own.clone(), teacher.clone(), Some(targets.clone()), mask.clone()),
            };
            let got = outcome(&own, loss);
            let own = tracked(&student);
            let soft = $plain::new()$(.$with($value))?.with_temperature(2.0).init().unwrap();
            let hard = CrossEntropyLossConfig::new().init().unwrap();
            let whole = soft.forward_composed(logits(&own), signal(), mask.clone()).mul_scalar(0.6)
                + hard.forward(logits(&own), targets.clone(), mask.clone()).mul_scalar(0.4);
            assert_close(&what, &got, &outcome(&own, whole));
        };
    }
    compare!(LinearKdLossConfig, KdLossConfig);
    compare!(LinearJsdLossConfig, JsdLossConfig, with_beta, 0.3);
    compare!(LinearReverseKlLossConfig, ReverseKlLossConfig);
}

#[test]
fn chunks_of_every_size_give_the_loss_of_all_tokens() {
    for chunk in [Some(1), Some(3), Some(11), Some(100), None] {
        check(false, chunk, None, false);
    }
}

#[test]
fn with_bias_masks_and_sparse_teachers() {
    check(true, Some(4), None, true);
    for tail in [Tail::Bucket, Tail::Renormalise, Tail::Zero, Tail::Drop] {
        check(true, Some(4), Some(tail), true);
    }
}

#[test]
fn a_tied_projection_gets_both_gradients() {
    let device = burn_distill_dev::device();
    let weight = random([VOCABULARY, 6], &device);
    let teacher = random([TOKENS, VOCABULARY], &device);
    let ids = Tensor::<1, Int>::arange(0..TOKENS as i64, &device);
    let run = |linear: bool| {
        let weight = weight.clone().autodiff().require_grad();
        let hidden = weight.clone().select(0, ids.clone()).tanh();
        let loss = if linear {
            let loss = LinearKdLossConfig::new().with_chunk_tokens(Some(4)).init().unwrap();
            loss.forward(LinearHead::new(hidden, weight.clone()), teacher.clone(), None, None)
        } else {
            let loss = KdLossConfig::new().with_temperature(1.0).init().unwrap();
            loss.forward_composed(hidden.matmul(weight.clone().transpose()), teacher.clone(), None)
        };
        let gradients = loss.clone().backward();
        vec![numbers(loss), numbers(weight.grad(&gradients).unwrap())]
    };
    assert_close("tied", &run(true), &run(false));
}

#[test]
fn a_frozen_projection_takes_no_gradient() {
    let device = burn_distill_dev::device();
    let (student, teacher) = (head(6, false, &device), head(6, false, &device));
    let loss = LinearKdLossConfig::new().init().unwrap();
    let own = LinearHead { hidden: student.hidden.clone().autodiff().require_grad(), ..student.clone() };
    let value = loss.forward(own.clone(), teacher.clone(), None, None);
    let gradient = own.hidden.grad(&value.clone().backward()).unwrap();
    assert!(numbers(gradient).iter().any(|x| *x != 0.0));
    // Nothing takes one: a value for validation.
    let without = loss.forward(student, teacher, None, None);
    assert!((numbers(without)[0] - numbers(value)[0]).abs() < 1e-6);
}

#[test]
fn half_precision_sums_over_chunks_in_f32() {
    let device = Device::flex();
    let (student, teacher) = (head(6, true, &device), head(6, true, &device));
    let half = |tensor: &Tensor<2>| tensor.clone().cast(DType::F16);
    let own = tracked(&LinearHead {
        hidden: half(&student.hidden),
        weight: half(&student.weight),
        bias: student.bias.clone().map(|bias| bias.cast(DType::F16)),
    });
    let loss = LinearKdLossConfig::new().with_chunk_tokens(Some(2)).init().unwrap();
    let value = loss.forward(own.clone(), logits(&teacher).cast(DType::F16), None, None);
    let gradients = value.clone().backward();
    let gradient = own.weight.grad(&gradients).unwrap();
    assert_eq!(gradient.dtype(), DType::F16);
    let single = tracked(&student);
    let exact = outcome(&single, loss.forward(single.clone(), logits(&teacher), None, None).div_scalar(1.7));
    let largest = exact[2].iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    for (got, expected) in numbers(gradient).iter().zip(&exact[2]) {
        assert!((got - expected).abs() < 0.02 * largest, "{got} instead of {expected}");
    }
}

#[test]
fn no_tokens_are_a_loss_of_zero() {
    let device = Device::flex();
    let loss = LinearKdLossConfig::new().init().unwrap();
    let none = || LinearHead::new(Tensor::zeros([0, 6], &device), random([VOCABULARY, 6], &device));
    assert_eq!(numbers(loss.forward(none(), none(), None, None)), [0.0]);
}

#[test]
#[should_panic(expected = "`targets` are needed where `hard_weight` is not 0, got 0.5")]
fn labels_with_a_weight_need_targets() {
    let device = Device::flex();
    let loss = LinearKdLossConfig::new().with_hard_weight(0.5).init().unwrap();
    loss.forward(head(6, false, &device), head(6, false, &device), None, None);
}

#[test]
#[should_panic(expected = "`hidden` is [tokens, 6], so `weight` must be [vocabulary, 6]")]
fn a_projection_of_another_width_is_named() {
    let device = Device::flex();
    let loss = LinearKdLossConfig::new().init().unwrap();
    let student = LinearHead::new(random([TOKENS, 6], &device), random([VOCABULARY, 5], &device));
    loss.forward(student, head(6, false, &device), None, None);
}

#[test]
fn refuses_settings_out_of_range() {
    let error = LinearKdLossConfig::new().with_chunk_tokens(Some(0)).init().unwrap_err();
    assert_eq!(error.to_string(), "`chunk_tokens` must be in [1, inf), got 0");
    let error = LinearJsdLossConfig::new().with_beta(2.0).init().unwrap_err();
    assert_eq!(error.to_string(), "`beta` must be in [0, 1], got 2");
    let json = serde_json::to_string(&LinearKdLossConfig::new().with_chunk_tokens(Some(7))).unwrap();
    assert_eq!(serde_json::from_str::<LinearKdLossConfig>(&json).unwrap().chunk_tokens, Some(7));
}
