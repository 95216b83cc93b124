//! Kernels of the `flex` backend: rayon over rows, SIMD chosen at run time, f32 or half precision.

mod decoupled;
mod hard;
mod lanes;
mod math;
mod row;
mod simd;
mod softmax;
mod sparse;
mod tensor;
mod terms;

use burn::backend::{Flex, TensorMetadata, flex::FlexTensor};
use burn::tensor::{DType, Shape, TensorData};
use half::{bf16, f16};
use rayon::prelude::*;

use self::{
    row::{Row, Scratch, Slot, evaluate, grow},
    simd::{Kernel, dispatch},
    tensor::{Half, Rows, class_ids, contiguous, float_rows},
};
use super::{
    backend::{DenseKernel, KnownGradient, broadcast_rows},
    spec::Spec,
};

/// Below so many elements one thread is quicker than waking others.
const PARALLEL: usize = 1 << 16;

impl DenseKernel for Flex {
    fn dense_values(
        student: FlexTensor,
        teacher: FlexTensor,
        weights: FlexTensor,
        targets: FlexTensor,
        spec: Spec,
    ) -> FlexTensor {
        let (student, teacher) = (float_rows(student), float_rows(teacher));
        let inputs = Inputs::new(&spec, &student, &weights, &targets);
        let (student, teacher) = (Rows::of(&student), Rows::of(&teacher));
        let values =
            inputs.each(vec![(); inputs.rows], |row, (), local| inputs.row(row, &student, &teacher, local).value);
        float_tensor(values, [inputs.rows])
    }

    fn dense_gradient(
        student: FlexTensor,
        teacher: FlexTensor,
        weights: FlexTensor,
        targets: FlexTensor,
        spec: Spec,
    ) -> (FlexTensor, FlexTensor) {
        let (student, mut teacher) = (float_rows(student), float_rows(teacher));
        let shape = student.shape();
        let inputs = Inputs::new(&spec, &student, &weights, &targets);
        let own = Rows::of(&student);
        let width = own.width().max(1);
        match student.dtype() {
            DType::F16 => half_gradient::<f16>(&inputs, &own, &Rows::of(&teacher), shape),
            DType::BF16 => half_gradient::<bf16>(&inputs, &own, &Rows::of(&teacher), shape),
            // Nobody else holds the teacher's logits: the gradient goes over them, and nothing is allocated.
            _ if teacher.shape() == shape && tensor::is_ours(&teacher) => {
                let gradient = teacher.try_storage_mut::<f32>().expect("`is_ours` says that it is unique and f32");
                let values = inputs.each(gradient.chunks_mut(width).collect(), |row, gradient, local| {
                    let teacher = Rows::one(gradient);
                    let done = inputs.row_of(row, own.row(row, &mut local.student), &teacher, 0, &mut local.rest);
                    inputs.write(&done, &local.rest.scratch, gradient);
                    done.value
                });
                (float_tensor(values, [inputs.rows]), teacher)
            }
            _ => {
                let theirs = Rows::of(&teacher);
                let (values, gradient) = filled(inputs.rows * own.width(), |gradient| {
                    inputs.each(gradient.chunks_mut(width).collect(), |row, gradient, local| {
                        let done = inputs.row(row, &own, &theirs, local);
                        inputs.write(&done, &local.rest.scratch, gradient);
                        done.value
                    })
                });
                (float_tensor(values, [inputs.rows]), float_tensor(gradient, shape))
            }
        }
    }
}

/// A vector of `length` elements, each of which `fill` writes, beside what it gives back.
#[expect(unsafe_code, reason = "zeroing memory that is overwritten next would cost a third of the kernel's time")]
fn filled<T>(length: usize, fill: impl FnOnce(&mut [std::mem::MaybeUninit<f32>]) -> T) -> (T, Vec<f32>) {
    let mut elements = Vec::with_capacity(length);
    let result = fill(&mut elements.spare_capacity_mut()[..length]);
    // SAFETY: the capacity is at least `length`, and `Inputs::write` and `sparse` put a value into every element of
    // every row (a panic on the way leaves the length at 0).
    unsafe { elements.set_len(length) };
    (result, elements)
}

fn half_gradient<H: Half>(
    inputs: &Inputs<'_>,
    student: &Rows<'_>,
    teacher: &Rows<'_>,
    shape: Shape,
) -> (FlexTensor, FlexTensor) {
    let width = student.width();
    let mut gradient = vec![H::from_f32_const(0.0); inputs.rows * width];
    let values = inputs.each(gradient.chunks_mut(width.max(1)).collect(), |row, gradient, local| {
        let done = inputs.row(row, student, teacher, local);
        grow(&mut local.gradient, width);
        inputs.write(&done, &local.rest.scratch, &mut local.gradient[..width]);
        H::narrow(&local.gradient[..width], gradient);
        done.value
    });
    (float_tensor(values, [inputs.rows]), FlexTensor::from_data(TensorData::new(gradient, shape)))
}

fn float_tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.into()))
}

/// Buffers of one thread.
#[derive(Default)]
struct Local {
    student: Vec<f32>,
    gradient: Vec<f32>,
    rest: Rest,
}

#[derive(Default)]
struct Rest {
    teacher: Vec<f32>,
    scratch: Scratch,
}

/// What every row has in common.
struct Inputs<'a> {
    spec: &'a Spec,
    rows: usize,
    width: usize,
    weights: Vec<f32>,
    targets: Option<Vec<i64>>,
}

/// The value of a row, weighted, and the way to its gradient; `None` for a row that does not count.
struct Done {
    value: f32,
    row: Option<Row>,
}

impl<'a> Inputs<'a> {
    fn new(spec: &'a Spec, student: &FlexTensor, weights: &FlexTensor, targets: &FlexTensor) -> Self {
        let [rows, width] = student.shape().dims();
        let weights = contiguous(weights.clone());
        let weights = weights.as_slice::<f32>().expect("weights are made in f32").to_vec();
        let targets = spec.needs_targets().then(|| class_ids(targets));
        Self { spec, rows, width, weights, targets }
    }

    fn weight(&self, row: usize) -> f64 {
        f64::from(if self.weights.len() == 1 { self.weights[0] } else { self.weights[row] })
    }

    fn target(&self, row: usize, classes: usize) -> Option<usize> {
        let target = self.targets.as_ref()?[row];
        let valid = usize::try_from(target).ok().filter(|target| *target < classes);
        assert!(valid.is_some(), "`targets` must be class ids in [0, {classes}), row {row} has {target}");
        valid
    }

    /// Calls `each` for every row with its output, in parallel where that pays.
    fn each<T: Send>(&self, outputs: Vec<T>, each: impl Fn(usize, T, &mut Local) -> f32 + Sync) -> Vec<f32> {
        assert_eq!(outputs.len(), self.rows, "one output per row");
        if self.rows * self.width < PARALLEL {
            let mut local = Local::default();
            return outputs.into_iter().enumerate().map(|(row, output)| each(row, output, &mut local)).collect();
        }
        outputs
            .into_par_iter()
            .enumerate()
            .map_init(Local::default, |local, (row, output)| each(row, output, local))
            .collect()
    }

    fn row(&self, row: usize, student: &Rows<'_>, teacher: &Rows<'_>, local: &mut Local) -> Done {
        self.row_of(row, student.row(row, &mut local.student), teacher, row, &mut local.rest)
    }

    /// Row `row`, whose teacher is row `at` of `teacher`.
    fn row_of(&self, row: usize, student: &[f32], teacher: &Rows<'_>, at: usize, rest: &mut Rest) -> Done {
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
    fn write(&self, done: &Done, scratch: &Scratch, gradient: &mut [impl Slot]) {
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

struct Evaluate<'a> {
    spec: &'a Spec,
    student: &'a [f32],
    teacher: &'a [f32],
    terms: usize,
    target: Option<usize>,
    weight: f64,
}

impl<'a> Evaluate<'a> {
    fn with(self, scratch: &'a mut Scratch) -> impl Kernel<Output = Row> {
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

struct Write<'a, S> {
    row: &'a Row,
    scratch: &'a Scratch,
    gradient: &'a mut [S],
}

impl<S: Slot> Kernel for Write<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        self.row.write::<FMA>(self.scratch, self.gradient);
    }
}

impl KnownGradient for Flex {
    fn scale_rows(mut gradient: FlexTensor, by: FlexTensor) -> FlexTensor {
        let by = contiguous(by);
        let factors = match by.dtype() {
            DType::F32 => by.as_slice::<f32>().expect("it was made contiguous").to_vec(),
            _ => by.clone().into_data().iter::<f32>().collect(),
        };
        if factors.iter().all(|by| *by == 1.0) {
            return gradient;
        }
        let rows = gradient.shape()[0].max(1);
        let width = (gradient.shape().num_elements() / rows).max(1);
        let factor = |row: usize| if factors.len() == 1 { factors[0] } else { factors[row] };
        match gradient.dtype() {
            DType::F32 if gradient.is_contiguous() && gradient.layout().start_offset() == 0 => {
                let scale = |(row, values): (usize, &mut [f32])| values.iter_mut().for_each(|x| *x *= factor(row));
                let values = gradient.storage_mut::<f32>();
                if values.len() < PARALLEL {
                    values.chunks_mut(width).enumerate().for_each(scale);
                } else {
                    values.par_chunks_mut(width).enumerate().for_each(scale);
                }
                gradient
            }
            _ => broadcast_rows::<Flex>(gradient, by),
        }
    }
}
