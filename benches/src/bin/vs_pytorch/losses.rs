//! A step of each loss on logits, forward and backward, and the memory floor below it.

use std::{hint::black_box, time::Instant};

use anyhow::{Context, bail};
use burn::tensor::Tensor;
use burn_distill_losses::{
    DkdLossConfig, JsdLossConfig, KdCrossEntropyLossConfig, KdLossConfig, ReverseKlLossConfig, SkewKlLossConfig,
};
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::{ParallelSlice, ParallelSliceMut},
};

use crate::inputs::Logits;
use crate::measure::{Step, Taken, first};

/// Elements that one thread takes at a time in the floor.
const BLOCK: usize = 1 << 15;

/// A loss of the student's and the teacher's logits.
type Loss = Box<dyn Fn(Tensor<2>, Tensor<2>, &Logits) -> Tensor<1>>;

/// A [`Loss`] from a configuration that was checked and how it is called.
macro_rules! loss {
    ($loss:expr, |$f:ident, $student:ident, $teacher:pat_param, $x:pat_param| $call:expr) => {{
        let $f = $loss;
        Box::new(move |$student: Tensor<2>, $teacher: Tensor<2>, $x: &Logits| $call)
    }};
}

fn loss(name: &str) -> anyhow::Result<Loss> {
    let kd = KdLossConfig::new().with_temperature(2.0).init()?;
    let loss: Loss = match name {
        "kd" => loss!(kd, |f, student, teacher, _| f.forward(student, teacher, None)),
        "kd_sparse" => loss!(kd, |f, student, _, x| f.forward(student, x.sparse.clone(), None)),
        "reverse_kl" => {
            let config = ReverseKlLossConfig::new().with_temperature(1.0);
            loss!(config.init()?, |f, student, teacher, _| f.forward(student, teacher, None))
        }
        "jsd" => {
            let config = JsdLossConfig::new().with_beta(0.5).with_temperature(1.0);
            loss!(config.init()?, |f, student, teacher, _| f.forward(student, teacher, None))
        }
        "skew_kl" => {
            let config = SkewKlLossConfig::new().with_alpha(0.1).with_temperature(1.0);
            loss!(config.init()?, |f, student, teacher, _| f.forward(student, teacher, None))
        }
        "kd_cross_entropy" => {
            let config = KdCrossEntropyLossConfig::new().with_temperature(2.0);
            let config = config.with_soft_weight(0.5).with_hard_weight(0.5);
            loss!(config.init()?, |f, student, teacher, x| f.forward(student, teacher, x.targets.clone(), None))
        }
        "dkd" => {
            let config = DkdLossConfig::new().with_alpha(1.0).with_beta(8.0).with_temperature(4.0);
            loss!(config.init()?, |f, student, teacher, x| f.forward(student, teacher, x.targets.clone(), None))
        }
        _ => bail!("no loss `{name}`"),
    };
    Ok(loss)
}

/// A step of the loss `name`. With `teacher` = `kept` another handle of the teacher's logits lives on, with
/// `handed_over` the loss gets the only one, a copy that is made before the time starts.
pub(crate) fn prepare(name: &str, teacher: &str, x: &Logits) -> anyhow::Result<Step> {
    let handed_over = match teacher {
        "kept" => false,
        "handed_over" => true,
        _ => bail!("a teacher is `kept` or `handed_over`, got `{teacher}`"),
    };
    let (loss, x) = (loss(name)?, x.clone());
    let student = x.student.clone().autodiff().require_grad();
    Ok(Box::new(move || {
        let teacher = if handed_over { x.teacher.clone().mul_scalar(1.0) } else { x.teacher.clone() };
        teacher.device().sync()?;

        let start = Instant::now();
        let value = loss(student.clone(), teacher, &x);
        let mut gradients = value.backward();
        let gradient = student.grad_remove(&mut gradients).context("no gradient reached the student")?;
        drop(gradients);
        let gradient = first(gradient);
        let value = value.without_autodiff().into_scalar();
        Ok(Taken { time: start.elapsed(), loss: Some(value), gradient: Some(gradient), parts: Vec::new() })
    }))
}

/// Reads two buffers of `size` elements and writes a third, all of them warm.
pub(crate) fn prepare_floor(size: usize) -> Step {
    let (a, b, mut c) = (vec![1f32; size], vec![1f32; size], vec![0f32; size]);
    Box::new(move || {
        let start = Instant::now();
        if size <= BLOCK {
            add(&mut c, &a, &b);
        } else {
            let inputs = a.par_chunks(BLOCK).zip(b.par_chunks(BLOCK));
            c.par_chunks_mut(BLOCK).zip(inputs).for_each(|(c, (a, b))| add(c, a, b));
        }
        black_box(&mut c);
        Ok(Taken { time: start.elapsed(), loss: None, gradient: None, parts: Vec::new() })
    })
}

fn add(sums: &mut [f32], a: &[f32], b: &[f32]) {
    for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
        *sum = a + b;
    }
}
