//! Rows of the losses that have parameters or a memory, see `table.rs`.

use burn_distill_dev::device;
use burn_distill_losses::{CrdLossConfig, MgdLossConfig, VidLossConfig};

use crate::{
    other::{Named, Outcome},
    table::{OtherLoss, configured, round_trip},
};

pub(crate) fn learned_losses() -> Vec<OtherLoss> {
    vec![
        OtherLoss {
            name: "vid",
            inputs: |seed, batch| {
                Named::default()
                    .random("student", &[batch, 2, 5, 4], 1.0, seed)
                    .random("teacher", &[batch, 3, 3, 4], 1.5, seed)
                    .random("parameter.first.weight", &[3, 2, 1, 1], 0.5, seed)
                    .random("parameter.second.weight", &[3, 3, 1, 1], 0.5, seed)
                    .random("parameter.third.weight", &[3, 3, 1, 1], 0.5, seed)
                    // Small variances have gradients beyond half precision.
                    .float("parameter.scale", &[3], vec![3.0, 2.0, 4.0])
            },
            run: |settings, x| {
                let config = configured(VidLossConfig::new(2, 3), settings);
                let loss = x.load(config.init(x.device()).unwrap());
                let (student, teacher) = (x.float("student"), x.float("teacher"));
                let rows = loss.forward_no_reduction(student.clone(), teacher.clone());
                Outcome::learned(rows, loss.forward(student, teacher), loss)
            },
            round_trip: |settings| {
                round_trip(configured(VidLossConfig::new(2, 3), settings), |config| config.init(&device()))
            },
            zero_at_equality: false,
            non_negative: false,
            ..OtherLoss::DISTANCE
        },
        OtherLoss {
            name: "mgd",
            inputs: |seed, batch| {
                let flags: Vec<i64> = (0..batch as i64 * 12).map(|index| i64::from(index * 7 % 12 > 4)).collect();
                Named::default()
                    .random("student", &[batch, 2, 3, 4], 1.0, seed)
                    .random("teacher", &[batch, 2, 3, 4], 1.5, seed)
                    .whole("visible_mask", &[batch, 1, 3, 4], &flags)
                    .random("parameter.first.weight", &[2, 2, 3, 3], 0.3, seed)
                    .random("parameter.first.bias", &[2], 0.3, seed)
                    .random("parameter.second.weight", &[2, 2, 3, 3], 0.3, seed)
                    .random("parameter.second.bias", &[2], 0.3, seed)
            },
            run: |settings, x| {
                let loss = x.load(configured(MgdLossConfig::new(2), settings).init(x.device()).unwrap());
                let (student, teacher, visible) = (x.float("student"), x.float("teacher"), x.bool("visible_mask"));
                let rows = loss.forward_no_reduction(student.clone(), teacher.clone(), visible.clone());
                Outcome::learned(rows, loss.forward(student, teacher, visible), loss)
            },
            round_trip: |settings| {
                round_trip(configured(MgdLossConfig::new(2), settings), |config| config.init(&device()))
            },
            largest_in_f16: 30.0,
            zero_at_equality: false,
            ..OtherLoss::DISTANCE
        },
        OtherLoss {
            name: "crd",
            settings: &["{}", r#"{"temperature": 0.5, "momentum": 0.9}"#],
            inputs: |seed, batch| {
                let samples: Vec<i64> = (0..batch as i64).map(|index| index * 3 % 10).collect();
                let negatives: Vec<i64> = (0..batch as i64 * 5).map(|index| index * 7 % 10).collect();
                Named::default()
                    .random("student", &[batch, 3], 1.0, seed)
                    .random("teacher", &[batch, 5], 1.5, seed)
                    .whole("sample_indices", &[batch], &samples)
                    .whole("negatives", &[batch, 5], &negatives)
                    .random("parameter.student_projection.weight", &[3, 4], 0.5, seed)
                    .random("parameter.student_projection.bias", &[4], 0.5, seed)
                    .random("parameter.teacher_projection.weight", &[5, 4], 0.5, seed)
                    .random("parameter.teacher_projection.bias", &[4], 0.5, seed)
                    .random("fixed.student_memory.rows", &[10, 4], 0.5, seed)
                    .random("fixed.teacher_memory.rows", &[10, 4], 0.5, seed)
                    .float("fixed.log_partition", &[2], vec![4.5, 5.25])
            },
            run: |settings, x| {
                let x = x.in_training();
                let config = configured(CrdLossConfig::new(3, 5, 10).with_width(4), settings);
                // Each call moves the memory.
                let loss = || x.load(config.init(x.device()).unwrap());
                let samples = || x.whole("sample_indices");
                let arguments = || (x.float::<2>("student"), x.float::<2>("teacher"), x.int::<2>("negatives"));
                let (student, teacher, negatives) = arguments();
                let rows = loss().forward_no_reduction(student, teacher, &samples(), negatives);
                let (loss, (student, teacher, negatives)) = (loss(), arguments());
                Outcome::learned(rows, loss.forward(student, teacher, &samples(), negatives), loss)
            },
            round_trip: |settings| {
                let config = configured(CrdLossConfig::new(3, 5, 10), settings);
                round_trip(config, |config| config.init(&device()))
            },
            zero_at_equality: false,
            ..OtherLoss::DISTANCE
        },
    ]
}
