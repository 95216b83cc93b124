//! Connectors against PyTorch: outputs, gradients and running statistics from `golden/connectors.py`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, path::Path};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use burn_distill_losses::{HintLossConfig, ReviewKdLossConfig, SimKdLossConfig};
use burn_distill_models::{
    AttentionFusionConfig, BottleneckConnectorConfig, ConvConnectorConfig, LinearConnectorConfig, MlpConnectorConfig,
    Paraphraser, ParaphraserConfig, ReusedClassifier, ReviewConnector, ReviewConnectorConfig, Translator,
    TranslatorConfig,
};
use serde::Deserialize;

/// Relative agreement of f32 with PyTorch's f64.
const RELATIVE: f64 = 1e-5;

#[derive(Deserialize)]
struct Golden {
    review: Vec<Review>,
    conv: Vec<Conv>,
    reused: Vec<Reused>,
    factor: Vec<Factor>,
}

#[derive(Deserialize)]
struct Review {
    name: String,
    training: bool,
    student_channels: Vec<usize>,
    mid_channels: usize,
    teacher_channels: Vec<usize>,
    sizes: Vec<[usize; 2]>,
    weights: BTreeMap<String, Array>,
    student: Vec<Array>,
    teacher: Vec<Array>,
    fused: Vec<Array>,
    loss: f64,
    student_grad: Vec<Array>,
    weight_grad: BTreeMap<String, Array>,
    after: BTreeMap<String, Array>,
}

#[derive(Deserialize)]
struct Conv {
    name: String,
    training: bool,
    student_channels: usize,
    teacher_channels: usize,
    stride: usize,
    weights: BTreeMap<String, Array>,
    student: Array,
    teacher: Array,
    output: Array,
    loss: f64,
    student_grad: Array,
    weight_grad: BTreeMap<String, Array>,
}

#[derive(Deserialize)]
struct Reused {
    name: String,
    training: bool,
    student_channels: usize,
    teacher_channels: usize,
    factor: usize,
    size: [usize; 2],
    weights: BTreeMap<String, Array>,
    student: Array,
    teacher: Array,
    feature: Array,
    logits: Array,
    student_grad: Array,
    weight_grad: BTreeMap<String, Array>,
}

impl Reused {
    /// A head with fresh weights.
    fn head(&self, device: &Device) -> ReusedClassifier {
        let config = BottleneckConnectorConfig::new(self.student_channels, self.teacher_channels);
        let classifier = LinearConfig::new(self.teacher_channels, self.logits.shape[1]).init(device);
        ReusedClassifier::new(config.with_factor(self.factor).init(device).unwrap(), classifier).unwrap()
    }

    /// PyTorch's weights; Burn's linear layer has them the other way round.
    fn weights(&self) -> BTreeMap<String, Array> {
        let turned = |(name, array): (&String, &Array)| {
            let array = match (name.as_str(), &array.shape[..]) {
                ("classifier.weight", &[outputs, inputs]) => {
                    let data = (0..inputs * outputs).map(|i| array.data[i % outputs * inputs + i / outputs]).collect();
                    Array { shape: vec![inputs, outputs], data }
                }
                _ => Array { shape: array.shape.clone(), data: array.data.clone() },
            };
            (name.clone(), array)
        };
        self.weights.iter().map(turned).collect()
    }
}

#[derive(Deserialize)]
struct Factor {
    name: String,
    channels: usize,
    factor_channels: usize,
    norm: bool,
    decodes: bool,
    weights: BTreeMap<String, Array>,
    feature: Array,
    hint: Array,
    factor: Array,
    output: Array,
    loss: f64,
    feature_grad: Array,
    weight_grad: BTreeMap<String, Array>,
}

#[derive(Deserialize)]
struct Array {
    shape: Vec<usize>,
    data: Vec<f64>,
}

impl Array {
    fn tensor<const D: usize>(&self, device: &Device) -> Tensor<D> {
        Tensor::from_data(TensorData::new(self.data.clone(), self.shape.clone()), device)
    }

    #[track_caller]
    fn assert_near<const D: usize>(&self, what: &str, got: &Tensor<D>) {
        assert_eq!(self.shape, got.dims(), "{what}");
        let scale = self.data.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        let got = got.clone().into_data_as::<f64>().try_to_vec::<f64>().unwrap();
        for (index, (got, expected)) in got.iter().zip(&self.data).enumerate() {
            let error = (got - expected).abs();
            assert!(error <= (RELATIVE * scale).max(1e-6), "{what}: element {index} is {got}, expected {expected}");
        }
    }
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/connectors.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// PyTorch's name of a parameter of ours.
fn review_name(path: &[String]) -> String {
    let [_, stage, layer, field] = path else { panic!("{path:?}") };
    format!("stages.{stage}.{}", torch_name(layer, field, "conv1", "conv2"))
}

fn conv_name(path: &[String]) -> String {
    let [layer, field] = path else { panic!("{path:?}") };
    match layer.as_str() {
        "conv" => format!("0.{}", torch_field(field)),
        "norm" => format!("1.{}", torch_field(field)),
        other => panic!("{other}"),
    }
}

fn reused_name(path: &[String]) -> String {
    let [_, rest @ ..] = path else { panic!("{path:?}") };
    let [layer, field] = rest else { return format!("classifier.{}", rest[0]) };
    let layers = ["reduce", "reduce_norm", "", "mix", "mix_norm", "", "expand", "expand_norm"];
    let index = layers.iter().position(|known| known == layer).unwrap_or_else(|| panic!("{layer}"));
    format!("transfer.{index}.{}", torch_field(field))
}

/// The layers of an encoder or decoder are convolution, norm and activation in turn.
fn factor_name(path: &[String]) -> String {
    let [part, layer, kind, field] = path else { panic!("{path:?}") };
    let index = 3 * layer.parse::<usize>().unwrap() + usize::from(kind == "norm");
    format!("{part}.{index}.{}", torch_field(field))
}

fn torch_name(layer: &str, field: &str, reduce: &str, expand: &str) -> String {
    let layer = match layer {
        "reduce" => format!("{reduce}.0"),
        "reduce_norm" => format!("{reduce}.1"),
        "attention" => "att_conv.0".to_string(),
        "expand" => format!("{expand}.0"),
        "expand_norm" => format!("{expand}.1"),
        other => panic!("{other}"),
    };
    format!("{layer}.{}", torch_field(field))
}

fn torch_field(field: &str) -> &str {
    match field {
        "gamma" => "weight",
        "beta" => "bias",
        field => field,
    }
}

/// Puts PyTorch's weights into a module; each must be used.
struct Load<'a> {
    weights: &'a BTreeMap<String, Array>,
    name: fn(&[String]) -> String,
    path: Vec<String>,
    used: usize,
}

impl ModuleMapper for Load<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = (self.name)(&self.path);
        let array = self.weights.get(&name).unwrap_or_else(|| panic!("no `{name}`"));
        self.used += 1;
        param.map(|tensor| {
            assert_eq!(tensor.dims().to_vec(), array.shape, "{name}");
            // A leaf of its own that asks for a gradient where the one before did.
            let new = array.tensor(&tensor.device());
            new.set_require_grad(tensor.is_require_grad())
        })
    }
}

fn load<M: Module>(module: M, weights: &BTreeMap<String, Array>, name: fn(&[String]) -> String) -> M {
    let mut load = Load { weights, name, path: Vec::new(), used: 0 };
    let module = module.map(&mut load);
    assert_eq!(load.used, weights.len());
    module
}

/// Compares gradients, or running statistics, with PyTorch's under their names.
struct Compare<'a> {
    case: &'a str,
    expected: &'a BTreeMap<String, Array>,
    /// `None`: the values themselves.
    gradients: Option<&'a GradientsParams>,
    name: fn(&[String]) -> String,
    path: Vec<String>,
    seen: usize,
}

impl ModuleVisitor for Compare<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = (self.name)(&self.path);
        if let Some(expected) = self.expected.get(&name) {
            let tensor = match self.gradients {
                Some(gradients) => gradients.get::<D>(param.id).unwrap_or_else(|| panic!("no gradient of {name}")),
                None => param.val(),
            };
            expected.assert_near(&format!("{} {name}", self.case), &tensor);
            self.seen += 1;
        }
    }
}

fn compare<M: Module>(
    case: &str,
    module: &M,
    expected: &BTreeMap<String, Array>,
    gradients: Option<&GradientsParams>,
    name: fn(&[String]) -> String,
) {
    let mut compare = Compare { case, expected, gradients, name, path: Vec::new(), seen: 0 };
    module.visit(&mut compare);
    assert_eq!(compare.seen, expected.len(), "{case}");
}

fn check_review<const N: usize>(case: &Review, device: &Device) {
    let config = ReviewConnectorConfig::new(case.student_channels.clone(), case.teacher_channels.clone());
    let connector: ReviewConnector<N> = config.with_mid_channels(case.mid_channels).init(device).unwrap();
    let connector = load(connector, &case.weights, review_name);
    let sizes = case.sizes.clone().try_into().unwrap();
    let stages = |arrays: &[Array]| -> [Tensor<4>; N] { std::array::from_fn(|stage| arrays[stage].tensor(device)) };
    let check_fused = |fused: &[Tensor<4>; N]| {
        for (stage, (expected, fused)) in case.fused.iter().zip(fused).enumerate() {
            expected.assert_near(&format!("{} stage {stage}", case.name), fused);
        }
    };
    if !case.training {
        check_fused(&connector.valid().forward(stages(&case.student), sizes));
        return;
    }
    let student = stages(&case.student).map(Tensor::require_grad);
    let fused = connector.forward(student.clone(), sizes);
    check_fused(&fused);
    let loss = ReviewKdLossConfig::new().init().unwrap().forward_stages(fused, stages(&case.teacher));
    let mut gradients = loss.backward();
    let value = loss.into_scalar::<f64>();
    assert!((value - case.loss).abs() <= RELATIVE * case.loss, "{}: {value}, expected {}", case.name, case.loss);
    for (stage, (expected, student)) in case.student_grad.iter().zip(&student).enumerate() {
        let gradient = student.grad_remove(&mut gradients).unwrap();
        expected.assert_near(&format!("{} gradient of stage {stage}", case.name), &gradient);
    }
    let gradients = GradientsParams::from_grads(gradients, &connector);
    compare(&case.name, &connector, &case.weight_grad, Some(&gradients), review_name);
    compare(&case.name, &connector.valid(), &statistics(case), None, review_name);
}

/// PyTorch's running statistics after the pass, with the variance as Burn's batch norm keeps it: it moves a tenth of the
/// way to the batch's variance over n, PyTorch to that over n - 1.
fn statistics(case: &Review) -> BTreeMap<String, Array> {
    let moved = |(name, after): (&String, &Array)| {
        let [_, stage, layer, _, field] = name.split('.').collect::<Vec<_>>()[..] else { panic!("{name}") };
        let stage: usize = stage.parse().unwrap();
        let [batch, _, height, width] = case.student[stage].shape[..] else { panic!("no image") };
        let pixels = match layer {
            "conv1" => height * width,
            _ => case.sizes[stage].iter().product(),
        };
        let n = (batch * pixels) as f64;
        let factor = if field == "running_var" { (n - 1.0) / n } else { 1.0 };
        let data = after.data.iter().zip(&case.weights[name].data);
        let data = data.map(|(after, before)| 0.9 * before + factor * (after - 0.9 * before)).collect();
        (name.clone(), Array { shape: after.shape.clone(), data })
    };
    case.after.iter().map(moved).collect()
}

#[test]
fn review_connector_and_loss_agree_with_pytorch_and_the_authors() {
    let device = Device::flex().autodiff();
    let cases = golden().review;
    assert_eq!(cases.len(), 4);
    for case in &cases {
        match case.student.len() {
            2 => check_review::<2>(case, &device),
            3 => check_review::<3>(case, &device),
            stages => panic!("{stages} stages"),
        }
    }
}

#[test]
fn conv_connector_agrees_with_pytorch() {
    let device = Device::flex().autodiff();
    let cases = golden().conv;
    assert!(cases.iter().any(|case| case.training) && cases.iter().any(|case| case.stride > 1));
    for case in &cases {
        let config = ConvConnectorConfig::new(case.student_channels, case.teacher_channels).with_stride(case.stride);
        let connector = load(config.init(&device), &case.weights, conv_name);
        if !case.training {
            let output = connector.valid().forward(case.student.tensor(&device.clone().inner()));
            case.output.assert_near(&case.name, &output);
            continue;
        }
        let student = case.student.tensor::<4>(&device).require_grad();
        let output = connector.forward(student.clone());
        case.output.assert_near(&case.name, &output);
        let loss = HintLossConfig::new().init().unwrap().forward(output, case.teacher.tensor(&device));
        let mut gradients = loss.backward();
        assert!((loss.into_scalar::<f64>() - case.loss).abs() <= RELATIVE * case.loss, "{}", case.name);
        case.student_grad.assert_near(&case.name, &student.grad_remove(&mut gradients).unwrap());
        let gradients = GradientsParams::from_grads(gradients, &connector);
        compare(&case.name, &connector, &case.weight_grad, Some(&gradients), conv_name);
    }
}

fn check_factor<M: Module>(case: &Factor, connector: M, forward: impl Fn(&M, Tensor<4>) -> [Tensor<4>; 2]) {
    let device = Device::flex().autodiff();
    let connector = load(connector, &case.weights, factor_name);
    let feature = case.feature.tensor::<4>(&device).require_grad();
    let [factor, output] = forward(&connector, feature.clone());
    case.factor.assert_near(&case.name, &factor);
    case.output.assert_near(&case.name, &output);
    let loss = HintLossConfig::new().init().unwrap().forward(output, case.hint.tensor(&device));
    let mut gradients = loss.backward();
    assert!((loss.into_scalar::<f64>() - case.loss).abs() <= RELATIVE * case.loss, "{}", case.name);
    case.feature_grad.assert_near(&case.name, &feature.grad_remove(&mut gradients).unwrap());
    let gradients = GradientsParams::from_grads(gradients, &connector);
    compare(&case.name, &connector, &case.weight_grad, Some(&gradients), factor_name);
}

#[test]
fn paraphraser_and_translator_agree_with_pytorch_and_repdistiller() {
    let device = Device::flex().autodiff();
    let cases = golden().factor;
    assert_eq!(cases.iter().filter(|case| case.decodes).count(), 2);
    assert_eq!(cases.len(), 4);
    for case in &cases {
        if case.decodes {
            let config = ParaphraserConfig::new(case.channels, case.factor_channels).with_norm(case.norm);
            let both = |connector: &Paraphraser, feature: Tensor<4>| {
                // With norm a second pass in training gives the same.
                [connector.forward(feature.clone()), connector.reconstruct(feature)]
            };
            check_factor(case, config.init(&device), both);
        } else {
            let config = TranslatorConfig::new(case.channels, case.factor_channels).with_norm(case.norm);
            let both = |connector: &Translator, feature: Tensor<4>| {
                let factor = connector.forward(feature);
                [factor.clone(), factor]
            };
            check_factor(case, config.init(&device), both);
        }
    }
}

#[test]
fn reused_classifier_agrees_with_pytorch_and_the_authors() {
    let device = Device::flex().autodiff();
    let cases = golden().reused;
    assert!(cases.iter().any(|case| case.training) && cases.iter().any(|case| !case.training));
    for case in &cases {
        let head = load(case.head(&device), &case.weights(), reused_name);
        if !case.training {
            let output = head.valid().forward(case.student.tensor(&device.clone().inner()), case.size);
            case.feature.assert_near(&case.name, &output.feature);
            case.logits.assert_near(&case.name, &output.logits);
            continue;
        }
        let student = case.student.tensor::<4>(&device).require_grad();
        let output = head.forward(student.clone(), case.size);
        case.feature.assert_near(&case.name, &output.feature);
        case.logits.assert_near(&case.name, &output.logits);
        let loss = SimKdLossConfig::new().init().unwrap().forward(output.feature, case.teacher.tensor(&device));
        let mut gradients = (loss + output.logits.square().mean()).backward();
        case.student_grad.assert_near(&case.name, &student.grad_remove(&mut gradients).unwrap());
        let gradients = GradientsParams::from_grads(gradients, &head);
        // The projector's and nothing else: the teacher's classifier gets none.
        assert_eq!(gradients.len(), case.weight_grad.len(), "{}", case.name);
        compare(&case.name, &head, &case.weight_grad, Some(&gradients), reused_name);
    }
}

#[test]
fn a_reused_classifier_stays_frozen_and_is_saved() {
    let device = Device::flex().autodiff();
    let case = &golden().reused[0];
    let (head, other) = (case.head(&device), case.head(&device));
    let student = case.student.tensor::<4>(&device);
    // As a trainer switches between training and validation.
    let head = head.valid().train();
    let gradients = head.forward(student.clone(), case.size).logits.sum().backward();
    assert_eq!(GradientsParams::from_grads(gradients, &head).len(), case.weight_grad.len());
    let logits = |head: &ReusedClassifier| head.valid().forward(student.clone().inner(), case.size).logits.into_data();
    assert_ne!(logits(&other), logits(&head));
    assert_eq!(logits(&other.load_record(head.clone().into_record())), logits(&head));
}

#[test]
fn a_reused_classifier_reads_the_projectors_channels() {
    let device = Device::flex();
    let error = BottleneckConnectorConfig::new(4, 8).with_factor(9).init(&device).unwrap_err();
    assert_eq!(error.to_string(), "`factor` must be in [1, teacher_channels], got 9 with 8 channels");
    let projector = BottleneckConnectorConfig::new(4, 8).init(&device).unwrap();
    let error = ReusedClassifier::new(projector, LinearConfig::new(6, 10).init(&device)).unwrap_err();
    assert_eq!(error.to_string(), "`classifier` must be as wide as the projector's channels, got 6 for 8 channels");
}

#[test]
fn fusion_starts_as_the_authors_start_it() {
    let device = Device::flex();
    device.seed(1);
    // Kaiming-uniform with a = 1: bound sqrt(3 / fan in), of which the largest of many weights comes near.
    let connector: ReviewConnector<2> =
        ReviewConnectorConfig::new(vec![16, 32], vec![24, 48]).with_mid_channels(20).init(&device).unwrap();
    struct Largest(Vec<(Vec<usize>, f64)>);
    impl ModuleVisitor for Largest {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let weight = param.val();
            self.0.push((weight.dims().to_vec(), weight.abs().max().into_scalar::<f64>()));
        }
    }
    let mut largest = Largest(Vec::new());
    connector.visit(&mut largest);
    let convolutions: Vec<_> = largest.0.into_iter().filter(|(shape, _)| shape.len() == 4 && shape[0] > 2).collect();
    assert_eq!(convolutions.len(), 4);
    for (shape, largest) in convolutions {
        let bound = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
        assert!(largest <= bound && largest > 0.9 * bound, "{shape:?}: {largest}, bound {bound}");
    }
}

#[test]
#[should_panic(expected = "it needs `deeper`")]
fn a_fusion_without_what_it_fuses_is_refused() {
    let device = Device::flex();
    AttentionFusionConfig::new(2, 3, 4).init(&device).forward(Tensor::zeros([1, 2, 4, 4], &device), None, [4, 4]);
}

#[test]
#[should_panic(expected = "takes no `deeper`")]
fn the_deepest_fusion_refuses_something_deeper() {
    let device = Device::flex();
    let deepest = AttentionFusionConfig::new(2, 3, 4).with_fuse(false).init(&device);
    let deeper = Tensor::zeros([1, 3, 2, 2], &device);
    deepest.forward(Tensor::zeros([1, 2, 4, 4], &device), Some(deeper), [4, 4]);
}

#[test]
fn linear_and_mlp_connectors_are_what_they_say() {
    let device = Device::flex();
    let random = |shape: [usize; 3]| Tensor::<3>::random(shape, Distribution::Default, &device);
    let student = random([2, 3, 4]);
    /// The linear layers of a module, in order.
    struct Layers(Vec<Vec<f32>>);
    impl ModuleVisitor for Layers {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.val().into_data().try_to_vec().unwrap());
        }
    }
    fn layers<M: Module>(module: &M) -> Vec<Linear> {
        let mut layers = Layers(Vec::new());
        module.visit(&mut layers);
        let device = Device::flex();
        layers
            .0
            .chunks(2)
            .map(|pair| {
                let [weight, bias] = pair else { panic!("a weight and a bias") };
                let (outputs, inputs) = (bias.len(), weight.len() / bias.len());
                let weight = Tensor::<2>::from_data(TensorData::new(weight.clone(), [inputs, outputs]), &device);
                let bias = Tensor::<1>::from_data(TensorData::new(bias.clone(), [outputs]), &device);
                Linear { weight: Param::from_tensor(weight), bias: Some(Param::from_tensor(bias)) }
            })
            .collect()
    }
    let linear = LinearConnectorConfig::new(4, 6).init(&device);
    let [layer] = &layers(&linear)[..] else { panic!("one layer") };
    assert_eq!(linear.forward(student.clone()).into_data(), layer.forward(student.clone()).into_data());
    let mlp = MlpConnectorConfig::new(4, 5, 6).init(&device);
    let [input, output] = &layers(&mlp)[..] else { panic!("two layers") };
    let expected = output.forward(input.forward(student.clone()).clamp_min(0.0));
    assert_eq!(mlp.forward(student).into_data(), expected.into_data());
}

#[test]
fn connectors_are_saved_and_read_back() {
    fn check<M: Module>(trained: M, fresh: M, forward: impl Fn(&M) -> TensorData) {
        assert_ne!(forward(&fresh), forward(&trained), "two random starts");
        let read = fresh.load_record(trained.clone().into_record());
        assert_eq!(forward(&read), forward(&trained));
    }
    let device = Device::flex();
    let flat = Tensor::<2>::random([3, 4], Distribution::Default, &device);
    let image = Tensor::<4>::random([3, 4, 6, 6], Distribution::Default, &device);
    let deep = Tensor::<4>::random([3, 8, 3, 3], Distribution::Default, &device);
    let linear = || LinearConnectorConfig::new(4, 6).init(&device);
    check(linear(), linear(), |c| c.forward(flat.clone()).into_data());
    let mlp = || MlpConnectorConfig::new(4, 5, 6).init(&device);
    check(mlp(), mlp(), |c| c.forward(flat.clone()).into_data());
    let conv = || ConvConnectorConfig::new(4, 6).init(&device);
    check(conv(), conv(), |c| c.forward(image.clone()).into_data());
    let bottleneck = || BottleneckConnectorConfig::new(4, 6).init(&device).unwrap();
    check(bottleneck(), bottleneck(), |c| c.forward(image.clone(), [6, 6]).into_data());
    let review = || -> ReviewConnector<2> {
        ReviewConnectorConfig::new(vec![4, 8], vec![6, 5]).with_mid_channels(3).init(&device).unwrap()
    };
    check(review(), review(), |c| c.forward([image.clone(), deep.clone()], [[6, 6], [3, 3]])[0].to_data());
}

#[test]
fn a_review_connector_needs_one_number_of_channels_for_each_stage() {
    let device = Device::flex();
    let error = ReviewConnectorConfig::new(vec![4, 8], vec![6, 5, 7]).init::<2>(&device).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`teacher_channels` must be one number per stage, at least one stage, got [6, 5, 7] for 2 stages"
    );
}
