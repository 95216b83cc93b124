//! Forward and backward of every loss on the CPU: `cargo bench -p burn-distill-benches --bench losses`.

#![allow(missing_docs, reason = "criterion's macros make functions without docs")]

use std::{hint::black_box, time::Duration};

use burn::tensor::{Device, Distribution, Int, Tensor, activation::log_softmax};
use burn_distill_losses::*;
use criterion::{Criterion, criterion_group, criterion_main};

/// Rows and classes: CIFAR-100, ImageNet, a language model.
const SIZES: [[usize; 2]; 3] = [[128, 100], [128, 1000], [1024, 32000]];

/// Samples, tokens, width and classes of a small language model.
const TEXT: [usize; 4] = [4, 64, 384, 8192];

fn random<const D: usize>(shape: [usize; D], scale: f64, device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, scale), device)
}

/// What a loss on logits may be given.
struct Logits {
    student: Tensor<2>,
    teacher: Tensor<2>,
    sparse: SparseLogits,
    targets: Tensor<1, Int>,
}

/// Features of a stage of a ResNet for CIFAR, and embeddings of a ResNet-18.
struct Features {
    maps: Tensor<4>,
    teacher_maps: Tensor<4>,
    embeddings: Tensor<2>,
    teacher_embeddings: Tensor<2>,
}

/// Image and text embeddings of a batch of pairs.
struct Pairs {
    student: ClipEmbeddings,
    teacher: ClipEmbeddings,
}

/// Hidden states, attention, logits and output heads of two language models on the same text, written by two tokenizers.
struct Text {
    hidden: Tensor<3>,
    teacher_hidden: Tensor<3>,
    scores: Tensor<4>,
    teacher_scores: Tensor<4>,
    student: EmbeddedSpace,
    teacher: EmbeddedSpace,
    targets: Tensor<2, Int>,
    sampled: SampledLogits,
    groups: Vec<Vec<TokenGroup>>,
}

impl Text {
    /// The student's logits and the tokens of the text.
    fn tokens(&self, of: &EmbeddedSpace) -> TokenLogits {
        TokenLogits { logits: of.output.logits.clone(), ids: self.targets.clone() }
    }
}

/// A name and the loss of its inputs; what is built once is built outside.
type Row<Inputs> = (&'static str, Box<dyn Fn(&Inputs) -> Tensor<1>>);

/// A row for [`logit_losses`] or [`feature_losses`]: its name, the loss, and how it is called.
macro_rules! row {
    ($name:literal, $loss:expr, |$f:ident, $x:ident| $call:expr) => {{
        let $f = $loss;
        ($name, Box::new(move |$x: &_| $call))
    }};
}

fn logit_losses() -> Result<Vec<Row<Logits>>, ConfigError> {
    Ok(vec![
        ("kd_plain_tensor_ops", Box::new(|x: &Logits| plain_kd(x.student.clone(), x.teacher.clone(), 4.0))),
        row!("kd_top64", KdLossConfig::new().init()?, |f, x| f.forward(x.student.clone(), x.sparse.clone(), None)),
        row!("kd", KdLossConfig::new().init()?, |f, x| f.forward(x.student.clone(), x.teacher.clone(), None)),
        row!("kd_cross_entropy", KdCrossEntropyLossConfig::new().init()?, |f, x| {
            f.forward(x.student.clone(), x.teacher.clone(), x.targets.clone(), None)
        }),
        row!("cross_entropy", CrossEntropyLossConfig::new().with_label_smoothing(0.1).init()?, |f, x| {
            f.forward(x.student.clone(), x.targets.clone(), None)
        }),
        row!("multi_teacher_kd", MultiTeacherKdLossConfig::new().init()?, |f, x| {
            f.forward(x.student.clone(), vec![x.teacher.clone(); 3], x.targets.clone(), None)
        }),
        row!("reverse_kl", ReverseKlLossConfig::new().init()?, |f, x| {
            f.forward(x.student.clone(), x.teacher.clone(), None)
        }),
        row!("jsd", JsdLossConfig::new().init()?, |f, x| f.forward(x.student.clone(), x.teacher.clone(), None)),
        row!("skew_kl", SkewKlLossConfig::new().init()?, |f, x| f.forward(x.student.clone(), x.teacher.clone(), None)),
        row!("skew_reverse_kl", SkewReverseKlLossConfig::new().init()?, |f, x| {
            f.forward(x.student.clone(), x.teacher.clone(), None)
        }),
        row!("tvd", TvdLossConfig::new().init()?, |f, x| f.forward(x.student.clone(), x.teacher.clone(), None)),
        row!("akl", AklLossConfig::new().init()?, |f, x| f.forward(x.student.clone(), x.teacher.clone(), None)),
        row!("dkd", DkdLossConfig::new().init()?, |f, x| {
            f.forward(x.student.clone(), x.teacher.clone(), x.targets.clone(), None)
        }),
        row!("dist", DistLossConfig::new().init()?, |f, x| f.forward(x.student.clone(), x.teacher.clone(), None)),
        row!("nkd", NkdLossConfig::new().init()?, |f, x| {
            f.forward(x.student.clone(), x.teacher.clone(), x.targets.clone(), None)
        }),
        row!("wsld", WsldLossConfig::new().init()?, |f, x| {
            f.forward(x.student.clone(), x.teacher.clone(), x.targets.clone(), None)
        }),
        row!("ofa", OfaLossConfig::new().with_gamma(1.5).init()?, |f, x| {
            f.forward(x.student.clone(), x.teacher.clone(), x.targets.clone(), None)
        }),
        row!("mlkd", MlkdLossConfig::new().init()?, |f, x| f.forward(x.student.clone(), x.teacher.clone(), None)),
        row!("logit_mse", LogitMseLossConfig::new().init()?, |f, x| {
            f.forward(x.student.clone(), x.teacher.clone(), None)
        }),
        row!("tf_kd", TfKdLossConfig::new().init()?, |f, x| f.forward(x.student.clone(), x.targets.clone(), None)),
        row!("curriculum_temperature", CurriculumTemperatureLossConfig::new(), |f, x| {
            let loss = f.init(&x.student.device()).expect("the defaults are in range");
            loss.forward(x.student.clone(), x.teacher.clone(), None)
        }),
        row!("standardize", (StandardizeConfig::new().init()?, KdLossConfig::new().init()?), |f, x| {
            let (student, teacher) = f.0.forward(x.student.clone(), x.teacher.clone(), None);
            f.1.forward(student, teacher, None)
        }),
    ])
}

fn feature_losses() -> Result<Vec<Row<Features>>, ConfigError> {
    Ok(vec![
        row!("hint", HintLossConfig::new().init()?, |f, x| f.forward(x.maps.clone(), x.teacher_maps.clone())),
        row!("attention_transfer", AttentionTransferLossConfig::new().init()?, |f, x| {
            f.forward(x.maps.clone(), x.teacher_maps.clone())
        }),
        row!("sp", SpLossConfig::new().init()?, |f, x| f.forward(x.maps.clone(), x.teacher_maps.clone())),
        row!("pkt", PktLossConfig::new().init()?, |f, x| {
            f.forward(x.embeddings.clone(), x.teacher_embeddings.clone())
        }),
        row!("cc", CcLossConfig::new().init()?, |f, x| {
            f.forward(x.embeddings.clone(), x.teacher_embeddings.clone())
        }),
        row!("ickd", IckdLossConfig::new().init()?, |f, x| f.forward(x.maps.clone(), x.teacher_maps.clone())),
        row!("nst", NstLossConfig::new().init()?, |f, x| f.forward(x.maps.clone(), x.teacher_maps.clone())),
        row!("fsp", FspLossConfig::new().init()?, |f, x| {
            f.forward([x.maps.clone(), x.maps.clone()], [x.teacher_maps.clone(), x.teacher_maps.clone()])
        }),
        row!("ab", AbLossConfig::new().init()?, |f, x| f.forward(x.maps.clone(), x.teacher_maps.clone())),
        row!("ofd", OfdLossConfig::new().init()?, |f, x| {
            let margin = Tensor::full([x.maps.dims()[1]], -0.8, &x.teacher_maps.device());
            f.forward(x.maps.clone(), x.teacher_maps.clone(), margin)
        }),
        row!("srrl", SrrlLossConfig::new().init()?, |f, x| {
            let classifier = Tensor::ones([x.maps.dims()[1], 100], &x.teacher_maps.device());
            f.forward(x.maps.clone(), x.teacher_maps.clone(), classifier)
        }),
        row!("simkd", SimKdLossConfig::new().init()?, |f, x| f.forward(x.maps.clone(), x.teacher_maps.clone())),
        row!("review_kd", ReviewKdLossConfig::new().init()?, |f, x| {
            f.forward(x.maps.clone(), x.teacher_maps.clone())
        }),
        row!("vid", VidLossConfig::new(64, 64).init(&Device::flex().autodiff())?, |f, x| {
            f.forward(x.maps.clone(), x.teacher_maps.clone())
        }),
        row!("ft", FtLossConfig::new().init()?, |f, x| f.forward(x.maps.clone(), x.teacher_maps.clone())),
        row!("mgd", MgdLossConfig::new(64).init(&Device::flex().autodiff())?, |f, x| {
            let visible = f.draw(x.maps.dims(), 0, &x.maps.device());
            f.forward(x.maps.clone(), x.teacher_maps.clone(), visible)
        }),
        // CIFAR-100 and the authors' 16,384 negatives.
        row!("crd", CrdLossConfig::new(512, 512, 50_000).init(&Device::flex().autodiff())?, |f, x| {
            let samples: Vec<usize> = (0..x.embeddings.dims()[0]).collect();
            f.forward(x.embeddings.clone(), x.teacher_embeddings.clone(), &samples, CrdNegatives::at_step(0))
        }),
        row!("rkd", RkdLossConfig::new().init()?, |f, x| {
            f.forward(x.embeddings.clone(), x.teacher_embeddings.clone())
        }),
    ])
}

fn cross_modal_losses(device: &Device) -> Result<Vec<Row<Pairs>>, ConfigError> {
    Ok(vec![
        row!("clip", ClipLossConfig::new().init()?, |f, x| f.forward(x.student.clone())),
        row!("clip_feature", ClipFeatureLossConfig::new().init()?, |f, x| {
            f.forward(x.student.clone(), x.teacher.clone())
        }),
        row!("clip_relation", ClipRelationLossConfig::new().init()?, |f, x| {
            f.forward(x.student.clone(), x.teacher.clone())
        }),
        row!("clip_interactive", ClipInteractiveLossConfig::new().init()?, |f, x| {
            f.forward(x.student.clone(), x.teacher.clone())
        }),
        row!("clip_gradient", ClipGradientLossConfig::new().init()?, |f, x| {
            f.forward(x.student.clone(), x.teacher.clone())
        }),
        row!("clip_augmented", ClipAugmentedLossConfig::new(512, 512).init(device)?, |f, x| {
            f.forward(x.student.clone(), x.teacher.clone())
        }),
        row!("affinity_mimicking", AffinityMimickingLossConfig::new().init()?, |f, x| {
            f.forward(x.student.clone(), x.teacher.clone())
        }),
    ])
}

fn sequence_losses(device: &Device) -> Result<Vec<Row<Text>>, ConfigError> {
    let [_, _, width, classes] = TEXT;
    // Every second token of one vocabulary is in the other.
    let pairs = (0..classes).step_by(2).map(|id| (id, id)).collect();
    let map = VocabularyMap::new(pairs, classes, classes).expect("ids below the size, each once");
    Ok(vec![
        row!("hidden_mse", HiddenMseLossConfig::new().init()?, |f, x| {
            f.forward(x.hidden.clone(), x.teacher_hidden.clone(), None)
        }),
        row!("hidden_cosine", HiddenCosineLossConfig::new().init()?, |f, x| {
            f.forward(x.hidden.clone(), x.teacher_hidden.clone(), None)
        }),
        row!("attention_mse", AttentionMseLossConfig::new().init()?, |f, x| {
            f.forward(x.scores.clone(), x.teacher_scores.clone(), None)
        }),
        row!("attention_kl", AttentionKlLossConfig::new().init()?, |f, x| {
            f.forward(x.scores.clone(), x.teacher_scores.clone(), None)
        }),
        row!("minilm", MiniLmLossConfig::new(12).init()?, |f, x| {
            f.forward(x.hidden.clone(), x.teacher_hidden.clone(), None)
        }),
        row!("random_kd", RandomKdLossConfig::new().init()?, |f, x| {
            f.forward(x.student.output.logits.clone(), x.sampled.clone(), None)
        }),
        row!("uld", UldLossConfig::new().init()?, |f, x| {
            f.forward(x.student.output.logits.clone(), x.teacher.output.logits.clone(), None)
        }),
        row!("gold", GoldLossConfig::new().init(map)?, |f, x| {
            f.forward(x.tokens(&x.student), x.tokens(&x.teacher), &x.groups)
        }),
        row!("dskd", DskdLossConfig::new(width, width).init(device)?, |f, x| {
            f.forward(x.student.output.clone(), x.teacher.output.clone(), x.targets.clone(), None)
        }),
        row!("dskd_cma", DskdCmaLossConfig::new(width, width).init(device)?, |f, x| {
            f.forward(x.student.clone(), x.teacher.clone(), x.targets.clone())
        }),
    ])
}

/// Forward and backward of `loss`, waited for.
fn step(loss: Tensor<1>) {
    let device = loss.device();
    black_box(loss.backward());
    device.sync().expect("the device finishes its work");
}

/// KD as one would write it by hand: no mask, no vocabulary policy, no class of probability 0.
fn plain_kd(student: Tensor<2>, teacher: Tensor<2>, temperature: f64) -> Tensor<1> {
    let rows = student.dims()[0] as f64;
    let student = log_softmax(student.div_scalar(temperature), 1);
    let teacher = log_softmax(teacher.div_scalar(temperature), 1);
    (teacher.clone().exp() * (teacher - student)).sum().mul_scalar(temperature.powi(2) / rows)
}

fn logits(criterion: &mut Criterion) -> Result<(), ConfigError> {
    let device = Device::flex();
    device.seed(0);
    for [rows, vocabulary] in SIZES {
        let student = random([rows, vocabulary], 2.0, &device).autodiff();
        let teacher = random([rows, vocabulary], 3.0, &device);
        let sparse = SparseLogits::from_dense(teacher.clone(), 64, Tail::Bucket).expect("64 is below every size");
        let targets = Tensor::<1, Int>::arange(0..rows as i64, &device).remainder_scalar(vocabulary as i64);
        // A fresh leaf for each step: a backward pass consumes the graph it starts from.
        let inputs = || Logits {
            student: student.clone().require_grad(),
            teacher: teacher.clone(),
            sparse: sparse.clone(),
            targets: targets.clone(),
        };
        for (name, loss) in logit_losses()? {
            // Products of all rows with all rows, at five temperatures: minutes for a language model's vocabulary.
            if name == "mlkd" && vocabulary > 1000 {
                continue;
            }
            let id = format!("{name}/fwd_bwd/rows{rows}_vocab{vocabulary}");
            criterion.bench_function(&id, |bencher| bencher.iter(|| step(loss(&inputs()))));
        }
    }
    Ok(())
}

fn features(criterion: &mut Criterion) -> Result<(), ConfigError> {
    let device = Device::flex();
    device.seed(0);
    let (maps, teacher_maps) =
        (random([64, 64, 16, 16], 1.0, &device).autodiff(), random([64, 64, 16, 16], 1.0, &device));
    let (embeddings, teacher_embeddings) =
        (random([64, 512], 1.0, &device).autodiff(), random([64, 512], 1.0, &device));
    let inputs = || Features {
        maps: maps.clone().require_grad(),
        teacher_maps: teacher_maps.clone(),
        embeddings: embeddings.clone().require_grad(),
        teacher_embeddings: teacher_embeddings.clone(),
    };
    for (name, loss) in feature_losses()? {
        let id = format!("{name}/fwd_bwd/batch64_maps64x16x16_or_width512");
        criterion.bench_function(&id, |bencher| bencher.iter(|| step(loss(&inputs()))));
    }
    Ok(())
}

fn cross_modal(criterion: &mut Criterion) -> Result<(), ConfigError> {
    let device = Device::flex();
    device.seed(0);
    let side = || [(); 2].map(|()| random::<2>([256, 512], 1.0, &device));
    let (student, teacher) = (side().map(Tensor::autodiff), side());
    let embeddings = |[images, texts]: [Tensor<2>; 2]| ClipEmbeddings::new(images, texts, 100.0);
    let inputs = || Pairs {
        student: embeddings(student.clone().map(Tensor::require_grad)),
        teacher: embeddings(teacher.clone()),
    };
    for (name, loss) in cross_modal_losses(&device.clone().autodiff())? {
        let id = format!("{name}/fwd_bwd/batch256_width512");
        criterion.bench_function(&id, |bencher| bencher.iter(|| step(loss(&inputs()))));
    }
    Ok(())
}

fn sequences(criterion: &mut Criterion) -> Result<(), ConfigError> {
    let device = Device::flex();
    device.seed(0);
    let [batch, tokens, width, classes] = TEXT;
    let space = || EmbeddedSpace {
        output: OutputSpace {
            hidden: random([batch, tokens, width], 1.0, &device),
            logits: random([batch, tokens, classes], 2.0, &device),
            head: random([width, classes], 0.05, &device),
        },
        input_embeddings: random([batch, tokens, width], 1.0, &device),
        target_embeddings: random([batch, tokens, width], 1.0, &device),
        mask: None,
    };
    let (student, teacher) = (space(), space());
    let scores = [(); 2].map(|()| random::<4>([batch, 12, tokens, tokens], 1.0, &device));
    let logits = teacher.output.logits.clone().flatten::<2>(0, 1);
    let sampled = SampledLogits::draw(logits, 50, 1.0, 1.0, 0).expect("the settings are in range");
    let targets = Tensor::<1, Int>::arange(0..(batch * tokens) as i64, &device).reshape([batch, tokens]);
    // Pairs of the teacher's tokens end where triples of the student's do.
    let group = |at: usize| TokenGroup { student: 3 * at..3 * at + 3, teacher: 2 * at..2 * at + 2 };
    let groups = vec![(0..tokens / 3).map(group).collect(); batch];
    let leaf = |tensor: &Tensor<3>| tensor.clone().autodiff().require_grad();
    let inputs = || Text {
        hidden: leaf(&student.output.hidden),
        teacher_hidden: teacher.output.hidden.clone(),
        scores: scores[0].clone().autodiff().require_grad(),
        teacher_scores: scores[1].clone(),
        student: EmbeddedSpace {
            output: OutputSpace {
                hidden: leaf(&student.output.hidden),
                logits: leaf(&student.output.logits),
                head: student.output.head.clone(),
            },
            ..student.clone()
        },
        teacher: teacher.clone(),
        targets: targets.clone(),
        sampled: sampled.clone(),
        groups: groups.clone(),
    };
    for (name, loss) in sequence_losses(&device.clone().autodiff())? {
        let id = format!("{name}/fwd_bwd/batch{batch}_tokens{tokens}_width{width}_vocab{classes}");
        criterion.bench_function(&id, |bencher| bencher.iter(|| step(loss(&inputs()))));
    }
    Ok(())
}

fn losses(criterion: &mut Criterion) {
    logits(criterion).expect("the configurations are in range");
    features(criterion).expect("the configurations are in range");
    cross_modal(criterion).expect("the configurations are in range");
    sequences(criterion).expect("the configurations are in range");
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500));
    targets = losses
}
criterion_main!(benches);
