//! Losses of any signature: named inputs of any rank, and every check that their rows in `table.rs` ask for.
//!
//! Inputs are named as in the golden files. Those that begin with `student` or `parameter.` (learned weights, by their
//! path in the module) get gradients, those that begin with `teacher` must get none. Every input but `parameter.*`,
//! `fixed*` and `*logit_scale` (one number) has the batch as its first dimension. What a module remembers and
//! does not learn is `fixed.` and its path.

use std::collections::BTreeMap;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Bool, DType, Device, Gradients, Int, Tensor, TensorData},
};
use burn_distill_dev::{device, supported, tolerance};
use burn_distill_losses::Mask;
use serde_json::Value;

use crate::{
    golden::{Array, Case, assert_gradient, golden},
    inputs::{assert_close, number, numbers, values},
    table::{OtherLoss, other_losses, with},
};

const PARAMETER: &str = "parameter.";
const FIXED: &str = "fixed.";

/// Numbers by name: `whole` ones are class ids, indices or flags.
#[derive(Clone, Default)]
pub(crate) struct Named(BTreeMap<String, (Array, bool)>);

impl Named {
    /// Adds pseudo-random numbers, a function of `seed` and the name.
    pub(crate) fn random(self, name: &str, shape: &[usize], scale: f64, seed: u64) -> Self {
        let seed = name.bytes().fold(seed, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        self.float(name, shape, numbers(seed, shape.iter().product(), scale))
    }

    pub(crate) fn float(mut self, name: &str, shape: &[usize], data: Vec<f64>) -> Self {
        self.0.insert(name.into(), (Array { shape: shape.to_vec(), data }, false));
        self
    }

    /// Adds class ids, indices, or flags (0 and 1).
    pub(crate) fn whole(mut self, name: &str, shape: &[usize], data: &[i64]) -> Self {
        let data = data.iter().map(|value| *value as f64).collect();
        self.0.insert(name.into(), (Array { shape: shape.to_vec(), data }, true));
        self
    }

    fn of_case(case: &Case) -> Self {
        let whole =
            |name: &str| ["targets", "mask", "indices", "index", "ids", "negatives"].iter().any(|w| name.ends_with(w));
        Self(case.inputs.iter().map(|(name, array)| (name.clone(), (array.clone(), whole(name)))).collect())
    }

    fn learning(&self) -> impl Iterator<Item = (&String, &Array)> {
        self.0
            .iter()
            .filter(|(name, _)| name.starts_with("student") || name.starts_with(PARAMETER))
            .map(|(name, (array, _))| (name, array))
    }

    /// The numbers as tensors on `device`, a leaf with a gradient for each of the student's and the teacher's.
    pub(crate) fn tensors(&self, dtype: DType, device: &Device) -> Inputs {
        let leaf = |name: &String, (array, whole): &(Array, bool)| {
            let data = TensorData::new(array.data.clone(), [array.data.len()]);
            let leaf = Tensor::<1>::from_data(data, (device, dtype));
            let tracked =
                device.is_autodiff() && !whole && (name.starts_with("student") || name.starts_with("teacher"));
            let leaf = if tracked { leaf.require_grad() } else { leaf };
            (name.clone(), (leaf, array.clone()))
        };
        Inputs { leaves: self.0.iter().map(|(name, input)| leaf(name, input)).collect(), dtype, device: device.clone() }
    }

    /// The batch in another order; what has no batch dimension (a logit scale is one number) stays.
    fn reordered(&self, order: &[usize]) -> Self {
        let mut named = self.clone();
        for (name, (array, _)) in &mut named.0 {
            if name.starts_with(PARAMETER) || name.starts_with("fixed") || name.ends_with("logit_scale") {
                continue;
            }
            let width = array.data.len() / array.shape[0];
            array.data = order.iter().flat_map(|row| array.data[row * width..(row + 1) * width].to_vec()).collect();
        }
        named
    }

    /// The teacher's inputs made equal to the student's of the same name.
    fn equal(&self) -> Self {
        let mut named = self.clone();
        for (name, input) in &self.0 {
            let teacher = name.replacen("student", "teacher", 1);
            if name.starts_with("student") && named.0.contains_key(&teacher) {
                named.0.insert(teacher, input.clone());
            }
        }
        named
    }

    fn scaled(&self, factor: f64) -> Self {
        let mut named = self.clone();
        for (name, (array, whole)) in &mut named.0 {
            if !*whole && (name.starts_with("student") || name.starts_with("teacher")) {
                array.data.iter_mut().for_each(|value| *value *= factor);
            }
        }
        named
    }
}

/// What a loss is given.
pub(crate) struct Inputs {
    leaves: BTreeMap<String, (Tensor<1>, Array)>,
    dtype: DType,
    device: Device,
}

impl Inputs {
    fn leaf(&self, name: &str) -> &(Tensor<1>, Array) {
        self.leaves.get(name).unwrap_or_else(|| panic!("there is no input `{name}`"))
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The same on a device with gradients, for a loss that computes something else in validation.
    pub(crate) fn in_training(&self) -> Self {
        let lift = |leaf: &Tensor<1>| if leaf.is_autodiff() { leaf.clone() } else { Tensor::from_inner(leaf.clone()) };
        let leaves = self.leaves.iter().map(|(name, (leaf, array))| (name.clone(), (lift(leaf), array.clone())));
        Self { leaves: leaves.collect(), dtype: self.dtype, device: self.device.clone().autodiff() }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.leaves.contains_key(name)
    }

    pub(crate) fn rank(&self, name: &str) -> usize {
        self.leaf(name).1.shape.len()
    }

    /// The shape of an input, of rank D.
    pub(crate) fn dims<const D: usize>(&self, name: &str) -> [usize; D] {
        let shape = &self.leaf(name).1.shape;
        shape.as_slice().try_into().unwrap_or_else(|_| panic!("`{name}` has shape {shape:?}, not rank {D}"))
    }

    pub(crate) fn float<const D: usize>(&self, name: &str) -> Tensor<D> {
        self.leaf(name).0.clone().reshape(self.dims::<D>(name))
    }

    pub(crate) fn int<const D: usize>(&self, name: &str) -> Tensor<D, Int> {
        let data: Vec<i64> = self.leaf(name).1.data.iter().map(|value| *value as i64).collect();
        Tensor::from_data(TensorData::new(data, self.dims::<D>(name)), &self.device)
    }

    /// Logits of any rank as rows, `[rows, classes]`.
    pub(crate) fn logits(&self, name: &str) -> Tensor<2> {
        let (leaf, array) = self.leaf(name);
        let classes = *array.shape.last().unwrap();
        leaf.clone().reshape([array.data.len() / classes, classes])
    }

    /// Class ids of any rank, one per row.
    pub(crate) fn ids(&self, name: &str) -> Tensor<1, Int> {
        let data: Vec<i64> = self.leaf(name).1.data.iter().map(|value| *value as i64).collect();
        let rows = data.len();
        Tensor::from_data(TensorData::new(data, [rows]), &self.device)
    }

    /// Indices as Rust has them.
    pub(crate) fn whole(&self, name: &str) -> Vec<usize> {
        self.leaf(name).1.data.iter().map(|value| *value as usize).collect()
    }

    pub(crate) fn bool<const D: usize>(&self, name: &str) -> Tensor<D, Bool> {
        let data: Vec<bool> = self.leaf(name).1.data.iter().map(|value| *value != 0.0).collect();
        Tensor::from_bool(TensorData::new(data, self.dims::<D>(name)), &self.device)
    }

    /// The mask of a case, one flag per row; everything counts where there is none.
    pub(crate) fn mask(&self) -> Mask {
        self.leaves
            .get("mask")
            .map(|(_, array)| {
                let data: Vec<bool> = array.data.iter().map(|value| *value != 0.0).collect();
                let rows = data.len();
                Tensor::<1, Bool>::from_bool(TensorData::new(data, [rows]), &self.device)
            })
            .into()
    }

    /// `module` with every float parameter taken from the input `parameter.PATH`, and what it remembers from `fixed.PATH`.
    pub(crate) fn load<M: Module>(&self, module: M) -> M {
        struct Load<'a>(&'a Inputs, Vec<String>);
        impl ModuleMapper for Load<'_> {
            fn enter_module(&mut self, name: &str, _container_type: &str) {
                self.1.push(name.into());
            }

            fn exit_module(&mut self, _name: &str, _container_type: &str) {
                self.1.pop();
            }

            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let path = self.1.join(".");
                let remembered = format!("{FIXED}{path}");
                let name = if self.0.has(&remembered) { remembered } else { format!("{PARAMETER}{path}") };
                let array = &self.0.leaf(&name).1;
                let shape: [usize; D] = self.0.dims(&name);
                assert_eq!(param.val().dims(), shape, "{name}");
                let learned = param.is_require_grad();
                let data = TensorData::new(array.data.clone(), shape);
                let tensor = Tensor::from_data(data, (&self.0.device, self.0.dtype));
                let learned = learned && self.0.device.is_autodiff();
                Param::initialized(param.id, if learned { tensor.require_grad() } else { tensor })
            }
        }
        module.map(&mut Load(self, Vec::new()))
    }
}

type Learned = Box<dyn Fn(&Gradients) -> BTreeMap<String, Vec<f64>>>;
type Remembered = Box<dyn Fn() -> BTreeMap<String, Vec<f64>>>;

/// What a loss gives.
pub(crate) struct Outcome {
    pub(crate) rows: Tensor<1>,
    pub(crate) reduced: Tensor<1>,
    learned: Option<Learned>,
    remembered: Option<Remembered>,
}

impl Outcome {
    pub(crate) fn new(rows: Tensor<1>, reduced: Tensor<1>) -> Self {
        Self { rows, reduced, learned: None, remembered: None }
    }

    /// The outcome of a loss with parameters.
    pub(crate) fn learned<M: Module + 'static>(rows: Tensor<1>, reduced: Tensor<1>, module: M) -> Self {
        /// Gradients where there are some, or values.
        struct Collect<'a>(Option<&'a Gradients>, Vec<String>, BTreeMap<String, Vec<f64>>);
        impl ModuleVisitor for Collect<'_> {
            fn enter_module(&mut self, name: &str, _container_type: &str) {
                self.1.push(name.into());
            }

            fn exit_module(&mut self, _name: &str, _container_type: &str) {
                self.1.pop();
            }

            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let path = self.1.join(".");
                match self.0 {
                    None => drop(self.2.insert(format!("{FIXED}{path}"), values(&param.val()))),
                    Some(gradients) => {
                        if let Some(gradient) = param.val().grad(gradients) {
                            self.2.insert(format!("{PARAMETER}{path}"), values(&gradient));
                        }
                    }
                }
            }
        }
        fn collect<M: Module>(module: &M, gradients: Option<&Gradients>) -> BTreeMap<String, Vec<f64>> {
            let mut collect = Collect(gradients, Vec::new(), BTreeMap::new());
            module.visit(&mut collect);
            collect.2
        }
        // In validation, so that updates that Burn has not taken in yet are.
        let module_after = module.valid();
        let remembered: Remembered = Box::new(move || collect(&module_after, None));
        let learned: Learned = Box::new(move |gradients| collect(&module, Some(gradients)));
        Self { rows, reduced, learned: Some(learned), remembered: Some(remembered) }
    }

    /// Value and gradients by name of what learns; no gradient may have reached a teacher.
    pub(crate) fn backward(self, what: &str, inputs: &Inputs) -> (f64, BTreeMap<String, Vec<f64>>) {
        let gradients = self.reduced.backward();
        let mut found = self.learned.map(|learned| learned(&gradients)).unwrap_or_default();
        for (name, (leaf, _)) in &inputs.leaves {
            if let Some(gradient) = leaf.grad(&gradients) {
                assert!(!name.starts_with("teacher"), "{what}: a gradient reaches `{name}`");
                found.insert(name.clone(), values(&gradient));
            }
        }
        (number(self.reduced), found)
    }
}

fn each(check: impl Fn(&OtherLoss, &Value)) {
    for loss in other_losses() {
        for settings in loss.settings {
            check(&loss, &serde_json::from_str(settings).unwrap());
        }
    }
}

#[test]
fn other_losses_agree_with_pytorch() {
    let device = device().autodiff();
    for loss in other_losses() {
        for case in golden(loss.name).cases {
            let what = format!("{}/{}", loss.name, case.name);
            let inputs = Named::of_case(&case).tensors(DType::F32, &device);
            let outcome = (loss.run)(&case.config, &inputs);
            let scale = case.config["temperature"].as_f64().unwrap_or(1.0).max(1.0).powi(2);
            assert_close(&format!("{what} rows"), &values(&outcome.rows), &case.kept_rows(), tolerance(), 1e-6 * scale);
            for (name, expected) in &case.expected.after {
                let remembered = outcome.remembered.as_ref().unwrap()();
                assert_close(
                    &format!("{what} {name} afterwards"),
                    &remembered[name],
                    &expected.data,
                    tolerance(),
                    1e-6,
                );
            }
            let (value, gradients) = outcome.backward(&what, &inputs);
            assert_close(&format!("{what} value"), &[value], &[case.expected.value], tolerance(), 1e-6 * scale);
            let expected: Vec<_> = case.expected.grad.keys().collect();
            assert_eq!(gradients.keys().collect::<Vec<_>>(), expected, "{what}: inputs with a gradient");
            for (name, gradient) in &gradients {
                let expected = &case.expected.grad[name].data;
                assert_gradient(&what, name, gradient, expected);
            }
        }
    }
}

#[test]
fn other_losses_have_the_slope_of_their_central_differences() {
    const STEP: f64 = 1e-5;
    let device = device();
    if supported(&device, &[DType::F64]).is_empty() {
        return;
    }
    each(|loss, settings| {
        let named = (loss.inputs)(7, 4);
        let inputs = named.tensors(DType::F64, &device.clone().autodiff());
        let what = format!("{} {settings}", loss.name);
        let (_, gradients) = (loss.run)(settings, &inputs).backward(&what, &inputs);
        let mut steep = false;
        for (name, array) in named.learning() {
            let differences: Vec<f64> = (0..array.data.len())
                .map(|index| {
                    let at = |offset: f64| {
                        let mut moved = named.clone();
                        moved.0.get_mut(name).unwrap().0.data[index] += offset;
                        number((loss.run)(settings, &moved.tensors(DType::F64, &device)).reduced)
                    };
                    (at(STEP) - at(-STEP)) / (2.0 * STEP)
                })
                .collect();
            steep |= differences.iter().any(|slope| slope.abs() > 1e-4);
            let gradient = gradients.get(name).unwrap_or_else(|| panic!("{what}: no gradient for `{name}`"));
            if loss.descends {
                assert_close(&format!("{what} {name}"), gradient, &differences, 2e-6, 1e-8);
            }
        }
        assert!(steep, "{what}: the loss does not depend on what learns");
    });
}

#[test]
fn other_losses_are_the_mean_of_their_rows() {
    let device = device();
    each(|loss, settings| {
        for batch in [1, 3, 6] {
            let inputs = (loss.inputs)(3, batch).tensors(DType::F32, &device);
            let mean = (loss.run)(&with(settings, "reduction", "Mean"), &inputs);
            let rows = values(&mean.rows);
            let sum: f64 = rows.iter().sum();
            let counted = loss.rows_that_count.map_or(rows.len(), |count| count(&inputs)) as f64;
            let total = number((loss.run)(&with(settings, "reduction", "Sum"), &inputs).reduced);
            let what = format!("{} {settings} batch {batch}", loss.name);
            assert_close(&what, &[number(mean.reduced), total], &[sum / counted.max(1.0), sum], 1e-5, 1e-6);
            if loss.non_negative {
                assert!(rows.iter().all(|row| *row >= -4e-5), "{what}: {rows:?}");
            }
        }
    });
}

#[test]
fn other_losses_do_not_depend_on_the_order_of_the_batch() {
    let device = device();
    each(|loss, settings| {
        let named = (loss.inputs)(5, 5);
        let value = |named: &Named| number((loss.run)(settings, &named.tensors(DType::F32, &device)).reduced);
        let (straight, turned) = (value(&named), value(&named.reordered(&[3, 0, 4, 2, 1])));
        assert_close(&format!("{} {settings}", loss.name), &[turned], &[straight], 1e-5, 1e-6);
    });
}

#[test]
fn other_losses_are_zero_where_the_student_is_the_teacher() {
    let device = device();
    each(|loss, settings| {
        if loss.zero_at_equality {
            let inputs = (loss.inputs)(9, 4).equal().tensors(DType::F32, &device);
            let rows = values(&(loss.run)(settings, &inputs).rows);
            assert_close(&format!("{} {settings}", loss.name), &rows, &vec![0.0; rows.len()], 0.0, 4e-5);
        }
    });
}

#[test]
fn other_losses_stay_finite() {
    let device = device().autodiff();
    let dtypes = supported(&device, &[DType::F32, DType::F16, DType::BF16]);
    each(|loss, settings| {
        for (batch, scale) in [(1, 1.0_f64), (4, 0.0), (4, 1e4), (1, 0.0)] {
            for &dtype in &dtypes {
                let scale = if dtype == DType::F16 { scale.min(loss.largest_in_f16) } else { scale };
                let inputs = (loss.inputs)(11, batch).scaled(scale).tensors(dtype, &device);
                let what = format!("{} {settings} batch {batch} scale {scale} {dtype:?}", loss.name);
                let outcome = (loss.run)(settings, &inputs);
                let rows = values(&outcome.rows);
                assert!(rows.iter().all(|row| row.is_finite()), "{what}: {rows:?}");
                for (name, gradient) in outcome.backward(&what, &inputs).1 {
                    assert!(gradient.iter().all(|slope| slope.is_finite()), "{what}, {name}: {gradient:?}");
                }
            }
        }
    });
}

#[test]
fn other_configs_survive_json() {
    each(|loss, settings| (loss.round_trip)(&with(settings, "reduction", "Sum")));
}
