use burn::module::Module;

use crate::Teacher;

/// Nobody: for the baseline that every distillation is measured against, the same student on labels alone.
///
/// ```
/// use burn_distill_models::{NoTeacher, Teacher};
///
/// let nothing: () = NoTeacher::new().forward(&"any batch");
/// assert_eq!(Teacher::<&str>::fingerprint(&NoTeacher::new()), "no teacher");
/// ```
#[derive(Module, Debug, Default)]
pub struct NoTeacher {}

impl NoTeacher {
    /// There is only one.
    pub fn new() -> Self {
        Self {}
    }
}

impl<Batch> Teacher<Batch> for NoTeacher {
    type Output = ();

    fn forward(&self, _batch: &Batch) {}

    fn fingerprint(&self) -> String {
        "no teacher".to_string()
    }
}
