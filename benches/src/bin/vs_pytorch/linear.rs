//! Linear distillation: from hidden states through the output layers to a loss and the gradients of both inputs.

use std::time::Instant;

use anyhow::{Context, bail};
use burn::tensor::Tensor;
use burn_distill_losses::{JsdLossConfig, KdLossConfig, LinearHead, LinearJsdLossConfig, LinearKdLossConfig};

use crate::inputs::Linear;
use crate::measure::{Step, Taken, first};

/// A loss of the student's hidden states and output weight.
type Loss = Box<dyn Fn(Tensor<2>, Tensor<2>) -> Tensor<1>>;

/// In chunks: no tensor of `[tokens, vocabulary]`.
fn chunked(name: &str, x: &Linear) -> anyhow::Result<Loss> {
    let head = |hidden, weight| LinearHead { hidden, weight, bias: None };
    let teacher = head(x.teacher_hidden.clone(), x.teacher_weight.clone());
    let loss: Loss = match name {
        "jsd" => {
            let loss = LinearJsdLossConfig::new().with_beta(0.5).with_temperature(1.0).init()?;
            Box::new(move |hidden, weight| loss.forward(head(hidden, weight), teacher.clone(), None, None))
        }
        "kd" => {
            let loss = LinearKdLossConfig::new().with_temperature(1.0).init()?;
            Box::new(move |hidden, weight| loss.forward(head(hidden, weight), teacher.clone(), None, None))
        }
        _ => bail!("no linear loss `{name}`"),
    };
    Ok(loss)
}

/// All logits at once, then the loss on logits, which is handed the teacher's.
fn unchunked(name: &str, x: &Linear) -> anyhow::Result<Loss> {
    let logits = |hidden: Tensor<2>, weight: Tensor<2>| hidden.matmul(weight.transpose());
    let x = x.clone();
    let teacher = move || logits(x.teacher_hidden.clone(), x.teacher_weight.clone());
    let loss: Loss = match name {
        "jsd" => {
            let loss = JsdLossConfig::new().with_beta(0.5).with_temperature(1.0).init()?;
            Box::new(move |hidden, weight| loss.forward(logits(hidden, weight), teacher(), None))
        }
        "kd" => {
            let loss = KdLossConfig::new().with_temperature(1.0).init()?;
            Box::new(move |hidden, weight| loss.forward(logits(hidden, weight), teacher(), None))
        }
        _ => bail!("no linear loss `{name}`"),
    };
    Ok(loss)
}

/// A step of one form, forward and backward.
pub(crate) fn prepare(name: &str, form: &str, x: &Linear) -> anyhow::Result<Step> {
    let loss = match form {
        "products" => return Ok(products(x.clone())),
        "chunked" => chunked(name, x)?,
        "unchunked" => unchunked(name, x)?,
        _ => bail!("no form `{form}`"),
    };
    let hidden = x.hidden.clone().autodiff().require_grad();
    let weight = x.weight.clone().autodiff().require_grad();
    Ok(Box::new(move || {
        let start = Instant::now();
        let value = loss(hidden.clone(), weight.clone());
        let mut gradients = value.backward();
        let of_hidden = hidden.grad_remove(&mut gradients).context("no gradient reached the hidden states")?;
        let of_weight = weight.grad_remove(&mut gradients).context("no gradient reached the weight")?;
        drop(gradients);
        first(of_hidden);
        let gradient = first(of_weight);
        let value = value.without_autodiff().into_scalar();
        Ok(Taken { time: start.elapsed(), loss: Some(value), gradient: Some(gradient), parts: Vec::new() })
    }))
}

/// The four matrix products that no form can do without: both sides' logits, and the gradients of hidden states and
/// weight from one of the logits.
fn products(x: Linear) -> Step {
    Box::new(move || {
        let start = Instant::now();
        let logits = x.hidden.clone().matmul(x.weight.clone().transpose());
        first(x.teacher_hidden.clone().matmul(x.teacher_weight.clone().transpose()));
        first(logits.clone().matmul(x.weight.clone()));
        first(logits.transpose().matmul(x.hidden.clone()));
        Ok(Taken { time: start.elapsed(), loss: None, gradient: None, parts: Vec::new() })
    })
}
