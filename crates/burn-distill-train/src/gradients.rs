//! The global norm of all gradients, and scaling by it.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{FloatDType, Tensor};

/// The Euclidean norm over the gradients of all parameters together, each parameter's summed over `parts` (one per
/// device); infinite or NaN when any of them is. Computed in f32, as squares leave the range of half precision.
pub(crate) fn global_norm<'a, M: Module>(module: &M, parts: impl IntoIterator<Item = &'a GradientsParams>) -> f64 {
    struct Norm<'a> {
        parts: Vec<&'a GradientsParams>,
        sum: Option<Tensor<1>>,
    }
    impl ModuleVisitor for Norm<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let grads = self.parts.iter().filter_map(|part| part.get::<D>(param.id));
            let grad = grads.map(|grad| grad.cast(FloatDType::F32)).reduce(|sum, grad| {
                let grad = grad.to_device(&sum.device());
                sum + grad
            });
            if let Some(grad) = grad {
                let square = grad.square().sum();
                self.sum = Some(match self.sum.take() {
                    Some(sum) => {
                        let square = square.to_device(&sum.device());
                        sum + square
                    }
                    None => square,
                });
            }
        }
    }
    let mut norm = Norm { parts: parts.into_iter().collect(), sum: None };
    module.visit(&mut norm);
    norm.sum.map_or(0.0, |sum| f64::from(sum.into_scalar::<f32>()).sqrt())
}

/// Multiplies every gradient by `factor`.
pub(crate) fn scale<M: Module>(module: &M, grads: GradientsParams, factor: f64) -> GradientsParams {
    struct Scale {
        grads: GradientsParams,
        factor: f64,
    }
    impl ModuleVisitor for Scale {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.grads.remove::<D>(param.id) {
                self.grads.register(param.id, grad.mul_scalar(self.factor));
            }
        }
    }
    if factor == 1.0 {
        return grads;
    }
    let mut scale = Scale { grads, factor };
    module.visit(&mut scale);
    scale.grads
}
