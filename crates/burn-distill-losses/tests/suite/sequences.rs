//! The rows of the losses on sequences: see `table.rs`.

use burn::tensor::{Bool, Tensor};
use burn_distill_dev::device;
use burn_distill_losses::{
    AttentionKlLossConfig, AttentionMask, AttentionMseLossConfig, DskdCmaLossConfig, DskdLossConfig, EmbeddedSpace,
    GoldLossConfig, HiddenCosineLossConfig, HiddenMseLossConfig, MiniLmLossConfig, OutputSpace, RandomKdLossConfig,
    SampledLogits, TokenGroup, TokenLogits, UldLossConfig, VocabularyMap, align_tokens,
};
use serde_json::Value;

use crate::{
    other::{Inputs, Named, Outcome},
    table::{OtherLoss, configured, round_trip},
};

/// Flags of tokens: sequences of `tokens`, `tokens - 1`, `tokens - 2`, `tokens`, ..
fn lengths(batch: usize, tokens: usize) -> Vec<i64> {
    (0..batch * tokens).map(|at| i64::from(at % tokens < tokens - at / tokens % 3)).collect()
}

fn unmasked(x: &Inputs) -> usize {
    x.bool::<2>("mask").int().sum().into_scalar::<i64>() as usize
}

/// The pairs that a case allows: by its tokens, its pairs, or both.
fn attention_mask(x: &Inputs) -> AttentionMask {
    let tokens = || x.bool::<2>("mask");
    match (x.has("mask"), x.has("causal_mask"), x.has("pair_mask")) {
        (true, true, _) => AttentionMask::causal(tokens()),
        (true, false, _) => tokens().into(),
        (_, _, true) => x.bool::<3>("pair_mask").into(),
        _ => None.into(),
    }
}

fn hidden(seed: u64, batch: usize) -> Named {
    Named::default().random("student", &[batch, 4, 3], 1.0, seed).random("teacher", &[batch, 4, 3], 1.5, seed).whole(
        "mask",
        &[batch, 4],
        &lengths(batch, 4),
    )
}

fn scores(seed: u64, batch: usize) -> Named {
    Named::default()
        .random("student", &[batch, 2, 4, 4], 1.0, seed)
        .random("teacher", &[batch, 2, 4, 4], 1.5, seed)
        .whole("mask", &[batch, 4], &lengths(batch, 4))
}

macro_rules! masked_loss {
    ($name:literal, $config:expr, $rank:literal, $mask:expr, { $($field:ident: $value:expr),* $(,)? }) => {
        OtherLoss {
            name: $name,
            run: |settings, x| {
                let loss = configured($config, settings).init().unwrap();
                let (student, teacher) = (x.float::<$rank>("student"), x.float::<$rank>("teacher"));
                let rows = loss.forward_no_reduction(student.clone(), teacher.clone(), $mask(x));
                Outcome::new(rows, loss.forward(student, teacher, $mask(x)))
            },
            round_trip: |settings| round_trip(configured($config, settings), |config| config.init()),
            rows_that_count: Some(unmasked),
            $($field: $value,)*
            ..OtherLoss::DISTANCE
        }
    };
}

/// A teacher's draws: their weights need not follow a distribution.
fn draws(seed: u64, batch: usize) -> Named {
    let ids: Vec<i64> = (0..batch * 4).map(|at| (at as i64 * 3 + seed as i64) % 6).collect();
    let weights = (0..batch * 4).map(|at| 0.1 + 0.1 * (at % 4) as f64).collect();
    Named::default()
        .random("student_logits", &[batch, 6], 2.0, seed)
        .random("teacher_log_probs", &[batch, 4], 1.0, seed)
        .float("weights", &[batch, 4], weights)
        .whole("indices", &[batch, 4], &ids)
}

fn random_kd(settings: &Value, x: &Inputs) -> Outcome {
    let mut fields = settings.clone();
    let temperature = fields.as_object_mut().unwrap().remove("temperature").and_then(|value| value.as_f64());
    let loss = configured(RandomKdLossConfig::new(), &fields).init().unwrap();
    let flat = |name: &str| -> Tensor<2> {
        match x.rank(name) {
            2 => x.float::<2>(name),
            _ => x.float::<3>(name).flatten(0, 1),
        }
    };
    let (student, log_probs) = (flat("student_logits"), flat("teacher_log_probs"));
    let indices = flat("indices").int();
    let vocabulary = student.dims()[1];
    let teacher =
        SampledLogits::new(indices, log_probs, flat("weights"), vocabulary, temperature.unwrap_or(1.0)).unwrap();
    let rows = loss.forward_no_reduction(student.clone(), teacher.clone(), x.mask());
    Outcome::new(rows, loss.forward(student, teacher, x.mask()))
}

fn uld(settings: &Value, x: &Inputs) -> Outcome {
    let loss = configured(UldLossConfig::new(), settings).init().unwrap();
    let names = ["student_logits", "teacher_logits"];
    let (rows, reduced) = if x.rank("student_logits") == 2 {
        let [student, teacher] = names.map(|name| x.float::<2>(name));
        let rows = loss.forward_no_reduction(student.clone(), teacher.clone(), x.mask());
        (rows, loss.forward(student, teacher, x.mask()))
    } else {
        let [student, teacher] = names.map(|name| x.float::<3>(name));
        let rows = loss.forward_no_reduction(student.clone(), teacher.clone(), x.mask());
        (rows, loss.forward(student, teacher, x.mask()))
    };
    Outcome::new(rows, reduced)
}

/// The groups of a case's byte ends; -1 is padding.
fn groups(x: &Inputs) -> Vec<Vec<TokenGroup>> {
    let ends = |name: &str| -> Vec<Vec<usize>> {
        let [_, tokens] = x.dims::<2>(name);
        let ends = x.int::<2>(name).into_data_as::<i64>().try_to_vec::<i64>().unwrap();
        let of_text = |ends: &[i64]| ends.iter().filter_map(|end| usize::try_from(*end).ok()).collect();
        ends.chunks(tokens).map(of_text).collect()
    };
    let aligned = |(own, foreign): (Vec<usize>, Vec<usize>)| align_tokens(&own, &foreign).unwrap();
    ends("own_ends").into_iter().zip(ends("foreign_ends")).map(aligned).collect()
}

fn gold(settings: &Value, x: &Inputs) -> Outcome {
    let pairs = if x.has("fixed_pairs") {
        let pairs = x.int::<2>("fixed_pairs").into_data_as::<i64>().try_to_vec::<i64>().unwrap();
        pairs.chunks(2).map(|pair| (pair[0] as usize, pair[1] as usize)).collect()
    } else {
        Vec::new()
    };
    let ([_, _, classes], [_, _, teacher]) = (x.dims::<3>("student_logits"), x.dims::<3>("teacher_logits"));
    let map = VocabularyMap::new(pairs, classes, teacher).unwrap();
    let loss = configured(GoldLossConfig::new(), settings).init(map).unwrap();
    let side = |role: &str, own: &str| TokenLogits {
        logits: x.float::<3>(&format!("{role}_logits")),
        ids: x.int::<2>(&format!("{own}_ids")),
    };
    let (student, teacher) = (side("student", "own"), side("teacher", "foreign"));
    let rows = loss.forward_no_reduction(student.clone(), teacher.clone(), &groups(x));
    Outcome::new(rows, loss.forward(student, teacher, &groups(x)))
}

fn gold_inputs(seed: u64, batch: usize) -> Named {
    let each = |row: &[i64]| row.repeat(batch);
    Named::default()
        .random("student_logits", &[batch, 4, 5], 1.0, seed)
        .random("teacher_logits", &[batch, 3, 6], 1.5, seed)
        .whole("own_ids", &[batch, 4], &each(&[0, 4, 2, 1]))
        .whole("foreign_ids", &[batch, 3], &each(&[5, 0, 3]))
        .whole("own_ends", &[batch, 4], &each(&[2, 5, 9, 10]))
        .whole("foreign_ends", &[batch, 3], &each(&[5, 7, 10]))
        .whole("fixed_pairs", &[2, 2], &[0, 3, 2, 1])
}

fn space(x: &Inputs, role: &str, head: &str) -> OutputSpace {
    OutputSpace {
        hidden: x.float::<3>(&format!("{role}_hidden")),
        logits: x.float::<3>(&format!("{role}_logits")),
        head: x.float::<2>(head),
    }
}

fn layer(named: Named, name: &str, shape: [usize; 2], seed: u64) -> Named {
    let path = |part: &str| format!("parameter.{name}.{part}");
    named.random(&path("weight"), &shape, 0.5, seed).random(&path("bias"), &shape[1..], 0.5, seed)
}

fn spaces(seed: u64, batch: usize, tokens: [usize; 2], heads: [&str; 2]) -> Named {
    let [own, foreign] = tokens;
    let ids: Vec<i64> = (0..batch * own).map(|at| at as i64 * 5 % 4).collect();
    let named = Named::default()
        .random("student_hidden", &[batch, own, 2], 1.0, seed)
        .random("student_logits", &[batch, own, 4], 1.0, seed)
        .random(heads[0], &[2, 4], 0.7, seed)
        .random("teacher_hidden", &[batch, foreign, 3], 1.0, seed)
        .random("teacher_logits", &[batch, foreign, 5], 1.5, seed)
        .random(heads[1], &[3, 5], 0.7, seed)
        .whole("targets", &[batch, own], &ids);
    layer(layer(named, "teacher_to_student", [3, 2], seed), "student_to_teacher", [2, 3], seed)
}

fn dskd(settings: &Value, x: &Inputs) -> Outcome {
    let ([_, _, width], [_, _, teacher]) = (x.dims::<3>("student_hidden"), x.dims::<3>("teacher_hidden"));
    let loss = x.load(configured(DskdLossConfig::new(width, teacher), settings).init(x.device()).unwrap());
    let (student, teacher) = (space(x, "student", "fixed_head"), space(x, "teacher", "fixed_teacher_head"));
    let rows = loss.forward_no_reduction(student.clone(), teacher.clone(), x.int::<2>("targets"), x.mask());
    let reduced = loss.forward(student, teacher, x.int::<2>("targets"), x.mask());
    Outcome::learned(rows, reduced, loss)
}

fn dskd_cma(settings: &Value, x: &Inputs) -> Outcome {
    let ([_, _, width], [_, _, teacher]) = (x.dims::<3>("student_hidden"), x.dims::<3>("teacher_hidden"));
    let loss = x.load(configured(DskdCmaLossConfig::new(width, teacher), settings).init(x.device()).unwrap());
    let side = |role: &str, own: &str| EmbeddedSpace {
        output: space(x, role, &format!("fixed_{own}_head")),
        input_embeddings: x.float::<3>(&format!("{own}_inputs")),
        target_embeddings: x.float::<3>(&format!("{own}_embedded")),
        mask: x.has(&format!("{own}_mask")).then(|| -> Tensor<2, Bool> { x.bool::<2>(&format!("{own}_mask")) }),
    };
    let (student, teacher) = (side("student", "own"), side("teacher", "foreign"));
    let rows = loss.forward_no_reduction(student.clone(), teacher.clone(), x.int::<2>("targets"));
    let reduced = loss.forward(student, teacher, x.int::<2>("targets"));
    Outcome::learned(rows, reduced, loss)
}

pub(crate) fn sequence_losses() -> Vec<OtherLoss> {
    vec![
        masked_loss!("hidden_mse", HiddenMseLossConfig::new(), 3, Inputs::mask, { inputs: hidden }),
        masked_loss!("hidden_cosine", HiddenCosineLossConfig::new(), 3, Inputs::mask, { inputs: hidden }),
        masked_loss!("attention_mse", AttentionMseLossConfig::new(), 4, attention_mask, {
            settings: &["{}", r#"{"heads": "Mean"}"#],
            inputs: scores,
        }),
        masked_loss!("attention_kl", AttentionKlLossConfig::new(), 4, attention_mask, {
            settings: &["{}", r#"{"heads": "Mean"}"#],
            inputs: scores,
        }),
        masked_loss!("minilm", MiniLmLossConfig::new(1), 3, attention_mask, {
            settings: &["{}", r#"{"relation_heads": 3}"#],
            inputs: hidden,
        }),
        OtherLoss {
            name: "random_kd",
            settings: &["{}", r#"{"temperature": 2.0}"#],
            inputs: draws,
            run: random_kd,
            round_trip: |settings| {
                let mut fields = settings.clone();
                fields.as_object_mut().unwrap().remove("temperature");
                round_trip(configured(RandomKdLossConfig::new(), &fields), RandomKdLossConfig::init);
            },
            zero_at_equality: false,
            non_negative: false,
            ..OtherLoss::DISTANCE
        },
        OtherLoss {
            name: "uld",
            settings: &["{}", r#"{"temperature": 2.0}"#],
            inputs: |seed, batch| {
                Named::default()
                    .random("student_logits", &[batch, 3, 5], 2.0, seed)
                    .random("teacher_logits", &[batch, 3, 5], 2.5, seed)
                    .whole("mask", &[batch, 3], &lengths(batch, 3))
            },
            run: uld,
            round_trip: |settings| round_trip(configured(UldLossConfig::new(), settings), UldLossConfig::init),
            rows_that_count: Some(unmasked),
            ..OtherLoss::DISTANCE
        },
        OtherLoss {
            name: "gold",
            settings: &[
                "{}",
                r#"{"merge": "Last", "beta": 0.0, "temperature": 2.0}"#,
                r#"{"weights": {"Fixed": {"matched": 0.3, "unmatched": 1.5}}, "beta": 1.0}"#,
            ],
            inputs: gold_inputs,
            run: gold,
            round_trip: |settings| {
                round_trip(configured(GoldLossConfig::new(), settings), |config| {
                    config.init(VocabularyMap::from_tokens(&["a"], &["a"]))
                });
            },
            zero_at_equality: false,
            non_negative: false,
            ..OtherLoss::DISTANCE
        },
        OtherLoss {
            name: "dskd",
            settings: &["{}", r#"{"temperature": 2.0, "beta": 0.5}"#],
            inputs: |seed, batch| spaces(seed, batch, [3, 3], ["fixed_head", "fixed_teacher_head"]),
            run: dskd,
            round_trip: |settings| {
                round_trip(configured(DskdLossConfig::new(2, 3), settings), |config| config.init(&device()));
            },
            zero_at_equality: false,
            descends: false,
            ..OtherLoss::DISTANCE
        },
        OtherLoss {
            name: "dskd_cma",
            settings: &["{}", r#"{"temperature": 2.0, "beta": 1.0}"#],
            inputs: |seed, batch| {
                let named = spaces(seed, batch, [3, 4], ["fixed_own_head", "fixed_foreign_head"])
                    .random("own_inputs", &[batch, 3, 2], 0.5, seed)
                    .random("own_embedded", &[batch, 3, 2], 0.5, seed)
                    .random("foreign_inputs", &[batch, 4, 3], 0.5, seed)
                    .random("foreign_embedded", &[batch, 4, 3], 0.5, seed)
                    .whole("own_mask", &[batch, 3], &lengths(batch, 3))
                    .whole("foreign_mask", &[batch, 4], &lengths(batch, 4));
                layer(named, "query", [4, 6], seed)
            },
            run: dskd_cma,
            round_trip: |settings| {
                round_trip(configured(DskdCmaLossConfig::new(2, 3), settings), |config| config.init(&device()));
            },
            zero_at_equality: false,
            descends: false,
            ..OtherLoss::DISTANCE
        },
    ]
}
