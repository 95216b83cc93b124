//! Losses from hidden states and output projections, chunk by chunk of tokens: the logits of all tokens never exist.

mod chunked;
mod divergences;

use burn::tensor::Tensor;

pub use divergences::{
    LinearJsdLoss, LinearJsdLossConfig, LinearKdLoss, LinearKdLossConfig, LinearReverseKlLoss,
    LinearReverseKlLossConfig,
};

use crate::{SparseLogits, TeacherLogits};

/// Hidden states and the projection that makes logits of them: `hidden · weightᵀ + bias`.
#[derive(Debug, Clone)]
pub struct LinearHead {
    /// The last hidden states, `[tokens, hidden]`; a batch of sequences is flattened to its tokens.
    pub hidden: Tensor<2>,
    /// The output projection, `[vocabulary, hidden]`, as PyTorch and Hugging Face store it; an embedding, where the two
    /// are tied. Burn's `Linear` holds its transpose.
    pub weight: Tensor<2>,
    /// Its bias, `[vocabulary]`.
    pub bias: Option<Tensor<1>>,
}

impl LinearHead {
    /// A projection without bias.
    pub fn new(hidden: Tensor<2>, weight: Tensor<2>) -> Self {
        Self { hidden, weight, bias: None }
    }

    /// The same with a bias `[vocabulary]`.
    pub fn with_bias(self, bias: Tensor<1>) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Tokens, width of the hidden states, vocabulary.
    ///
    /// # Panics
    /// If hidden states, projection and bias do not fit together.
    #[track_caller]
    fn dims(&self) -> [usize; 3] {
        let ([tokens, width], [vocabulary, columns]) = (self.hidden.dims(), self.weight.dims());
        assert_eq!(width, columns, "`hidden` is [tokens, {width}], so `weight` must be [vocabulary, {width}]");
        if let Some(bias) = &self.bias {
            assert_eq!(bias.dims(), [vocabulary], "`bias` must have one value per row of `weight`: [{vocabulary}]");
        }
        [tokens, width, vocabulary]
    }

    fn without_autodiff(self) -> Self {
        Self {
            hidden: self.hidden.without_autodiff(),
            weight: self.weight.without_autodiff(),
            bias: self.bias.map(Tensor::without_autodiff),
        }
    }

    /// The logits of `count` tokens from `start`, `[count, vocabulary]`.
    fn logits(&self, start: usize, count: usize) -> Tensor<2> {
        let logits = self.hidden.clone().narrow(0, start, count).matmul(self.weight.clone().transpose());
        match &self.bias {
            Some(bias) => logits + bias.clone().unsqueeze_dim(0),
            None => logits,
        }
    }
}

/// What a teacher gives to a loss from hidden states: its own hidden states and projection, or its logits.
#[derive(Debug, Clone)]
pub enum LinearTeacher {
    /// Hidden states and projection, of any width.
    Head(LinearHead),
    /// Logits of all tokens, dense or sparse.
    Logits(TeacherLogits),
}

impl From<LinearHead> for LinearTeacher {
    fn from(head: LinearHead) -> Self {
        Self::Head(head)
    }
}

impl From<TeacherLogits> for LinearTeacher {
    fn from(logits: TeacherLogits) -> Self {
        Self::Logits(logits)
    }
}

impl From<Tensor<2>> for LinearTeacher {
    fn from(logits: Tensor<2>) -> Self {
        Self::Logits(logits.into())
    }
}

impl From<SparseLogits> for LinearTeacher {
    fn from(logits: SparseLogits) -> Self {
        Self::Logits(logits.into())
    }
}

impl LinearTeacher {
    /// Tokens.
    fn rows(&self) -> usize {
        match self {
            Self::Head(head) => head.dims()[0],
            Self::Logits(logits) => logits.dims().0,
        }
    }

    fn without_autodiff(self) -> Self {
        match self {
            Self::Head(head) => Self::Head(head.without_autodiff()),
            logits => logits,
        }
    }

    /// The logits of `count` tokens from `start`.
    fn logits(&self, start: usize, count: usize) -> TeacherLogits {
        match self {
            Self::Head(head) => head.logits(start, count).into(),
            Self::Logits(TeacherLogits::Dense(logits)) => logits.clone().narrow(0, start, count).into(),
            Self::Logits(TeacherLogits::Sparse(logits)) => logits.narrow(start, count).into(),
        }
    }
}
