use burn::config::Config;
use burn::module::ParamGroup;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, LearningRate, ModuleOptimizer, Optimizer, SgdConfig};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// How weights are kept small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightDecay {
    /// Not at all.
    #[default]
    None,
    /// L2 regularisation: `decay * weight` is added to the gradient, before momentum and adaptive scaling. What
    /// PyTorch's `SGD(weight_decay=...)` and `Adam(weight_decay=...)` do.
    L2(f64),
    /// Decoupled: `learning_rate * decay * weight` is taken off the weight beside the optimiser's own step. AdamW is
    /// Adam with this (Loshchilov and Hutter 2019).
    Decoupled(f64),
}

/// The rule of an optimiser's step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerRule {
    /// Stochastic gradient descent as in PyTorch, without dampening.
    Sgd {
        /// The share of the last step that goes on; 0 for none.
        momentum: f64,
        /// Whether the gradient is looked up ahead of the momentum.
        nesterov: bool,
    },
    /// Adam (Kingma and Ba 2015).
    Adam {
        /// The decay of the mean of gradients.
        beta_1: f64,
        /// The decay of the mean of squared gradients.
        beta_2: f64,
        /// Keeps the division finite.
        epsilon: f64,
    },
}

/// Parameters that are not decayed by default: biases and the scale and shift of norms.
pub const NORMS_AND_BIASES: &str = r"(^|\.)(bias|gamma|beta)$";

/// What [`Balance::Uncertainty`](crate::Balance::Uncertainty) learns: a decay would move its optimum.
const TASK_PARAMETERS: &str = r"(^|\.)tasks\.log_variances$";

/// Configuration of the optimiser of a run.
///
/// ```
/// use burn_distill_train::{OptimizerConfig, WeightDecay};
///
/// let sgd = OptimizerConfig::sgd().with_weight_decay(WeightDecay::L2(5e-4));
/// let adamw = OptimizerConfig::adam().with_weight_decay(WeightDecay::Decoupled(0.01));
/// assert!(sgd.init().is_ok() && adamw.init().is_ok());
/// let error = OptimizerConfig::sgd().with_weight_decay(WeightDecay::L2(-1.0)).init().err().unwrap();
/// assert_eq!(error.to_string(), "`weight_decay` must be in [0, inf), got -1");
/// ```
#[derive(Config, Debug)]
pub struct OptimizerConfig {
    /// The rule of the step.
    pub rule: OptimizerRule,
    /// How weights are kept small.
    #[config(default = "WeightDecay::None")]
    pub weight_decay: WeightDecay,
    /// Regular expressions on parameter paths (`student.layer1.0.bn1.gamma`); those that match any are not decayed.
    #[config(default = "vec![NORMS_AND_BIASES.to_string()]")]
    pub no_decay: Vec<String>,
}

impl OptimizerConfig {
    /// SGD with Nesterov momentum 0.9, the usual choice for residual networks.
    pub fn sgd() -> Self {
        Self::new(OptimizerRule::Sgd { momentum: 0.9, nesterov: true })
    }

    /// Adam with betas 0.9 and 0.999; AdamW with [`WeightDecay::Decoupled`].
    pub fn adam() -> Self {
        Self::new(OptimizerRule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8 })
    }

    /// Burn's optimiser for a whole module, with norms and biases in a group of their own.
    ///
    /// # Errors
    /// When a number lies outside its range, or `no_decay` holds an invalid regular expression.
    pub fn init(&self) -> Result<ModuleOptimizer, TrainError> {
        let in_unit = |field, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => Err(TrainError::setting(field, "in [0, 1)", value)),
        };
        match self.rule {
            OptimizerRule::Sgd { momentum, nesterov } => {
                in_unit("momentum", momentum)?;
                if nesterov && momentum == 0.0 {
                    return Err(TrainError::setting("momentum", "in (0, 1) with `nesterov`", 0));
                }
            }
            OptimizerRule::Adam { beta_1, beta_2, epsilon } => {
                in_unit("beta_1", beta_1)?;
                in_unit("beta_2", beta_2)?;
                if !(epsilon > 0.0 && epsilon.is_finite()) {
                    return Err(TrainError::setting("epsilon", "in (0, inf)", epsilon));
                }
            }
        }
        if let WeightDecay::L2(decay) | WeightDecay::Decoupled(decay) = self.weight_decay
            && !(decay >= 0.0 && decay.is_finite())
        {
            return Err(TrainError::setting("weight_decay", "in [0, inf)", decay));
        }
        let mut undecayed = self.no_decay.clone();
        undecayed.push(TASK_PARAMETERS.to_string());
        let no_decay = ParamGroup::from_any_regexes(undecayed).map_err(|error| {
            TrainError::setting("no_decay", "regular expressions", format!("{:?}: {error:?}", self.no_decay))
        })?;
        let excludes = self.weight_decay != WeightDecay::None;
        let l2 = match self.weight_decay {
            WeightDecay::L2(penalty) => Some(WeightDecayConfig { penalty: penalty as f32 }),
            _ => None,
        };
        let decoupled = match self.weight_decay {
            WeightDecay::Decoupled(decay) => decay,
            _ => 0.0,
        };
        Ok(match self.rule {
            OptimizerRule::Sgd { momentum, nesterov } => {
                let momentum =
                    (momentum > 0.0).then(|| MomentumConfig::new().with_momentum(momentum).with_dampening(0.0));
                let plain = SgdConfig::new().with_momentum(momentum.map(|config| config.with_nesterov(nesterov)));
                let decayed = plain.clone().with_weight_decay(l2).build();
                grouped(decayed, plain.build(), decoupled, excludes.then_some(no_decay))
            }
            OptimizerRule::Adam { beta_1, beta_2, epsilon } => {
                let plain = AdamConfig::new()
                    .with_beta_1(beta_1 as f32)
                    .with_beta_2(beta_2 as f32)
                    .with_epsilon(epsilon as f32);
                let decayed = plain.clone().with_weight_decay(l2).build();
                grouped(decayed, plain.build(), decoupled, excludes.then_some(no_decay))
            }
        })
    }
}

fn grouped<O: Optimizer>(decayed: O, plain: O, decay: f64, no_decay: Option<ParamGroup>) -> ModuleOptimizer {
    let optimizer = ModuleOptimizer::from(Decoupled { inner: decayed, decay });
    match no_decay {
        Some(group) => optimizer.with_group(group, Decoupled { inner: plain, decay: 0.0 }, None),
        None => optimizer,
    }
}

/// Any optimiser with decoupled weight decay.
#[derive(Clone)]
struct Decoupled<O> {
    inner: O,
    decay: f64,
}

impl<O: Optimizer> Optimizer for Decoupled<O> {
    type State<const D: usize> = O::State<D>;

    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let tensor = match self.decay {
            0.0 => tensor,
            decay => tensor.mul_scalar(1.0 - rate * decay),
        };
        self.inner.step(rate, tensor, grad, state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        O::to_device(state, device)
    }
}
