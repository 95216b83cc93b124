//! What the rows of a loss have in common, and the loop over them.

use std::cell::RefCell;

use rayon::prelude::*;

use super::{
    row::{Row, Scratch, Slot, evaluate},
    rows::Rows,
    simd::{Kernel, dispatch},
};
use crate::fused::spec::Spec;

/// Below so many elements one thread is quicker than waking others.
pub(super) const PARALLEL: usize = 1 << 16;

thread_local! {
    /// Kept from call to call: a few rows for each thread, whose pages would otherwise be faulted in every time.
    static LOCAL: RefCell<Local> = RefCell::default();
}

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct Local {
    pub(super) student: Vec<f32>,
    pub(super) gradient: Vec<f32>,
    pub(super) rest: Rest,
}

#[derive(Default)]
pub(super) struct Rest {
    pub(super) teacher: Vec<f32>,
    pub(super) scratch: Scratch,
}

/// What every row has in common.
pub(super) struct Inputs<'a> {
    pub(super) spec: &'a Spec,
    pub(super) rows: usize,
    width: usize,
    weights: Vec<f32>,
    targets: Option<Vec<i64>>,
}

/// The value of a row, weighted, and the way to its gradient; `None` for a row that does not count.
pub(super) struct Done {
    pub(super) value: f32,
    row: Option<Row>,
}

impl<'a> Inputs<'a> {
    /// For students of these dimensions; `targets` are asked for where the [`Spec`] needs them.
    pub(super) fn new(
        spec: &'a Spec,
        [rows, width]: [usize; 2],
        weights: Vec<f32>,
        targets: impl FnOnce() -> Vec<i64>,
    ) -> Self {
        let targets = spec.needs_targets().then(targets);
        Self { spec, rows, width, weights, targets }
    }

    pub(super) fn weight(&self, row: usize) -> f64 {
        f64::from(if self.weights.len() == 1 { self.weights[0] } else { self.weights[row] })
    }

    pub(super) fn target(&self, row: usize, classes: usize) -> Option<usize> {
        let target = self.targets.as_ref()?[row];
        let valid = usize::try_from(target).ok().filter(|target| *target < classes);
        assert!(valid.is_some(), "`targets` must be class ids in [0, {classes}), row {row} has {target}");
        valid
    }

    /// Calls `each` for every row with its output, in parallel where that pays.
    pub(super) fn each<T: Send>(&self, outputs: Vec<T>, each: impl Fn(usize, T, &mut Local) -> f32 + Sync) -> Vec<f32> {
        assert_eq!(outputs.len(), self.rows, "one output per row");
        let each = |(row, output)| LOCAL.with_borrow_mut(|local| each(row, output, local));
        if self.rows * self.width < PARALLEL {
            return outputs.into_iter().enumerate().map(each).collect();
        }
        outputs.into_par_iter().enumerate().map(each).collect()
    }

    pub(super) fn row(&self, row: usize, student: &Rows<'_>, teacher: &Rows<'_>, local: &mut Local) -> Done {
        self.row_of(row, student.row(row, &mut local.student), teacher, row, &mut local.rest)
    }

    /// Row `row`, whose teacher is row `at` of `teacher`.
    pub(super) fn row_of(&self, row: usize, student: &[f32], teacher: &Rows<'_>, at: usize, rest: &mut Rest) -> Done {
        let weight = self.weight(row);
        if weight == 0.0 {
            return Done { value: 0.0, row: None };
        }
        let classes = self.spec.classes;
        let teacher = teacher.padded_row(at, classes, &mut rest.teacher);
        let target = self.target(row, classes);
        let scratch = &mut rest.scratch;
        let evaluate =
            Evaluate { spec: self.spec, student: &student[..classes], teacher, terms: classes, target, weight };
        let row = dispatch(evaluate.with(scratch));
        Done { value: (weight * row.value) as f32, row: Some(row) }
    }

    /// Writes a row's gradient; 0 beyond the classes that are compared.
    pub(super) fn write(&self, done: &Done, scratch: &Scratch, gradient: &mut [impl Slot]) {
        let compared = match &done.row {
            Some(row) => {
                dispatch(Write { row, scratch, gradient });
                self.spec.classes
            }
            None => 0,
        };
        gradient[compared..].iter_mut().for_each(|slot| slot.put(0.0));
    }
}

pub(super) struct Evaluate<'a> {
    pub(super) spec: &'a Spec,
    pub(super) student: &'a [f32],
    pub(super) teacher: &'a [f32],
    pub(super) terms: usize,
    pub(super) target: Option<usize>,
    pub(super) weight: f64,
}

impl<'a> Evaluate<'a> {
    pub(super) fn with(self, scratch: &'a mut Scratch) -> impl Kernel<Output = Row> {
        struct With<'a>(Evaluate<'a>, &'a mut Scratch);
        impl Kernel for With<'_> {
            type Output = Row;

            #[inline(always)]
            fn run<const FMA: bool>(self) -> Row {
                let Evaluate { spec, student, teacher, terms, target, weight } = self.0;
                evaluate::<FMA>(spec, student, teacher, terms, target, weight, self.1)
            }
        }
        With(self, scratch)
    }
}

pub(super) struct Write<'a, S> {
    pub(super) row: &'a Row,
    pub(super) scratch: &'a Scratch,
    pub(super) gradient: &'a mut [S],
}

impl<S: Slot> Kernel for Write<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        self.row.write::<FMA>(self.scratch, self.gradient);
    }
}
