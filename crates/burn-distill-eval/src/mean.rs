/// A mean that is still a sum and a count, so that batches add up to exactly what one large batch would give.
///
/// ```
/// use burn_distill_eval::Mean;
///
/// let mut accuracy = Mean { sum: 3.0, count: 4 };
/// accuracy.merge(&Mean { sum: 2.0, count: 6 });
/// assert_eq!(accuracy.value(), Some(0.5));
/// assert_eq!(Mean::default().value(), None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Mean {
    /// Sum over the rows.
    pub sum: f64,
    /// Number of rows.
    pub count: usize,
}

impl Mean {
    /// Adds one row.
    pub fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    /// Adds the rows of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.sum += other.sum;
        self.count += other.count;
    }

    /// The mean; `None` of no rows.
    pub fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}
