//! What is refused, and how it is said: by the constructors and by the deserialiser alike.
#![allow(clippy::unwrap_used)]

use burn_distill_schedules::{GapState, GapTemperature, PlateauState, ReduceOnPlateau, Schedule, ThresholdMode};

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

fn says<T: std::fmt::Debug, E: std::fmt::Display>(result: Result<T, E>, message: &str) {
    assert_eq!(result.unwrap_err().to_string(), message);
}

#[test]
fn values_that_are_no_numbers() {
    says(Schedule::constant(NAN), "`value` must be in (-inf, inf), got NaN");
    says(Schedule::constant(-INF), "`value` must be in (-inf, inf), got -inf");
    says(Schedule::linear(NAN, 1.0, 1), "`from` must be in (-inf, inf), got NaN");
    says(Schedule::linear(1.0, INF, 1), "`to` must be in (-inf, inf), got inf");
    says(Schedule::polynomial(1.0, NAN, 1.0, 1), "`to` must be in (-inf, inf), got NaN");
    says(Schedule::cosine(INF, 1.0, 1), "`from` must be in (-inf, inf), got inf");
    says(Schedule::cosine_restarts(1.0, NAN, 2, 1, 1.0), "`to` must be in (-inf, inf), got NaN");
    says(Schedule::exponential(NAN, 0.5), "`from` must be in (-inf, 0) or (0, inf), got NaN");
    says(Schedule::step_decay(INF, 0.5, 1), "`from` must be in (-inf, 0) or (0, inf), got inf");
    says(Schedule::multi_step(NAN, 0.5, [1]), "`from` must be in (-inf, 0) or (0, inf), got NaN");
    says(Schedule::one_cycle(NAN, 10), "`max` must be in (0, inf), got NaN");
    says(Schedule::warmup_stable_decay(NAN, 1, 1, 1, 0.0), "`peak` must be in (-inf, 0) or (0, inf), got NaN");
    says(Schedule::warmup_stable_decay(1.0, 1, 1, 1, INF), "`final_value` must be in (-inf, inf), got inf");
    says(Schedule::from(NAN).with_warmup(1), "`value` must be in (-inf, inf), got NaN");
    says(Schedule::from(NAN).then(1, 1.0), "`value` must be in (-inf, inf), got NaN");
    says(Schedule::from(1.0).then(1, INF), "`value` must be in (-inf, inf), got inf");
}

#[test]
fn factors_outside_their_range() {
    says(Schedule::polynomial(1.0, 0.0, 0.0, 9), "`power` must be in (0, inf), got 0");
    says(Schedule::polynomial(1.0, 0.0, -2.0, 9), "`power` must be in (0, inf), got -2");
    says(Schedule::cosine_restarts(1.0, 0.0, 2, 1, 0.0), "`decay` must be in (0, 1], got 0");
    says(Schedule::cosine_restarts(1.0, 0.0, 2, 1, 1.5), "`decay` must be in (0, 1], got 1.5");
    says(Schedule::exponential(1.0, 1.0), "`rate` must be in (0, 1), got 1");
    says(Schedule::exponential(1.0, NAN), "`rate` must be in (0, 1), got NaN");
    says(Schedule::exponential(0.0, 0.5), "`from` must be in (-inf, 0) or (0, inf), got 0");
    says(Schedule::exponential_with_floor(2.0, 0.5, 2.0), "`floor` must be in (0, 2), got 2");
    says(Schedule::exponential_with_floor(2.0, 0.5, 0.0), "`floor` must be in (0, 2), got 0");
    says(Schedule::step_decay(1.0, -0.5, 1), "`factor` must be in (0, 1), got -0.5");
    says(Schedule::multi_step(1.0, 1.0, [1]), "`factor` must be in (0, 1) or (1, inf), got 1");
    says(
        Schedule::multi_step(1e200, 1e100, [1, 2]),
        &format!("`factor` must be in (0, 1) or (1, inf) with a finite `from` * `factor`^2, got {}", 1e100),
    );
    says(Schedule::one_cycle(0.0, 10), "`max` must be in (0, inf), got 0");
    says(Schedule::one_cycle_with(1.0, 10, 1.0, 2.0, 2.0), "`pct_start` must be in (0, 1), got 1");
    says(Schedule::one_cycle_with(1.0, 10, 0.5, 0.5, 2.0), "`div_factor` must be in [1, inf), got 0.5");
    says(Schedule::one_cycle_with(1.0, 10, 0.5, 2.0, INF), "`final_div_factor` must be in [1, inf), got inf");
    let schedule = || Schedule::constant(1.0).unwrap();
    says(schedule().with_warmup_from(1.0, 5), "`start_factor` must be in [0, 1), got 1");
    says(schedule().with_warmup_from(NAN, 5), "`start_factor` must be in [0, 1), got NaN");
    let from_zero = Schedule::linear(0.0, 1.0, 5).unwrap();
    says(from_zero.with_warmup(5), "`after.value(0)` must be in (-inf, 0) or (0, inf), got 0");
}

#[test]
fn phases_without_steps() {
    says(Schedule::linear(1.0, 0.0, 0), "`steps` must be in [1, inf), got 0");
    says(Schedule::polynomial(1.0, 0.0, 1.0, 0), "`steps` must be in [1, inf), got 0");
    says(Schedule::cosine(1.0, 0.0, 0), "`steps` must be in [1, inf), got 0");
    says(Schedule::cosine_restarts(1.0, 0.0, 0, 2, 1.0), "`first_cycle` must be in [1, inf), got 0");
    says(Schedule::cosine_restarts(1.0, 0.0, 5, 0, 1.0), "`cycle_multiplier` must be in [1, inf), got 0");
    says(
        Schedule::cosine_restarts(1.0, 0.0, 1, 1, 1.0),
        "`first_cycle` must be in [2, inf) where `cycle_multiplier` is 1, got 1",
    );
    says(Schedule::step_decay(1.0, 0.5, 0), "`every` must be in [1, inf), got 0");
    says(
        Schedule::one_cycle_with(1.0, 2, 0.5, 2.0, 2.0),
        "`steps` must be in (1 / `pct_start`, inf) = (2, inf), got 2",
    );
    says(
        Schedule::one_cycle_with(1.0, 0, 0.5, 2.0, 2.0),
        "`steps` must be in (1 / `pct_start`, inf) = (2, inf), got 0",
    );
    says(Schedule::warmup_stable_decay(1.0, 0, 1, 1, 0.0), "`warmup` must be in [1, inf), got 0");
    says(Schedule::warmup_stable_decay(1.0, 1, 0, 1, 0.0), "`stable` must be in [1, inf), got 0");
    says(Schedule::warmup_stable_decay(1.0, 1, 1, 0, 0.0), "`decay` must be in [1, inf), got 0");
    says(
        Schedule::warmup_stable_decay(1.0, usize::MAX, 1, 1, 0.0),
        &format!("the sum of `warmup`, `stable` and `decay` must be at most {}, got more", usize::MAX),
    );
    says(Schedule::constant(1.0).unwrap().with_warmup(0), "`steps` must be in [1, inf), got 0");
    says(Schedule::constant(1.0).unwrap().then(0, 2.0), "`at_step` must be in [1, inf), got 0");
}

#[test]
fn steps_that_do_not_increase() {
    says(Schedule::multi_step(1.0, 0.5, []), "`milestones` must hold at least one step, got none");
    says(Schedule::multi_step(1.0, 0.5, [0, 5]), "`milestones[0]` must be in [1, inf), got 0");
    says(Schedule::multi_step(1.0, 0.5, [5, 9, 7]), "`milestones` must be strictly increasing, got 7 after 9");
    says(Schedule::multi_step(1.0, 0.5, [5, 5]), "`milestones` must be strictly increasing, got 5 after 5");
    let chain = Schedule::constant(1.0).unwrap().then(20, 2.0).unwrap();
    says(chain.then(10, 3.0), "`at_step` must be strictly increasing, got 10 after 20");
}

#[test]
fn nesting_is_bounded_and_all_that_is_built_can_be_read() {
    let mut schedule = Schedule::constant(1.0).unwrap();
    let mut depth = 1;
    let error = loop {
        let json = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule, "at depth {depth}");
        match Schedule::constant(2.0).unwrap().then(1, schedule) {
            Ok(deeper) => schedule = deeper,
            Err(error) => break error,
        }
        depth += 1;
    };
    assert_eq!(error.to_string(), "`nesting` must be in [1, 24], got 25");
    // A chain does not nest.
    let mut chain = Schedule::constant(0.0).unwrap();
    for at in 1..500 {
        chain = chain.then(at, at as f64).unwrap();
    }
    assert_eq!((chain.value(250), chain.value(900), chain.bounds()), (250.0, 499.0, (0.0, 499.0)));
    let json = serde_json::to_string(&chain).unwrap();
    assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), chain);
}

#[test]
fn what_is_read_is_validated() {
    let read = |json: &str| {
        serde_json::from_str::<Schedule>(json).map_err(|error| {
            // serde_json adds the position.
            error.to_string().split(" at line").next().unwrap().to_string()
        })
    };
    says(read(r#"{"linear":{"from":1,"to":0,"steps":0}}"#), "`steps` must be in [1, inf), got 0");
    says(read(r#"{"exponential":{"from":1,"rate":1.5}}"#), "`rate` must be in (0, 1), got 1.5");
    says(
        read(r#"{"warmup":{"steps":5,"start_factor":0,"after":{"cosine":{"from":1,"to":0,"steps":0}}}}"#),
        "`steps` must be in [1, inf), got 0",
    );
    says(
        read(r#"{"piecewise":{"first":{"constant":1},"then":[{"at_step":0,"schedule":{"constant":2}}]}}"#),
        "`at_step` must be in [1, inf), got 0",
    );
    says(read(r#"{"piecewise":{"first":{"constant":1},"then":[]}}"#), "`then` must hold at least one step, got none");
    says(
        read(r#"{"linear":{"from":1,"to":0,"step":5}}"#),
        "unknown field `step`, expected one of `from`, `to`, `steps`",
    );
    says(read(r#"{"cosine":{"from":1,"to":0}}"#), "missing field `steps`");
    assert!(read(r#"{"constant":null}"#).is_err());
    assert!(read(r#"{"sawtooth":{}}"#).is_err());
    // A floor is the one argument that may be left out.
    assert_eq!(read(r#"{"exponential":{"from":1,"rate":0.5}}"#).unwrap(), Schedule::exponential(1.0, 0.5).unwrap());
}

#[test]
fn the_adaptive_ones() {
    says(ReduceOnPlateau::new(1.0, 5), "`factor` must be in (0, 1), got 1");
    says(ReduceOnPlateau::new(NAN, 5), "`factor` must be in (0, 1), got NaN");
    let plateau = ReduceOnPlateau::new(0.5, 5).unwrap();
    says(plateau.with_threshold(-0.1, ThresholdMode::Abs), "`threshold` must be in [0, inf), got -0.1");
    says(plateau.with_threshold(1.0, ThresholdMode::Rel), "`threshold` must be in [0, 1) where it is relative, got 1");
    says(plateau.with_min(1.0), "`min` must be in [0, 1), got 1");
    says(GapTemperature::new(0.0, 1.0, 1.0), "`min` must be in (0, inf), got 0");
    says(GapTemperature::new(2.0, 2.0, 1.0), "`max` must be in (2, inf), got 2");
    says(GapTemperature::new(1.0, 2.0, INF), "`half_gap` must be in (0, inf), got inf");
    let temperature = GapTemperature::new(1.0, 2.0, 0.5).unwrap();
    says(temperature.with_momentum(1.0), "`momentum` must be in [0, 1), got 1");

    says(serde_json::from_str::<ReduceOnPlateau>(r#"{"factor":2,"patience":1}"#), "`factor` must be in (0, 1), got 2");
    says(
        serde_json::from_str::<GapTemperature>(r#"{"min":3,"max":2,"half_gap":1}"#),
        "`max` must be in (3, inf), got 2",
    );
    let minimal: ReduceOnPlateau = serde_json::from_str(r#"{"factor":0.5,"patience":5}"#).unwrap();
    assert_eq!(minimal, plateau);
    let json = serde_json::to_string(&plateau).unwrap();
    assert_eq!(serde_json::from_str::<ReduceOnPlateau>(&json).unwrap(), plateau);
    let json = serde_json::to_string(&temperature).unwrap();
    assert_eq!(serde_json::from_str::<GapTemperature>(&json).unwrap(), temperature);
}

#[test]
fn observations_that_are_no_numbers() {
    let temperature = GapTemperature::new(1.0, 3.0, 0.5).unwrap();
    let mut state = GapState::default();
    for gap in [NAN, INF, -INF] {
        temperature.observe(&mut state, gap);
    }
    assert_eq!((state, temperature.value(&state)), (GapState::default(), 3.0));
    temperature.observe(&mut state, 0.5);
    temperature.observe(&mut state, NAN);
    assert_eq!(temperature.value(&state), 2.0);
    for mean in [f64::MAX, -f64::MAX, f64::MIN_POSITIVE, 5e-324] {
        let value = temperature.value(&GapState { mean: Some(mean) });
        assert!((1.0..=3.0).contains(&value), "{value} at {mean}");
    }
    assert_eq!(temperature.value(&GapState { mean: Some(f64::MAX) }), 3.0);

    let plateau = ReduceOnPlateau::new(0.5, 1).unwrap();
    let mut state = PlateauState::default();
    for metric in [NAN, -INF] {
        plateau.observe(&mut state, metric);
    }
    assert_eq!((state.best, plateau.scale(&state)), (None, 0.5));
    plateau.observe(&mut state, 1.0);
    plateau.observe(&mut state, -INF);
    assert_eq!((state.best, state.bad_observations), (Some(1.0), 1));
}

#[test]
fn the_largest_arguments_neither_overflow_nor_panic() {
    let (big, most) = (f64::MAX, usize::MAX);
    let schedules = [
        Schedule::linear(-big, big, most),
        Schedule::polynomial(big, -big, 1e300, most),
        Schedule::polynomial(big, -big, 5e-324, most),
        Schedule::cosine(-big, big, most),
        Schedule::cosine_restarts(-big, big, most, most, 0.5),
        Schedule::cosine_restarts(big, -big, 1, most, 1.0),
        Schedule::cosine_restarts(big, -big, 2, 1, 5e-324),
        Schedule::exponential(-big, 1.0 - f64::EPSILON / 2.0),
        Schedule::exponential_with_floor(big, 1.0 - f64::EPSILON / 2.0, 5e-324),
        Schedule::step_decay(big, 5e-324, most),
        Schedule::multi_step(5e-324, 1e150, [1, most]),
        Schedule::one_cycle(big, most),
        Schedule::one_cycle_with(big, most, 1.0 - f64::EPSILON / 2.0, big, big),
        Schedule::one_cycle_with(5e-324, most, 1e-18, big, big),
        Schedule::warmup_stable_decay(big, most - 2, 1, 1, -big),
        Schedule::constant(big).and_then(|a| a.then(most, -big)).and_then(|a| a.with_warmup(most)),
        Schedule::linear(1.0, 0.0, most).and_then(|a| a.with_warmup(most)),
    ];
    for schedule in schedules {
        let schedule = schedule.unwrap();
        let (min, max) = schedule.bounds();
        assert!(min.is_finite() && max.is_finite() && min <= max, "{schedule:?}");
        let _ = schedule.end();
        for bit in 0..64 {
            for step in [(1usize << bit) - 1, 1 << bit, most - (1 << bit), most] {
                let value = schedule.value(step);
                assert!(value.is_finite() && value >= min && value <= max, "{value} at {step} of {schedule:?}");
            }
        }
    }
}
