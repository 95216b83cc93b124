//! The one place where student and teacher logits are brought to the same classes.

use burn::tensor::{Bool, Int, Tensor};

use crate::{
    Mask, SparseLogits, Tail, TeacherLogits, VocabularyPolicy,
    floor::{FLOOR, add_at, log_softmax, log_sum_exp, softmax},
    precision::{constant, widen},
};

/// Student and teacher logits over the same columns, `[rows, width]`: `log_softmax(logits / temperature)` of both
/// are the distributions that a loss at `temperature` compares.
#[derive(Clone)]
pub(crate) struct Aligned {
    pub(crate) student: Tensor<2>,
    pub(crate) teacher: Tensor<2>,
    columns: Columns,
}

/// What the columns stand for.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "one lives at a time: tensor handles, moved once per step")]
enum Columns {
    /// Column j is class j.
    Classes,
    /// Column j < k is the row's class `indices[row, j]`, unless `unlisted`; column k, if any, is every other class.
    TopK { indices: Tensor<2, Int>, unlisted: Tensor<2, Bool>, classes: usize, tail: Tail },
}

/// `[.., width]` as `[rows, width]`, at least in single precision.
pub(crate) fn flatten_rows<const D: usize>(logits: Tensor<D>) -> Tensor<2> {
    assert!(D >= 2, "logits must have at least two dimensions, [rows, classes], got {D}");
    let dims = logits.dims();
    widen(logits).reshape([dims[..D - 1].iter().product(), dims[D - 1]])
}

/// Class ids of any rank as `[rows, 1]`; ids of masked-out rows (often -100) become 0.
pub(crate) fn flatten_targets<const E: usize>(targets: Tensor<E, Int>, rows: usize, mask: &Mask) -> Tensor<2, Int> {
    let count = targets.shape().num_elements();
    assert_eq!(count, rows, "`targets` must have one class id per row of `student_logits`: {rows}, got {count}");
    mask.fill_rows(targets.without_autodiff().reshape([rows, 1]), 0)
}

/// Brings student and teacher to the same rows and columns, without gradient to the teacher; masked-out rows become
/// constants.
///
/// # Panics
/// If the rows differ, or the classes differ and the policy does not allow it.
pub(crate) fn align<const D: usize>(
    student_logits: Tensor<D>,
    teacher_logits: TeacherLogits,
    mask: &Mask,
    policy: VocabularyPolicy,
) -> Aligned {
    let student = mask.fill_rows(flatten_rows(student_logits), 0.0);
    match teacher_logits {
        TeacherLogits::Dense(teacher) => {
            let teacher = mask.fill_rows(constant(teacher, student.dtype()), 0.0);
            align_dense(student, teacher, policy)
        }
        TeacherLogits::Sparse(sparse) => {
            let sparse = sparse.masked(mask, student.dtype());
            if sparse.k() == sparse.vocabulary() || sparse.tail() == Tail::Zero {
                align_dense(student, sparse.to_dense(), policy)
            } else {
                align_sparse(student, &sparse, policy)
            }
        }
    }
}

fn align_dense(student: Tensor<2>, teacher: Tensor<2>, policy: VocabularyPolicy) -> Aligned {
    let ([rows, from], [teacher_rows, given]) = (student.dims(), teacher.dims());
    assert_rows(rows, teacher_rows);
    let classes = policy.classes(from, given);
    let student = first_columns(student, classes);
    let teacher = if given < classes {
        let options = (&teacher.device(), teacher.dtype());
        let missing = Tensor::full([rows, classes - given], f64::NEG_INFINITY, options);
        Tensor::cat(vec![teacher, missing], 1)
    } else {
        first_columns(teacher, classes)
    };
    Aligned { student, teacher, columns: Columns::Classes }
}

fn align_sparse(student: Tensor<2>, sparse: &SparseLogits, policy: VocabularyPolicy) -> Aligned {
    let [rows, from] = student.dims();
    assert_rows(rows, sparse.rows());
    let classes = policy.classes(from, sparse.vocabulary());
    let student = first_columns(student, classes);
    let (temperature, absent) = (sparse.temperature(), f64::NEG_INFINITY);

    // Padding, and classes that the student lacks, have no column of their own.
    let unlisted = sparse
        .log_probs()
        .clone()
        .equal_scalar(absent)
        .bool_or(sparse.indices().clone().greater_equal_elem(classes as i64));
    let indices = sparse.indices().clone().mask_fill(unlisted.clone(), 0);
    let mut student_columns = student.clone().gather(1, indices.clone()).mask_fill(unlisted.clone(), absent);
    let mut teacher_columns = sparse.log_probs().clone().mul_scalar(temperature).mask_fill(unlisted.clone(), absent);

    if matches!(sparse.tail(), Tail::Bucket | Tail::Drop) {
        let counts = unlisted.clone().bool_not().float().cast(student.dtype());
        let listed = add_at([rows, classes], indices.clone(), counts).greater_elem(0.5);
        let nothing_else = listed.clone().all_dim(1);
        let others = student.div_scalar(temperature).clamp_min(FLOOR).mask_fill(listed, FLOOR);
        let student_tail = log_sum_exp(others).mul_scalar(temperature).mask_fill(nothing_else.clone(), absent);
        let teacher_tail = sparse.tail_log_probs().mul_scalar(temperature).mask_fill(nothing_else, absent);
        student_columns = Tensor::cat(vec![student_columns, student_tail], 1);
        teacher_columns = Tensor::cat(vec![teacher_columns, teacher_tail], 1);
    }
    let columns = Columns::TopK { indices, unlisted, classes, tail: sparse.tail() };
    Aligned { student: student_columns, teacher: teacher_columns, columns }
}

#[track_caller]
pub(crate) fn assert_rows(student: usize, teacher: usize) {
    assert_eq!(student, teacher, "`student_logits` have {student} rows and `teacher_logits` {teacher}");
}

fn first_columns(tensor: Tensor<2>, columns: usize) -> Tensor<2> {
    if tensor.dims()[1] > columns { tensor.narrow(1, 0, columns) } else { tensor }
}

impl Aligned {
    /// Log-probabilities of student and teacher at `temperature`, each `[rows, width]`; without the tail's column if it
    /// is to be dropped.
    pub(crate) fn log_probs(self, temperature: f64) -> (Tensor<2>, Tensor<2>) {
        self.log_probs_by(|logits| log_softmax(logits, temperature))
    }

    /// [`Aligned::log_probs`] by another softmax.
    pub(crate) fn log_probs_by(self, log_softmax: impl Fn(Tensor<2>) -> Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let width = self.terms();
        (first_columns(log_softmax(self.student), width), first_columns(log_softmax(self.teacher), width))
    }

    /// [`Aligned::log_probs`] with the teacher's probabilities beside their logarithms.
    pub(crate) fn with_teacher_probs(self, temperature: f64) -> (Tensor<2>, (Tensor<2>, Tensor<2>)) {
        let width = self.terms();
        let student = first_columns(log_softmax(self.student, temperature), width);
        let (probs, log_probs) = softmax(self.teacher, temperature);
        (student, (first_columns(probs, width), first_columns(log_probs, width)))
    }

    /// The teacher's log-probabilities at `temperature`, as of [`Aligned::log_probs`].
    pub(crate) fn teacher_log_probs(&self, temperature: f64) -> Tensor<2> {
        first_columns(log_softmax(self.teacher.clone(), temperature), self.terms())
    }

    /// Over how many of the columns a divergence sums.
    fn terms(&self) -> usize {
        match &self.columns {
            Columns::TopK { indices, tail: Tail::Drop, .. } => indices.dims()[1],
            _ => self.teacher.dims()[1],
        }
    }

    /// Which column is the target's: `[rows, width]`, one true per row. Outside a top-k it is the tail's column, or
    /// none if the tail is dropped.
    pub(crate) fn target_columns(&self, targets: Tensor<2, Int>) -> Tensor<2, Bool> {
        let [rows, width] = self.student.dims();
        match &self.columns {
            Columns::Classes => {
                let classes = Tensor::<1, Int>::arange(0..width as i64, (&targets.device(), targets.dtype()));
                targets.expand([rows, width]).equal(classes.unsqueeze_dim::<2>(0).expand([rows, width]))
            }
            Columns::TopK { indices, unlisted, tail, .. } => {
                let shape = indices.dims();
                let listed = indices
                    .clone()
                    .equal(targets.cast(indices.dtype()).expand(shape))
                    .bool_and(unlisted.clone().bool_not());
                match tail {
                    Tail::Bucket => {
                        let tail = listed.clone().any_dim(1).bool_not();
                        Tensor::cat(vec![listed, tail], 1)
                    }
                    Tail::Renormalise | Tail::Zero | Tail::Drop => listed,
                }
            }
        }
    }

    /// Splits what is needed to put columns back to their classes from the logits.
    pub(crate) fn into_parts(self) -> (Tensor<2>, Tensor<2>, ByClass) {
        (self.student, self.teacher, ByClass(self.columns))
    }
}

/// Puts values of the aligned columns back to their classes.
pub(crate) struct ByClass(Columns);

impl ByClass {
    /// `values` `[rows, width]` as `[rows, classes]`; 0 for the classes that a row does not list. The tail has no
    /// class and is left out.
    pub(crate) fn scatter(&self, values: Tensor<2>) -> Tensor<2> {
        match &self.0 {
            Columns::Classes => values,
            Columns::TopK { indices, unlisted, classes, .. } => {
                let [rows, k] = indices.dims();
                let listed = values.narrow(1, 0, k).mask_fill(unlisted.clone(), 0.0);
                add_at([rows, *classes], indices.clone(), listed)
            }
        }
    }

    /// 1 for each column that stands for a class or for the tail, 0 for padding: `[rows, width]`. `None`: all do.
    pub(crate) fn columns(&self, values: &Tensor<2>) -> Option<Tensor<2>> {
        match &self.0 {
            Columns::Classes => None,
            Columns::TopK { unlisted, .. } => {
                let listed = unlisted.clone().bool_not().float().cast(values.dtype());
                let ([rows, k], [_, width]) = (listed.dims(), values.dims());
                let tail = Tensor::ones([rows, width - k], (&listed.device(), values.dtype()));
                Some(if width > k { Tensor::cat(vec![listed, tail], 1) } else { listed })
            }
        }
    }

    /// 1 for each class that a row with weight 1 lists, 0 for the others: `[1, classes]`. `None`: all are listed.
    pub(crate) fn listed(&self, weights: &Tensor<2>) -> Option<Tensor<2>> {
        match &self.0 {
            Columns::Classes => None,
            Columns::TopK { indices, .. } => {
                let listed = self.scatter(weights.clone().expand(indices.dims()));
                Some(listed.max_dim(0).clamp_max(1.0))
            }
        }
    }
}
