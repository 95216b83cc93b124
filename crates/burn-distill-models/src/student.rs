use burn::module::Module;

/// A model that is trained.
///
/// Generic over the batch, because a batch is where vision, language, several modalities and a cached teacher
/// differ. The output is a plain struct with named fields (`logits`, `stage3`, ...), which the terms of an objective
/// read through closures, so a wrong layer is a compile error.
///
/// A tuple of up to four students, an array or a `Vec` of them is a student too, whose output is the tuple, array or
/// `Vec` of theirs: networks that are trained in one run, and may learn from each other.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a student of batches of type `{Batch}`",
    note = "implement `Student<{Batch}>` for it: one method, `forward(&self, batch: &{Batch}) -> Self::Output`"
)]
pub trait Student<Batch>: Module {
    /// What the forward pass gives: at least logits, and the features that the objective compares.
    type Output;

    /// The forward pass on one batch.
    fn forward(&self, batch: &Batch) -> Self::Output;
}

/// A source of targets: a frozen model, an ensemble, an average of the student, or a cache.
///
/// A teacher is a [`Module`] so that it follows the student to its device; what it shows to visitors decides what a
/// checkpoint holds. [`Frozen`](crate::Frozen) shows nothing: it is never in the optimiser, in a checkpoint or in
/// the gradient graph. [`MeanTeacher`](crate::MeanTeacher) shows its average, which a resumed run needs.
///
/// A tuple of up to four teachers, an array or a `Vec` of them is a teacher too, whose output is the tuple, array or
/// `Vec` of theirs; [`Ensemble`](crate::Ensemble) joins them to one answer instead.
///
/// Implement it for a teacher of your own by deriving `Module` (fields that are no modules under
/// `#[module(skip)]`). Wrap a live model in [`Frozen`](crate::Frozen) rather than implementing this directly: it
/// alone keeps batch normalisation and dropout from moving.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a teacher for batches of type `{Batch}`",
    note = "a `Student<{Batch}>` becomes a teacher in `Frozen::new(model)`"
)]
pub trait Teacher<Batch>: Module {
    /// What the teacher says about a batch.
    type Output;

    /// The teacher's output for one batch; no gradient reaches it.
    fn forward(&self, batch: &Batch) -> Self::Output;

    /// A short text that changes when the teacher does. A checkpoint of a run with another teacher is refused by it.
    ///
    /// The default is the hash of everything a visitor sees, which is right for teachers that never change. A
    /// teacher that learns during the run gives a description of itself instead, without its weights.
    fn fingerprint(&self) -> String {
        crate::fingerprint(self)
    }

    /// How many parameters the teacher has, for the comparison with its student. The default counts what a visitor
    /// sees; a teacher without weights of its own, such as a cache, has none.
    fn parameter_count(&self) -> u64 {
        crate::parameter_count(self)
    }

    /// The bytes of the teacher's weights and buffers.
    fn weight_bytes(&self) -> u64 {
        crate::weight_bytes(self)
    }

    /// Whether [`after_step`](Self::after_step) changes the teacher, so that its answer to a batch depends on the step.
    /// Such a teacher can be neither cached nor asked ahead of time. The default says no: a teacher that overrides
    /// `after_step` overrides this too.
    fn learns(&self) -> bool {
        false
    }

    /// Called after the optimiser's `step`-th step (counted from 0) with the updated student. The default does
    /// nothing.
    fn after_step<S: Module>(self, student: &S, step: usize) -> Self {
        let _ = (student, step);
        self
    }
}
