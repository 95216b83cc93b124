//! A training step: a ResNet-20 learns from a ResNet-56 and labels on images of 3 x 32 x 32, 100 classes.

use std::time::Instant;

use anyhow::Context;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::Device;
use burn_distill_losses::{CrossEntropyLossConfig, KdLossConfig};
use burn_distill_vision::{ResNet, ResNetConfig};

use crate::inputs::{targets, tensor};
use crate::measure::{Step, Taken};

const CLASSES: usize = 100;

fn model(name: &str, device: &Device) -> anyhow::Result<ResNet> {
    Ok(ResNetConfig::from_name(name, CLASSES)?.init(device)?)
}

/// A step of SGD with momentum on a batch. The loss is not given: initial weights differ from PyTorch's.
pub(crate) fn prepare(batch: usize, device: &Device) -> anyhow::Result<Step> {
    let device = device.clone();
    device.seed(0);
    let images = tensor(1, [batch, 3, 32, 32], 3.0, &device);
    let targets = targets(batch, CLASSES, &device);
    let teacher = model("resnet56", &device)?;
    let mut student = Some(model("resnet20", &device.clone().autodiff())?);
    let mut optimizer = SgdConfig::new().with_momentum(Some(MomentumConfig::new().with_momentum(0.9))).init();
    let cross_entropy = CrossEntropyLossConfig::new().init()?;
    let kd = KdLossConfig::new().with_temperature(4.0).init()?;
    Ok(Box::new(move || {
        let model = student.take().context("an earlier step failed")?;
        let start = Instant::now();
        let (mut parts, mut so_far) = (Vec::new(), start);
        let mut part = |name, device: &Device| -> anyhow::Result<()> {
            device.sync()?;
            let now = Instant::now();
            parts.push((name, now - std::mem::replace(&mut so_far, now)));
            Ok(())
        };
        let teacher_logits = teacher.forward(images.clone()).logits;
        part("teacher", &device)?;
        let logits = model.forward(images.clone().autodiff()).logits;
        part("student forward", &device)?;
        let hard = cross_entropy.forward(logits.clone(), targets.clone(), None);
        let loss = kd.forward(logits, teacher_logits, None) * 0.9 + hard * 0.1;
        part("losses", &device)?;
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        part("backward", &device)?;
        student = Some(optimizer.step(0.05, model, gradients));
        loss.without_autodiff().into_scalar::<f64>();
        part("optimiser", &device)?;
        Ok(Taken { time: start.elapsed(), loss: None, gradient: None, parts })
    }))
}
