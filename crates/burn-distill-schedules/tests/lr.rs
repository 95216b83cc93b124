//! Schedules as the learning rate of Burn's own optimisers.
#![allow(clippy::unwrap_used)]

use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use burn::module::{Module, Param};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn_distill_schedules::{PlateauLr, ReduceOnPlateau, Schedule, ScheduleError, ScheduledLr};

#[derive(Module, Debug)]
struct Point {
    position: Param<Tensor<1>>,
}

impl Point {
    fn new(position: [f32; 3]) -> Self {
        let device = Device::flex().autodiff();
        Self { position: Param::from_tensor(Tensor::from_floats(position, &device)) }
    }

    fn values(&self) -> Vec<f32> {
        self.position.val().into_data().try_to_vec().unwrap()
    }
}

/// One step of the optimiser on `sum(slope * position)`, whose gradient is `slope` everywhere.
fn train_step(point: Point, slope: f32, optimizer: &mut ModuleOptimizer, scheduler: &mut ModuleLrScheduler) -> Point {
    let loss = (point.position.val() * slope).sum();
    let gradients = GradientsParams::from_grads(loss.backward(), &point);
    optimizer.step(scheduler.step(), point, gradients)
}

/// Through the bytes that a checkpoint would hold.
fn saved(record: LrSchedulerRecord) -> LrSchedulerRecord {
    LrSchedulerRecord::from_bytes(record.into_bytes().unwrap()).unwrap()
}

fn schedule() -> Schedule {
    Schedule::cosine(0.5, 0.0625, 12).unwrap().with_warmup(4).unwrap()
}

#[test]
fn sgd_moves_by_the_value_of_each_step() {
    let mut point = Point::new([3.0, 2.0, -1.0]);
    let mut optimizer = SgdConfig::new().init();
    let mut scheduler = ModuleLrScheduler::new(ScheduledLr::new(schedule()).unwrap());
    for step in 0..20 {
        let before = point.values();
        point = train_step(point, 2.0, &mut optimizer, &mut scheduler);
        for (before, after) in before.into_iter().zip(point.values()) {
            let moved = f64::from(before) - f64::from(after);
            let expected = 2.0 * schedule().value(step);
            assert!((moved - expected).abs() < 2e-6, "step {step}: moved {moved}, expected {expected}");
        }
    }
}

#[test]
fn a_resumed_run_is_equal_to_an_uninterrupted_one() {
    let sgd = || SgdConfig::new().with_momentum(Some(MomentumConfig::new())).init();
    let scheduler = || ModuleLrScheduler::new(ScheduledLr::new(schedule()).unwrap());
    let slope = |step: usize| (step as f32 * 0.7).sin();

    let (mut point, mut optimizer, mut rate) = (Point::new([1.0, -2.0, 0.5]), sgd(), scheduler());
    for step in 0..7 {
        point = train_step(point, slope(step), &mut optimizer, &mut rate);
    }
    let mut resumed_point = Point::new(point.values().try_into().unwrap());
    resumed_point.position =
        Param::initialized(point.position.id, resumed_point.position.val().detach().require_grad());
    let mut resumed_optimizer = sgd().from_bytes(optimizer.into_bytes().unwrap()).unwrap();
    let mut resumed_rate = scheduler().load_record(saved(rate.to_record()));

    for step in 7..20 {
        point = train_step(point, slope(step), &mut optimizer, &mut rate);
        resumed_point = train_step(resumed_point, slope(step), &mut resumed_optimizer, &mut resumed_rate);
        assert_eq!(point.values(), resumed_point.values(), "step {step}");
    }
}

#[test]
fn every_step_of_a_schedule_can_be_resumed() {
    for stop in 0..20 {
        let mut original = ScheduledLr::new(schedule()).unwrap();
        for step in 0..stop {
            assert_eq!(original.step(), schedule().value(step));
        }
        let mut resumed = ScheduledLr::new(schedule()).unwrap();
        resumed.load_record(saved(original.to_record()));
        assert_eq!(resumed.next_step(), stop);
        for step in stop..25 {
            assert_eq!(resumed.step(), schedule().value(step));
        }
    }
}

#[test]
fn the_last_step_of_all_does_not_overflow() {
    let mut rate = ScheduledLr::new(schedule()).unwrap().with_next_step(usize::MAX);
    assert_eq!(rate.step(), 0.0625);
    let mut resumed = ScheduledLr::new(schedule()).unwrap();
    resumed.load_record(saved(rate.to_record()));
    assert_eq!((resumed.next_step(), resumed.step()), (usize::MAX, 0.0625));
}

#[test]
fn a_record_of_another_scheduler_changes_nothing() {
    let mut rate = ScheduledLr::new(schedule()).unwrap().with_next_step(3);
    rate.load_record(LrSchedulerRecord::new());
    assert_eq!(rate.next_step(), 3);
    let mut rate = PlateauLr::new(1.0, ReduceOnPlateau::new(0.5, 0).unwrap()).unwrap();
    rate.handle().observe(1.0);
    let before = rate.handle().state();
    rate.load_record(LrSchedulerRecord::new());
    assert_eq!(rate.handle().state(), before);
}

#[test]
fn a_learning_rate_below_zero_is_refused() {
    let error = ScheduledLr::new(Schedule::linear(0.1, -0.5, 10).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "`learning rate` must be in [0, inf), got -0.5");
    let error = PlateauLr::new(-1.0, ReduceOnPlateau::new(0.5, 0).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "`learning rate` must be in [0, inf), got -1");
    for bad in [f64::NAN, f64::INFINITY] {
        assert!(matches!(ScheduledLr::new(bad), Err(ScheduleError::OutOfRange { parameter: "value", .. })));
    }
    // Cut before it falls below 0, it is fine.
    let cut = Schedule::linear(0.5, -0.5, 10).unwrap().then(5, 0.1).unwrap();
    assert!(ScheduledLr::new(cut).is_ok());
}

#[test]
fn a_plateau_reduces_the_rate_of_a_scheduler_that_burn_owns() {
    let plateau = ReduceOnPlateau::new(0.25, 0).unwrap();
    let rate = PlateauLr::new(Schedule::linear(1.0, 0.0, 8).unwrap(), plateau).unwrap();
    let validation = rate.handle();
    let mut owned = ModuleLrScheduler::new(rate);
    validation.observe(0.5);
    assert_eq!(owned.step().base(), 1.0);
    std::thread::scope(|scope| scope.spawn(|| validation.clone().observe(0.6)).join().unwrap());
    assert_eq!(owned.step().base(), 0.875 * 0.25);
    assert_eq!(validation.scale(), 0.25);
}

#[test]
fn a_plateau_resumes_with_all_of_its_state() {
    let losses = [3.0, 2.0, 2.5, 2.4, 2.3, 1.0, 1.1, 1.2, 1.3, 0.9, 0.95, 0.96, 0.97, 0.98];
    let plateau = ReduceOnPlateau::new(0.5, 1).unwrap().with_cooldown(1);
    let make = || PlateauLr::new(Schedule::linear(1.0, 0.5, 10).unwrap(), plateau).unwrap();
    for stop in 0..losses.len() {
        let mut original = make();
        for loss in &losses[..stop] {
            original.handle().observe(*loss);
            original.step();
        }
        let mut resumed = make();
        resumed.load_record(saved(original.to_record()));
        assert_eq!(resumed.handle().state(), original.handle().state());
        for loss in &losses[stop..] {
            original.handle().observe(*loss);
            resumed.handle().observe(*loss);
            assert_eq!(original.step(), resumed.step());
        }
        assert!(original.handle().state().reductions >= 2);
    }
}
