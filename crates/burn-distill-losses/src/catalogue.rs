//! One row per loss: what it compares, needs, learns and costs, and what the literature found.
//!
//! A row re-exports the loss's types at the crate's root and joins [`LOSSES`], from which the tables of the book are
//! made. `learns` is empty for a loss without parameters; `weight` may be left out. The evidence names data set, teacher
//! and student, and in brackets where the numbers stand.

use std::fmt;

/// What a loss of [`LOSSES`] works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Family {
    /// Logits over classes or over a vocabulary, one row per sample or token.
    Logits,
    /// Activations, and the relations between them.
    Features,
    /// Tokens: hidden states, attention, samples of a vocabulary, other tokenizers.
    Sequences,
    /// Embeddings of two modalities.
    CrossModal,
}

impl Family {
    /// Every family, in the order of the book.
    pub const ALL: [Self; 4] = [Self::Logits, Self::Features, Self::Sequences, Self::CrossModal];
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Logits => "Logits",
            Self::Features => "Features",
            Self::Sequences => "Sequences",
            Self::CrossModal => "Cross-modal",
        })
    }
}

/// What a loss asks for beside the student's side of the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Need {
    /// The labels.
    Targets,
    /// The teacher's logits, dense or sparse.
    TeacherLogits,
    /// All of the teacher's logits; a top-k is not enough.
    DenseTeacherLogits,
    /// Classes drawn from all of the teacher's logits (`SampledLogits`), live or from a cache; a top-k is not enough.
    TeacherDraws,
    /// The teacher's activations of any rank, a vector per sample.
    Embeddings,
    /// The teacher's activations `[batch, channels, height, width]`.
    FeatureMaps,
    /// Feature maps of two or more stages.
    SeveralStages,
    /// The same shape on both sides; a connector gives it where it differs.
    SameShape,
    /// The same number of channels on both sides; a connector gives it where it differs.
    SameChannels,
    /// The weights of the teacher's classifier.
    TeacherClassifier,
    /// The weights of the batch norm that made the teacher's features.
    TeacherBatchNorm,
    /// A number that identifies each sample across epochs.
    SampleIds,
    /// The teacher's hidden states `[batch, tokens, width]`.
    HiddenStates,
    /// The teacher's attention `[batch, heads, queries, keys]`.
    Attention,
    /// The teacher's queries, keys and values.
    QueriesKeysValues,
    /// The output projection or embedding of both models.
    OutputProjections,
    /// The characters that each token covers, of both tokenizers.
    TokenOffsets,
    /// The teacher's embeddings of images and of texts.
    PairedEmbeddings,
    /// Texts that belong to the images: row i of one to row i of the other.
    MatchingPairs,
    /// Logits of several teachers.
    SeveralTeachers,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Targets => "labels",
            Self::TeacherLogits => "teacher logits",
            Self::DenseTeacherLogits => "all teacher logits",
            Self::TeacherDraws => "draws from the teacher",
            Self::Embeddings => "embeddings",
            Self::FeatureMaps => "feature maps",
            Self::SeveralStages => "several stages",
            Self::SameShape => "the same shape",
            Self::SameChannels => "the same channels",
            Self::TeacherClassifier => "the teacher's classifier",
            Self::TeacherBatchNorm => "the teacher's batch norm",
            Self::SampleIds => "sample ids",
            Self::HiddenStates => "hidden states",
            Self::Attention => "attention",
            Self::QueriesKeysValues => "queries, keys, values",
            Self::OutputProjections => "output projections",
            Self::TokenOffsets => "token offsets",
            Self::PairedEmbeddings => "image and text embeddings",
            Self::MatchingPairs => "matching pairs",
            Self::SeveralTeachers => "several teachers' logits",
        })
    }
}

/// What there is to know about a loss before choosing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LossInfo {
    /// Its name in tests, benches and golden files, as in `kd`.
    pub name: &'static str,
    /// Its types, the loss first.
    pub types: &'static [&'static str],
    /// What it works on.
    pub family: Family,
    /// What it compares, in a few words.
    pub compares: &'static str,
    /// What it needs beside the student's output.
    pub needs: &'static [Need],
    /// The parameters it learns; empty if none.
    pub learns: &'static str,
    /// What time and memory grow with, beside the inputs.
    pub cost: &'static str,
    /// Where the literature found it to help, or not, with the source.
    pub evidence: &'static str,
    /// The weight that its authors, or who measured it, give it beside a task loss of weight 1, on the scale of this
    /// crate; empty if none is known.
    pub weight: &'static str,
    /// First author, year, and where to find the paper.
    pub reference: &'static str,
}

macro_rules! catalogue {
    ($($name:ident: [$($type:ident),+ $(,)?] {
        family: $family:expr,
        compares: $compares:expr,
        needs: $needs:expr,
        learns: $learns:expr,
        cost: $cost:expr,
        evidence: $evidence:expr,
        $(weight: $weight:expr,)?
        reference: $reference:expr $(,)?
    },)+) => {
        $(pub use crate::$name::{$($type),+};)+

        /// Every loss of this crate, family by family.
        ///
        /// ```
        /// use burn_distill_losses::{LOSSES, Need};
        ///
        /// let without_labels = LOSSES.iter().filter(|loss| !loss.needs.contains(&Need::Targets));
        /// assert!(without_labels.clone().any(|loss| loss.name == "kd"));
        /// assert!(!without_labels.clone().any(|loss| loss.name == "dkd"));
        /// ```
        pub const LOSSES: &[LossInfo] = &[$(LossInfo {
            name: stringify!($name),
            types: &[$(stringify!($type)),+],
            family: $family,
            compares: $compares,
            needs: $needs,
            learns: $learns,
            cost: $cost,
            evidence: $evidence,
            weight: [$($weight,)? ""][0],
            reference: $reference,
        }),+];
    };
}

catalogue! {
    cross_entropy: [CrossEntropyLoss, CrossEntropyLossConfig] {
        family: Family::Logits,
        compares: "student with the labels, smoothed if wished",
        needs: &[Need::Targets],
        learns: "",
        cost: "rows · classes",
        evidence: "the hard-label partner of the others; alone it is the student that they are measured against",
        reference: "Szegedy 2016, arXiv 1512.00567",
    },
    kd: [KdLoss, KdLossConfig, KdForm] {
        family: Family::Logits,
        compares: "KL(teacher, student) at a temperature",
        needs: &[Need::TeacherLogits],
        learns: "",
        cost: "rows · classes",
        evidence: "CIFAR-100, WRN-40-2 to WRN-16-2: 74.92 against 73.26 alone (RepDistiller). ImageNet, ResNet-34 to \
                   ResNet-18: 71.37 against 69.76 alone (torchdistill). Below the student alone where the teacher is \
                   far stronger: ResNet-50 (80.1) to ResNet-18: 72.6 against 73.4 alone (DIST_KD)",
        weight: "CIFAR-100: 0.9 beside 0.1 on labels, T 4 (RepDistiller); ImageNet: 0.5 beside 0.5, T 1 (mdistiller)",
        reference: "Hinton 2015, arXiv 1503.02531",
    },
    kd_cross_entropy: [KdCrossEntropyLoss, KdCrossEntropyLossConfig] {
        family: Family::Logits,
        compares: "KL(teacher, student) at a temperature, and the labels, in one pass",
        needs: &[Need::TeacherLogits, Need::Targets],
        learns: "",
        cost: "rows · classes",
        evidence: "that of KD: the same objective as the two terms, in one reading of the logits",
        weight: "CIFAR-100: 0.9 beside 0.1 on labels, T 4 (RepDistiller); ImageNet: 0.5 beside 0.5, T 1 (mdistiller)",
        reference: "Hinton 2015, arXiv 1503.02531",
    },
    multi_teacher_kd: [MultiTeacherKdLoss, MultiTeacherKdLossConfig] {
        family: Family::Logits,
        compares: "KL from several teachers, per sample weighted by how sure each is of the label",
        needs: &[Need::SeveralTeachers, Need::Targets],
        learns: "",
        cost: "teachers · rows · classes",
        evidence: "CIFAR-100, three teachers: the authors report gains over the mean of the teachers and over \
                   weights that do not see the labels",
        reference: "Zhang 2022 (CA-MKD), arXiv 2201.00007",
    },
    reverse_kl: [ReverseKlLoss, ReverseKlLossConfig] {
        family: Family::Logits,
        compares: "KL(student, teacher): the student keeps to modes it can cover",
        needs: &[Need::TeacherLogits],
        learns: "",
        cost: "rows · classes",
        evidence: "proposed for language models that learn from text they generate themselves; for classification \
                   the papers read here report none",
        reference: "Gu 2023 (MiniLLM), arXiv 2306.08543",
    },
    jsd: [JsdLoss, JsdLossConfig] {
        family: Family::Logits,
        compares: "both with their mixture",
        needs: &[Need::TeacherLogits],
        learns: "",
        cost: "rows · classes",
        evidence: "proposed for on-policy distillation of language models, where the best beta depends on the task",
        reference: "Agarwal 2023 (GKD), arXiv 2306.13649",
    },
    skew_kl: [SkewKlLoss, SkewKlLossConfig] {
        family: Family::Logits,
        compares: "KL from the teacher to the student with a little of the teacher mixed in",
        needs: &[Need::TeacherLogits],
        learns: "",
        cost: "rows · classes",
        evidence: "instruction following of language models, in the authors' own runs together with generated data \
                   (DistiLLM)",
        reference: "Ko 2024 (DistiLLM), arXiv 2402.03898",
    },
    skew_reverse_kl: [SkewReverseKlLoss, SkewReverseKlLossConfig] {
        family: Family::Logits,
        compares: "KL from the student to the teacher with a little of the student mixed in",
        needs: &[Need::TeacherLogits],
        learns: "",
        cost: "rows · classes",
        evidence: "as the skew KL, in the same runs (DistiLLM)",
        reference: "Ko 2024 (DistiLLM), arXiv 2402.03898",
    },
    tvd: [TvdLoss, TvdLossConfig] {
        family: Family::Logits,
        compares: "probabilities, class by class: half the sum of absolute differences",
        needs: &[Need::TeacherLogits],
        learns: "",
        cost: "rows · classes",
        evidence: "sequence models as one of four divergences (f-DISTILL); no number found against KD for \
                   classification",
        reference: "Wen 2023 (f-DISTILL), arXiv 2307.15190",
    },
    akl: [AklLoss, AklLossConfig] {
        family: Family::Logits,
        compares: "forward and reverse KL, weighted by where the student is wrong",
        needs: &[Need::TeacherLogits],
        learns: "",
        cost: "rows · classes · log classes (a sort)",
        evidence: "instruction following of language models, better than either KL in the authors' own runs",
        reference: "Wu 2024, arXiv 2404.02657",
    },
    dkd: [DkdLoss, DkdLossConfig] {
        family: Family::Logits,
        compares: "KL split into target and other classes",
        needs: &[Need::TeacherLogits, Need::Targets],
        learns: "",
        cost: "rows · classes",
        evidence: "CIFAR-100, WRN-40-2 to WRN-16-2: 76.23 against 73.26 alone and 74.92 for KD. ImageNet, ResNet-34 \
                   to ResNet-18: 71.70 against 71.03 for KD (mdistiller)",
        weight: "1 with a linear warm-up over 20 of 240 epochs, beta 8, T 4; ImageNet: beta 0.5, T 1 (mdistiller)",
        reference: "Zhao 2022, arXiv 2203.08679",
    },
    dist: [DistLoss, DistLossConfig] {
        family: Family::Logits,
        compares: "correlations over classes and over samples",
        needs: &[Need::TeacherLogits],
        learns: "",
        cost: "rows · classes",
        evidence: "made for much stronger teachers: ImageNet, ResNet-50 (80.1) to ResNet-18: 74.5 against 73.4 alone \
                   and 72.6 for KD. CIFAR-100, ResNet-56 to ResNet-20: 71.75 against 69.06 alone (DIST_KD) and 70.66 \
                   for KD (RepDistiller)",
        weight: "2; T 4 on CIFAR-100, T 1 on ImageNet (DIST_KD)",
        reference: "Huang 2022, arXiv 2205.10536",
    },
    nkd: [NkdLoss, NkdLossConfig] {
        family: Family::Logits,
        compares: "the target, weighed by the teacher's confidence, and the other classes, normalised",
        needs: &[Need::TeacherLogits, Need::Targets],
        learns: "",
        cost: "rows · classes",
        evidence: "ImageNet, ResNet-34 to ResNet-18: 71.96 against 69.90 alone (cls_KD)",
        weight: "1; ImageNet: gamma 1.5, T 1; CIFAR-100: gamma 3.5, T 3 (cls_KD)",
        reference: "Yang 2023, arXiv 2303.13005",
    },
    wsld: [WsldLoss, WsldLossConfig] {
        family: Family::Logits,
        compares: "KL, less of it where the student knows the label better than the teacher",
        needs: &[Need::TeacherLogits, Need::Targets],
        learns: "",
        cost: "rows · classes",
        evidence: "ImageNet, ResNet-34 to ResNet-18: 72.04 against 69.75 alone (Weighted-Soft-Label-Distillation)",
        weight: "ImageNet: 2.5, T 2 (Weighted-Soft-Label-Distillation); CIFAR-100: 2.25, T 4 (cls_KD)",
        reference: "Zhou 2021, arXiv 2102.00650",
    },
    ofa: [OfaLoss, OfaLossConfig] {
        family: Family::Logits,
        compares: "KL with the target enhanced where the teacher is sure of it",
        needs: &[Need::TeacherLogits, Need::Targets],
        learns: "",
        cost: "rows · classes",
        evidence: "between CNN, ViT and MLP, with exits at every stage: up to 8.0 points on CIFAR-100, 0.7 on \
                   ImageNet (the authors)",
        weight: "1, for each exit and for the logits (OFAKD)",
        reference: "Hao 2023 (OFA-KD), arXiv 2310.19444",
    },
    mlkd: [MlkdLoss, MlkdLossConfig] {
        family: Family::Logits,
        compares: "predictions, similarities of samples and of classes, at several temperatures",
        needs: &[Need::TeacherLogits],
        learns: "",
        cost: "temperatures · rows² · classes",
        evidence: "CIFAR-100, ResNet-56 to ResNet-20, with a weak and a strong view of each image: 72.19 against \
                   69.06 alone and 70.66 for KD (logit-standardization-KD)",
        weight: "CIFAR-100: 0.9 beside 0.1 on labels, which its trainer's masks halve (Multi-Level-Logit-Distillation)",
        reference: "Jin 2023, CVPR",
    },
    logit_mse: [LogitMseLoss, LogitMseLossConfig] {
        family: Family::Logits,
        compares: "logits, squared difference",
        needs: &[Need::DenseTeacherLogits],
        learns: "",
        cost: "rows · classes",
        evidence: "better than KD on clean labels, worse than KD at a low temperature on noisy ones (Kim 2021)",
        weight: "1 and no loss on labels (kd_data)",
        reference: "Ba 2014, arXiv 1312.6184",
    },
    tf_kd: [TfKdLoss, TfKdLossConfig] {
        family: Family::Logits,
        compares: "student with a virtual teacher made of the labels",
        needs: &[Need::Targets],
        learns: "",
        cost: "rows · classes",
        evidence: "where no teacher is at hand: up to 0.65 points over the baseline on ImageNet (the authors)",
        weight: "CIFAR-100, on this scale: ResNet-18 0.1 beside 0.9 on labels, MobileNetV2 0.0095 beside 0.05 \
                 (Teacher-free-Knowledge-Distillation)",
        reference: "Yuan 2020, arXiv 1909.11723",
    },
    curriculum_temperature: [CurriculumTemperatureLoss, CurriculumTemperatureLossConfig] {
        family: Family::Logits,
        compares: "KL(teacher, student) at a temperature that learns to make it hard",
        needs: &[Need::TeacherLogits],
        learns: "the temperature",
        cost: "rows · classes",
        evidence: "CIFAR-100 over KD: ResNet-56 to ResNet-20 71.19 against 70.66, ResNet-32x4 to ResNet-8x4 73.39 \
                   against 73.33 (logit-standardization-KD)",
        weight: "CIFAR-100: 0.9 beside 0.1 on labels, the reversal from 0 to 1 in 10 epochs (CTKD)",
        reference: "Li 2023 (CTKD), arXiv 2211.16231",
    },
    standardize: [Standardize, StandardizeConfig] {
        family: Family::Logits,
        compares: "nothing itself: Z-scores of the logits, in front of any loss on logits",
        needs: &[Need::DenseTeacherLogits],
        learns: "",
        cost: "rows · classes",
        evidence: "CIFAR-100, ResNet-32x4 to ResNet-8x4: KD from 73.33 to 76.62, DKD from 76.32 to 77.01 \
                   (logit-standardization-KD); ImageNet, ResNet-34 to ResNet-18: 71.23, below KD's 71.37 \
                   (torchdistill)",
        weight: "9 for KD of standardised logits at T 2, beside 0.1 on labels (logit-standardization-KD)",
        reference: "Sun 2024, arXiv 2403.01427",
    },
    hint: [HintLoss, HintLossConfig] {
        family: Family::Features,
        compares: "activations, element by element",
        needs: &[Need::Embeddings, Need::SameShape],
        learns: "",
        cost: "batch · features",
        evidence: "CIFAR-100, WRN-40-2 to WRN-16-2: 73.58 against 73.26 alone and 74.92 for KD. VGG-13 to \
                   MobileNetV2: 64.14, below the student alone, 64.60 (RepDistiller)",
        weight: "100 at one middle stage (RepDistiller)",
        reference: "Romero 2015 (FitNets), arXiv 1412.6550",
    },
    attention_transfer: [AttentionTransferLoss, AttentionTransferLossConfig] {
        family: Family::Features,
        compares: "where activations are large",
        needs: &[Need::FeatureMaps],
        learns: "",
        cost: "batch · features",
        evidence: "CIFAR-100, WRN-40-2 to WRN-16-2: 74.08 against 73.26 alone and 74.92 for KD. Harmful across \
                   architectures: VGG-13 to MobileNetV2: 59.40 against 64.60 alone (RepDistiller)",
        weight: "1000 for the sum over the stages (RepDistiller)",
        reference: "Zagoruyko 2017, arXiv 1612.03928",
    },
    sp: [SpLoss, SpLossConfig] {
        family: Family::Features,
        compares: "similarities between samples",
        needs: &[Need::Embeddings],
        learns: "",
        cost: "batch² · features",
        evidence: "CIFAR-100, WRN-40-2 to WRN-16-2: 73.83 against 73.26 alone and 74.92 for KD. VGG-13 to VGG-8: \
                   72.68 against 70.36 alone and 72.98 for KD (RepDistiller)",
        weight: "3000 at the last stage (RepDistiller)",
        reference: "Tung 2019, arXiv 1907.09682",
    },
    rkd: [RkdLoss, RkdLossConfig] {
        family: Family::Features,
        compares: "distances and angles between samples",
        needs: &[Need::Embeddings],
        learns: "",
        cost: "batch² · width + batch³",
        evidence: "CIFAR-100, WRN-40-2 to WRN-16-2: 73.35 against 73.26 alone and 74.92 for KD. ResNet-32x4 to \
                   ResNet-8x4: 71.90, below the student alone, 72.50 (RepDistiller)",
        weight: "1, with distances 25 and angles 50 inside (RepDistiller)",
        reference: "Park 2019, arXiv 1904.05068",
    },
    pkt: [PktLoss, PktLossConfig] {
        family: Family::Features,
        compares: "each sample's distribution over its neighbours",
        needs: &[Need::Embeddings],
        learns: "",
        cost: "batch² · features",
        evidence: "CIFAR-100, WRN-40-2 to WRN-16-2: 74.54 against 73.26 alone and 74.92 for KD (RepDistiller)",
        weight: "30000 at the last features (RepDistiller)",
        reference: "Passalis 2018, arXiv 1803.10837",
    },
    cc: [CcLoss, CcLossConfig, CorrelationKernel] {
        family: Family::Features,
        compares: "kernels between samples",
        needs: &[Need::Embeddings],
        learns: "",
        cost: "batch² · features",
        evidence: "ImageNet, ResNet-34 to ResNet-18: 70.74 against 70.04 alone and 70.68 for KD (ICKD); \
                   RepDistiller's numbers are of `Neighbours`",
        weight: "0.02, of `Neighbours` (RepDistiller)",
        reference: "Peng 2019, arXiv 1904.01802",
    },
    ickd: [IckdLoss, IckdLossConfig] {
        family: Family::Features,
        compares: "correlations between channels",
        needs: &[Need::FeatureMaps, Need::SameChannels],
        learns: "",
        cost: "batch · channels² · positions",
        evidence: "CIFAR-100, WRN-40-2 to WRN-16-2: 75.64 against 73.26 alone and 74.92 for KD (ICKD); ImageNet, \
                   ResNet-34 to ResNet-18: 72.16 (ICKD), but 68.34, below the student alone, in torchdistill",
        weight: "2.5 (ICKD)",
        reference: "Liu 2021, arXiv 2202.03680",
    },
    nst: [NstLoss, NstLossConfig, NstKernel] {
        family: Family::Features,
        compares: "the distributions of the channels' patterns",
        needs: &[Need::FeatureMaps],
        learns: "",
        cost: "batch · channels² · positions",
        evidence: "CIFAR-100, WRN-40-2 to WRN-16-2: 73.68 against 73.26 alone and 74.92 for KD (RepDistiller)",
        weight: "50 for the sum over the stages (RepDistiller)",
        reference: "Huang 2017, arXiv 1707.01219",
    },
    fsp: [FspLoss, FspLossConfig] {
        family: Family::Features,
        compares: "inner products between the channels of two stages",
        needs: &[Need::SeveralStages, Need::SameChannels],
        learns: "",
        cost: "batch · channels² · positions",
        evidence: "CIFAR-100, WRN-40-2 to WRN-16-2: 72.91, below the student alone, 73.26 (RepDistiller)",
        weight: "50 for the sum over pairs of stages (RepDistiller)",
        reference: "Yim 2017, CVPR",
    },
    ab: [AbLoss, AbLossConfig] {
        family: Family::Features,
        compares: "which neurons are active, before the ReLU",
        needs: &[Need::Embeddings, Need::SameShape],
        learns: "",
        cost: "batch · features",
        evidence: "CIFAR-100, WRN-40-2 to WRN-16-2: 72.50, below the student alone, 73.26 (RepDistiller); meant as a \
                   first stage of training",
        weight: "0.003 at the last stage, half for each shallower one: 1 on the scale of RepDistiller",
        reference: "Heo 2019, arXiv 1811.03233",
    },
    ofd: [OfdLoss, OfdLossConfig] {
        family: Family::Features,
        compares: "activations before the ReLU, cut at a margin",
        needs: &[Need::FeatureMaps, Need::SameShape, Need::TeacherBatchNorm],
        learns: "",
        cost: "batch · features",
        evidence: "CIFAR-100, WRN-28-4 to WRN-16-2: 75.92 against 72.68 alone (overhaul-distillation)",
        weight: "0.001 at the last stage, half for each shallower one (overhaul-distillation)",
        reference: "Heo 2019, arXiv 1904.01866",
    },
    srrl: [SrrlLoss, SrrlLossConfig] {
        family: Family::Features,
        compares: "last features, and what the teacher's classifier makes of them",
        needs: &[Need::Embeddings, Need::SameChannels, Need::TeacherClassifier],
        learns: "",
        cost: "batch · features · classes",
        evidence: "CIFAR-100, ResNet-32x4 to ResNet-8x4: 75.39 against 73.09 alone and 74.42 for KD (SimKD)",
        weight: "1 beside KD of 1 (SimKD)",
        reference: "Yang 2021, ICLR",
    },
    simkd: [SimKdLoss, SimKdLossConfig] {
        family: Family::Features,
        compares: "the last feature map, for a student that ends in the teacher's classifier",
        needs: &[Need::FeatureMaps, Need::SameChannels, Need::TeacherClassifier],
        learns: "",
        cost: "batch · features",
        evidence: "CIFAR-100, ResNet-32x4 to ResNet-8x4: 78.08 against 73.09 alone and 74.42 for KD, with a \
                   projector that stays in the student (SimKD)",
        weight: "1 and no loss on labels (SimKD)",
        reference: "Chen 2022, arXiv 2203.14001",
    },
    review_kd: [ReviewKdLoss, ReviewKdLossConfig] {
        family: Family::Features,
        compares: "pyramids of several stages",
        needs: &[Need::SeveralStages, Need::SameShape],
        learns: "",
        cost: "batch · features",
        evidence: "ImageNet, ResNet-34 to ResNet-18: 71.61 in the paper and 71.64 measured again; alone 69.76 \
                   (torchdistill)",
        weight: "CIFAR-100: 0.6 to 8 by the pair, mostly 5, with a linear warm-up; ImageNet: 1 and 8 (ReviewKD)",
        reference: "Chen 2021, arXiv 2104.09044",
    },
    vid: [VidLoss, VidLossConfig] {
        family: Family::Features,
        compares: "features, as the mean of a Gaussian with learned variances",
        needs: &[Need::FeatureMaps],
        learns: "a regressor of three 1x1 convolutions, a variance per channel",
        cost: "batch · positions · channels²",
        evidence: "CIFAR-100, WRN-40-2 to WRN-16-2: 74.11 against 73.26 alone and 74.92 for KD (RepDistiller)",
        weight: "1 for the sum over the stages (RepDistiller)",
        reference: "Ahn 2019, arXiv 1904.05835",
    },
    ft: [FtLoss, FtLossConfig] {
        family: Family::Features,
        compares: "directions of factors, made by a paraphraser of the teacher's features and a translator of the \
                   student's",
        needs: &[Need::FeatureMaps, Need::SameChannels],
        learns: "",
        cost: "batch · features",
        evidence: "CIFAR-100, ResNet-110 to ResNet-32: 72.37 against 71.14 alone and 73.08 for KD; WRN-40-2 to \
                   WRN-40-1: 71.59, below the student alone, 71.98 (RepDistiller, whose loss compares attention \
                   maps)",
        weight: "500 (Factor-Transfer-pytorch), 200 with `map_power` 2 (RepDistiller)",
        reference: "Kim 2018, arXiv 1802.04977",
    },
    crd: [CrdLoss, CrdLossConfig] {
        family: Family::Features,
        compares: "which sample it is, among thousands",
        needs: &[Need::Embeddings, Need::SampleIds],
        learns: "a projection of either side; remembers an embedding of every sample",
        cost: "batch · samples · width, and twice samples · width of memory",
        evidence: "CIFAR-100, WRN-40-2 to WRN-16-2: 75.48 against 73.26 alone and 74.92 for KD (RepDistiller); \
                   ImageNet, ResNet-34 to ResNet-18: 71.17, repeated 70.93, against 69.76 alone (torchdistill)",
        weight: "0.8 (RepDistiller)",
        reference: "Tian 2020, arXiv 1910.10699",
    },
    mgd: [MgdLoss, MgdLossConfig, MgdHides] {
        family: Family::Features,
        compares: "features, generated from a student's of which parts are hidden",
        needs: &[Need::FeatureMaps, Need::SameShape],
        learns: "two 3x3 convolutions",
        cost: "batch · positions · 18 channels²",
        evidence: "ImageNet, ResNet-34 to ResNet-18: 71.69 against 69.90 alone; COCO, RetinaNet with ResNet-50: 41.0 \
                   against 37.4 mAP (MGD)",
        weight: "7e-5 for classification, 2e-5 for detection and segmentation (MGD)",
        reference: "Yang 2022, arXiv 2205.01529",
    },
    hidden_mse: [HiddenMseLoss, HiddenMseLossConfig] {
        family: Family::Sequences,
        compares: "hidden states of unmasked tokens, element by element",
        needs: &[Need::HiddenStates, Need::SameShape],
        learns: "",
        cost: "tokens · width",
        evidence: "one of the terms of TinyBERT and TextBrewer's recipes: MNLI 84.0 to 82.6 (mismatched) with 4 \
                   small layers (TextBrewer); not isolated there",
        reference: "Jiao 2020 (TinyBERT), arXiv 1909.10351",
    },
    hidden_cosine: [HiddenCosineLoss, HiddenCosineLossConfig] {
        family: Family::Sequences,
        compares: "directions of hidden states of unmasked tokens",
        needs: &[Need::HiddenStates, Need::SameShape],
        learns: "",
        cost: "tokens · width",
        evidence: "one of DistilBERT's three terms, beside KD and masked language modelling",
        reference: "Sanh 2019 (DistilBERT), arXiv 1910.01108",
    },
    attention_mse: [AttentionMseLoss, AttentionMseLossConfig] {
        family: Family::Sequences,
        compares: "attention scores before the softmax",
        needs: &[Need::Attention],
        learns: "",
        cost: "heads · tokens²",
        evidence: "one of TinyBERT's terms; the scores converged faster there than the probabilities",
        reference: "Jiao 2020 (TinyBERT), arXiv 1909.10351",
    },
    attention_kl: [AttentionKlLoss, AttentionKlLossConfig] {
        family: Family::Sequences,
        compares: "where attention looks: KL of each query's distribution over keys",
        needs: &[Need::Attention],
        learns: "",
        cost: "heads · tokens²",
        evidence: "a term of MobileBERT (every layer) and of MiniLM (the last layer)",
        reference: "Sun 2020 (MobileBERT), arXiv 2004.02984",
    },
    minilm: [MiniLmLoss, MiniLmLossConfig] {
        family: Family::Sequences,
        compares: "relations among tokens' queries, keys or values, by KL",
        needs: &[Need::QueriesKeysValues],
        learns: "",
        cost: "relation heads · tokens² + tokens² · width",
        evidence: "task-agnostic BERT, RoBERTa and XLM-R students of any width and number of heads (MiniLMv2)",
        reference: "Wang 2021 (MiniLMv2), arXiv 2012.15828",
    },
    random_kd: [RandomKdLoss, RandomKdLossConfig] {
        family: Family::Sequences,
        compares: "KL from classes drawn from the teacher; unbiased",
        needs: &[Need::TeacherDraws],
        learns: "",
        cost: "rows · classes for the student, rows · draws for the teacher",
        evidence: "3B to 300M, 12 distinct tokens a row: LM loss 2.75 as with all logits, 2.81 without KD; a top-25 \
                   is worse than none (authors' poster)",
        reference: "Anshumann 2025, arXiv 2503.16870",
    },
    uld: [UldLoss, UldLossConfig] {
        family: Family::Sequences,
        compares: "sorted probabilities, whatever the vocabularies",
        needs: &[Need::DenseTeacherLogits],
        learns: "",
        cost: "tokens · classes · log classes",
        evidence: "gives a signal where tokenizers differ; what the classes mean is left to the labels",
        reference: "Boizard 2024, arXiv 2402.12030",
    },
    gold: [GoldLoss, GoldLossConfig, HybridWeights, TokenLogits, TokenMerge] {
        family: Family::Sequences,
        compares: "merged tokens of two tokenizers: shared ones by JSD, others sorted",
        needs: &[Need::DenseTeacherLogits, Need::TokenOffsets],
        learns: "",
        cost: "tokens · classes · log classes",
        evidence: "in TRL for on-policy distillation across model families, as an experiment",
        reference: "Hugging Face TRL 2025 (GOLD)",
    },
    dskd: [DskdLoss, DskdLossConfig, OutputSpace] {
        family: Family::Sequences,
        compares: "distributions from one head: hidden states projected into the other model's space",
        needs: &[Need::HiddenStates, Need::DenseTeacherLogits, Need::OutputProjections, Need::Targets],
        learns: "two projections between the widths",
        cost: "tokens · width · classes, three times",
        evidence: "Rouge-L of GPT-2 and TinyLlama students above the same divergences without it (its paper); no \
                   replication known here",
        reference: "Zhang 2024, arXiv 2406.17328",
    },
    dskd_cma: [DskdCmaLoss, DskdCmaLossConfig, EmbeddedSpace] {
        family: Family::Sequences,
        compares: "the same across two tokenizers, aligned by a learned attention",
        needs: &[Need::HiddenStates, Need::DenseTeacherLogits, Need::OutputProjections, Need::Targets],
        learns: "three projections: between the widths, and the attention's queries",
        cost: "tokens · width · classes, three times, and student tokens · teacher tokens",
        evidence: "above ULD and edit-distance alignment for GPT-2 from Qwen1.5 and TinyLlama from Mistral (its \
                   paper); no replication known here",
        reference: "Zhang 2024, arXiv 2406.17328",
    },
    clip: [ClipLoss, ClipLossConfig] {
        family: Family::CrossModal,
        compares: "each image with the texts of the batch, each text with its images",
        needs: &[Need::MatchingPairs],
        learns: "",
        cost: "batch · width + batch²",
        evidence: "the task loss beside the others; alone, ViT-T/16 on CC3M+12M: zero-shot ImageNet 30.55 (CLIP-KD)",
        reference: "Radford 2021 (CLIP), arXiv 2103.00020",
    },
    clip_feature: [ClipFeatureLoss, ClipFeatureLossConfig] {
        family: Family::CrossModal,
        compares: "unit embeddings, element by element",
        needs: &[Need::PairedEmbeddings, Need::SameShape],
        learns: "",
        cost: "batch · width",
        evidence: "CC3M+12M, ViT-B/16 to ViT-T/16, zero-shot ImageNet: 34.23, on masked images 34.09 against 30.55 \
                   alone. The strongest single term (CLIP-KD)",
        weight: "2000 (CLIP-KD)",
        reference: "Yang 2024 (CLIP-KD), arXiv 2307.12732",
    },
    clip_relation: [ClipRelationLoss, ClipRelationLossConfig] {
        family: Family::CrossModal,
        compares: "KL of the similarities of images with texts and of texts with images",
        needs: &[Need::PairedEmbeddings],
        learns: "",
        cost: "batch · width + batch²",
        evidence: "CC3M+12M, ViT-B/16 to ViT-T/16, zero-shot ImageNet: 31.94 against 30.55 alone. With feature and \
                   interactive terms 34.90 (CLIP-KD)",
        weight: "1 (CLIP-KD)",
        reference: "Yang 2024 (CLIP-KD), arXiv 2307.12732",
    },
    clip_interactive: [ClipInteractiveLoss, ClipInteractiveLossConfig] {
        family: Family::CrossModal,
        compares: "the student's images with the teacher's texts, its texts with the teacher's images",
        needs: &[Need::PairedEmbeddings, Need::SameShape, Need::MatchingPairs],
        learns: "",
        cost: "batch · width + batch²",
        evidence: "CC3M+12M, ViT-B/16 to ViT-T/16, zero-shot ImageNet: 33.11 against 30.55 alone (CLIP-KD)",
        weight: "1 (CLIP-KD)",
        reference: "Yang 2024 (CLIP-KD), arXiv 2307.12732",
    },
    clip_gradient: [ClipGradientLoss, ClipGradientLossConfig] {
        family: Family::CrossModal,
        compares: "gradients of the contrastive loss to the embeddings",
        needs: &[Need::PairedEmbeddings, Need::SameShape, Need::MatchingPairs],
        learns: "",
        cost: "batch · width + batch²",
        evidence: "CC3M+12M, ViT-B/16 to ViT-T/16, zero-shot ImageNet: 31.54 against 30.55 alone, by code that \
                   divides by the logit scale (CLIP-KD)",
        weight: "1e8 where divided by the logit scale (CLIP-KD); none known for the formula",
        reference: "Yang 2024 (CLIP-KD), arXiv 2307.12732",
    },
    clip_augmented: [ClipAugmentedLoss, ClipAugmentedLossConfig] {
        family: Family::CrossModal,
        compares: "pairs of embeddings fused from student and teacher",
        needs: &[Need::PairedEmbeddings, Need::MatchingPairs],
        learns: "one linear fusion for each modality",
        cost: "batch · width² + batch²",
        evidence: "CC3M+12M, ViT-B/16 to ViT-T/16, zero-shot ImageNet: 31.42 against 30.55 alone, though the script \
                   for it sets the weight of the relational term instead (CLIP-KD)",
        reference: "Yang 2024 (CLIP-KD), arXiv 2307.12732",
    },
    affinity_mimicking: [AffinityMimickingLoss, AffinityMimickingLossConfig] {
        family: Family::CrossModal,
        compares: "cross-entropy of the similarities of images with texts and of texts with images",
        needs: &[Need::PairedEmbeddings],
        learns: "",
        cost: "batch · width + batch²",
        evidence: "with weights inherited from the teacher: YFCC-15M, ViT-8M/16, zero-shot ImageNet: 41.1 \
                   (TinyCLIP). The gradient is that of the relational term",
        weight: "1 and no task loss, logit scale 50 at first (TinyCLIP)",
        reference: "Wu 2023 (TinyCLIP), arXiv 2309.12314",
    },
}
