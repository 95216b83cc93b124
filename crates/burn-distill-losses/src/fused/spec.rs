//! What a kernel computes of a row.

/// A divergence between the teacher's distribution `p` and the student's `q`, both at a temperature. The formulas stand
/// at the losses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Divergence {
    /// `Σ p (ln p - ln q)`
    ForwardKl,
    /// `- Σ p ln q`
    CrossEntropy,
    /// `Σ q (ln q - ln p)`, in which `p = 0` counts as `excluded`.
    ReverseKl { excluded: f64 },
    /// `β KL(p || m) + (1 - β) KL(q || m)`, `m = β p + (1 - β) q`, `0 < β < 1`.
    JensenShannon { beta: f64 },
    /// `Σ p (ln p - ln m)`, or `- Σ p ln m`; `m = α p + (1 - α) q`.
    SkewKl { alpha: f64, cross_entropy: bool },
    /// `Σ q (ln q - ln m)`, `m = α q + (1 - α) p`.
    SkewReverseKl { alpha: f64 },
    /// `α KL(b(p) || b(q)) + β KL(p̂ || q̂)`: target or not, and the distribution over the other classes.
    Decoupled { alpha: f64, beta: f64 },
}

impl Divergence {
    #[cfg(feature = "cpu")]
    pub(crate) fn needs_targets(self) -> bool {
        matches!(self, Self::Decoupled { .. })
    }
}

/// `value = soft · divergence(p, q) + hard · (- ln softmax(student)[target])`, the second at temperature 1 over the same classes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spec {
    pub(crate) divergence: Divergence,
    pub(crate) temperature: f64,
    pub(crate) soft: f64,
    pub(crate) hard: f64,
    /// Over how many classes student and teacher are compared: further columns of either side do not exist, and where
    /// the teacher has fewer its probability is 0.
    pub(crate) classes: usize,
}

#[cfg(feature = "cpu")]
impl Spec {
    pub(crate) fn needs_targets(&self) -> bool {
        self.hard != 0.0 || self.divergence.needs_targets()
    }
}

/// How a sparse teacher is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TopK {
    /// The temperature of its log-probabilities.
    pub(crate) temperature: f64,
    pub(crate) tail: crate::Tail,
    /// Whether it lists all of its classes, or gives the others no probability.
    pub(crate) whole: bool,
}
