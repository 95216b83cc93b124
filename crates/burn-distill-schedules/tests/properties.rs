//! What holds for every schedule, and what each kind promises beyond.
#![allow(clippy::unwrap_used)]

use burn_distill_schedules::{GapState, GapTemperature, PlateauState, ReduceOnPlateau, Schedule};
use proptest::prelude::*;

/// Multiples of 1/64, which JSON holds exactly.
fn number() -> impl Strategy<Value = f64> {
    (-640i32..=640).prop_map(|n| f64::from(n) / 64.0)
}

fn nonzero() -> impl Strategy<Value = f64> {
    number().prop_filter("0", |value| *value != 0.0)
}

fn positive() -> impl Strategy<Value = f64> {
    (1i32..=640).prop_map(|n| f64::from(n) / 64.0)
}

/// In (0, 1).
fn fraction() -> impl Strategy<Value = f64> {
    (1i32..64).prop_map(|n| f64::from(n) / 64.0)
}

fn steps() -> impl Strategy<Value = usize> {
    1usize..60
}

fn milestones() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::btree_set(1usize..80, 1..6).prop_map(|set| set.into_iter().collect())
}

/// Kinds that go one way, with the sign of their direction: +1 never falls, -1 never rises.
fn monotone() -> impl Strategy<Value = (Schedule, f64)> {
    let sign = |from: f64, to: f64| if to >= from { 1.0 } else { -1.0 };
    let ends = || (number(), number(), steps(), 0.25f64..4.0);
    let decays = || (nonzero(), fraction(), steps());
    prop_oneof![
        number().prop_map(|value| (Schedule::constant(value).unwrap(), 1.0)),
        ends().prop_map(move |(a, b, n, _)| (Schedule::linear(a, b, n).unwrap(), sign(a, b))),
        ends().prop_map(move |(a, b, n, p)| {
            let power = (p * 64.0).round() / 64.0;
            (Schedule::polynomial(a, b, power, n).unwrap(), sign(a, b))
        }),
        ends().prop_map(move |(a, b, n, _)| (Schedule::cosine(a, b, n).unwrap(), sign(a, b))),
        decays().prop_map(|(a, rate, _)| (Schedule::exponential(a, rate).unwrap(), -a.signum())),
        (positive(), fraction(), fraction())
            .prop_map(|(a, rate, part)| { (Schedule::exponential_with_floor(a, rate, a * part).unwrap(), -1.0) }),
        decays().prop_map(|(a, factor, n)| (Schedule::step_decay(a, factor, n).unwrap(), -a.signum())),
        (nonzero(), fraction(), milestones())
            .prop_map(|(a, factor, at)| (Schedule::multi_step(a, factor, at).unwrap(), -a.signum())),
        (nonzero(), fraction(), milestones())
            .prop_map(|(a, factor, at)| (Schedule::multi_step(a, 1.0 + factor, at).unwrap(), a.signum())),
    ]
}

fn restarts() -> impl Strategy<Value = (Schedule, usize, usize)> {
    (number(), number(), 2usize..20, 1usize..4, prop_oneof![Just(1.0), fraction()]).prop_map(
        |(from, to, first, multiplier, decay)| {
            (Schedule::cosine_restarts(from, to, first, multiplier, decay).unwrap(), first, multiplier)
        },
    )
}

fn one_cycle() -> impl Strategy<Value = (Schedule, usize, f64)> {
    (positive(), 5usize..60, 0.25f64..0.9, 0i32..640, 0i32..640).prop_map(|(max, steps, pct, div, last)| {
        let pct = (pct * 64.0).round() / 64.0;
        let factor = |n: i32| 1.0 + f64::from(n) / 64.0;
        (Schedule::one_cycle_with(max, steps, pct, factor(div), factor(last)).unwrap(), steps, pct)
    })
}

fn warmup_stable_decay() -> impl Strategy<Value = (Schedule, [f64; 2], [usize; 3])> {
    (nonzero(), number(), steps(), steps(), steps()).prop_map(|(peak, last, warmup, stable, decay)| {
        let schedule = Schedule::warmup_stable_decay(peak, warmup, stable, decay, last).unwrap();
        (schedule, [peak, last], [warmup, stable, decay])
    })
}

fn any() -> impl Strategy<Value = Schedule> {
    let leaf = prop_oneof![
        6 => monotone().prop_map(|(schedule, _)| schedule),
        2 => restarts().prop_map(|(schedule, ..)| schedule),
        2 => one_cycle().prop_map(|(schedule, ..)| schedule),
        2 => warmup_stable_decay().prop_map(|(schedule, ..)| schedule),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), steps(), prop_oneof![Just(0.0), fraction()]).prop_map(|(after, steps, factor)| {
                if after.value(0) == 0.0 { after } else { after.with_warmup_from(factor, steps).unwrap() }
            }),
            (inner.clone(), steps(), inner.clone())
                .prop_filter_map("covers the piece before", |(a, at, b)| { a.then(at, b).ok() }),
            (inner.clone(), steps(), steps(), inner).prop_filter_map("covers the piece before", |(a, at, more, b)| {
                a.then(at, b.clone()).and_then(|chain| chain.then(at + more, b)).ok()
            }),
        ]
    })
}

/// The steps at which to look: all near the start, then ever sparser, to the last there is.
fn looks() -> impl Iterator<Item = usize> {
    (0..400).chain((9..64).flat_map(|bit| [(1usize << bit) - 1, 1 << bit, (1 << bit) + 1])).chain([usize::MAX])
}

/// Whether the values never turn against the direction, beyond the rounding of their last digit.
fn goes(values: impl IntoIterator<Item = f64>, direction: f64) -> bool {
    let values: Vec<f64> = values.into_iter().collect();
    values.windows(2).all(|pair| (pair[1] - pair[0]) * direction >= -1e-15 * pair[0].abs())
}

#[test]
fn everything_is_send_and_sync() {
    fn check<T: Send + Sync + Clone + std::fmt::Debug + PartialEq>() {}
    check::<Schedule>();
    check::<ReduceOnPlateau>();
    check::<PlateauState>();
    check::<GapTemperature>();
    check::<GapState>();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_value_is_finite_and_within_the_bounds(schedule in any()) {
        let (min, max) = schedule.bounds();
        prop_assert!(min.is_finite() && max.is_finite() && min <= max);
        let rounding = 1e-14 * max.abs().max(min.abs());
        for step in looks() {
            let value = schedule.value(step);
            prop_assert!(value >= min - rounding && value <= max + rounding, "{value} of {min}..{max} at {step}");
        }
    }

    #[test]
    fn the_bounds_are_reached(schedule in any()) {
        // A schedule that ends takes all of its values up to its end.
        if let Some(end) = schedule.end() {
            let values: Vec<f64> = (0..=end).map(|step| schedule.value(step)).collect();
            let min = values.iter().copied().fold(f64::INFINITY, f64::min);
            let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let rounding = 1e-14 * max.abs().max(min.abs());
            let bounds = schedule.bounds();
            prop_assert!((bounds.0 - min).abs() <= rounding && (bounds.1 - max).abs() <= rounding,
                "{bounds:?} for {min}..{max}");
        }
    }

    #[test]
    fn restarts_reach_their_bounds((schedule, first, multiplier) in restarts(), cut in 1usize..300) {
        let cut_off = schedule.clone().then(cut, schedule.value(0)).unwrap();
        let values: Vec<f64> = (0..cut).map(|step| schedule.value(step)).collect();
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let bounds = cut_off.bounds();
        prop_assert!((bounds.0 - min).abs() < 1e-13 && (bounds.1 - max).abs() < 1e-13, "{bounds:?} for {min}..{max}");
        prop_assert!([bounds.0, bounds.1].contains(&schedule.value(0)));

        // Within a cycle it goes one way, towards the value it would end at.
        let mut start = 0;
        let mut length = first;
        let away = schedule.value(0);
        let direction = (schedule.value(first - 1) - away).signum();
        while start < 200 {
            prop_assert!(goes((start..start + length).map(|step| schedule.value(step)), direction));
            start += length;
            length *= multiplier;
        }
    }

    #[test]
    fn a_restart_begins_at_the_decayed_peak(
        from in number(), to in number(), first in 1usize..9, multiplier in 2usize..4, decay in fraction(),
    ) {
        let schedule = Schedule::cosine_restarts(from, to, 2 * first, multiplier, decay).unwrap();
        let (mut start, mut length, mut height) = (0, 2 * first, from - to);
        for _ in 0..8 {
            prop_assert!((schedule.value(start) - (to + height)).abs() < 1e-13);
            prop_assert!((schedule.value(start + length / 2) - (to + height / 2.0)).abs() < 1e-13);
            start += length;
            length *= multiplier;
            height *= decay;
        }
    }

    #[test]
    fn the_last_value_is_held(schedule in any(), later in 0usize..usize::MAX) {
        if let Some(end) = schedule.end() {
            let last = schedule.value(end);
            for step in [end + 1, end + 2, end.saturating_add(later), usize::MAX] {
                prop_assert_eq!(schedule.value(step), last);
            }
        }
    }

    #[test]
    fn what_promises_to_be_monotone_is((schedule, direction) in monotone()) {
        prop_assert!(goes(looks().map(|step| schedule.value(step)), direction));
        // And where it ends, it ends no earlier than it says.
        if let Some(before) = schedule.end().and_then(|end| end.checked_sub(1)) {
            prop_assert!(schedule.value(before) != schedule.value(before + 1) || schedule.bounds().0 == schedule.bounds().1);
        }
    }

    #[test]
    fn one_cycle_rises_to_its_peak_and_falls((schedule, steps, pct) in one_cycle()) {
        let peak = (pct * steps as f64 - 1.0).floor() as usize;
        prop_assert!(goes((0..=peak).map(|step| schedule.value(step)), 1.0));
        prop_assert!(goes((peak + 1..steps + 5).map(|step| schedule.value(step)), -1.0));
        prop_assert_eq!(schedule.end(), Some(steps - 1));
        prop_assert_eq!(schedule.value(steps - 1), schedule.bounds().0);
    }

    #[test]
    fn warmup_is_continuous_and_then_the_schedule_itself(
        after in any(), steps in 1usize..200, factor in prop_oneof![Just(0.0), fraction()], step in 0usize..500,
    ) {
        let first = after.value(0);
        if first == 0.0 {
            prop_assert!(after.with_warmup(steps).is_err());
            return Ok(());
        }
        let schedule = after.clone().with_warmup_from(factor, steps).unwrap();
        prop_assert_eq!(schedule.value(0), factor * first);
        // No step of the rise, the one onto the schedule included, is longer than any other.
        let rise = first * (1.0 - factor) / steps as f64;
        for step in 0..steps {
            let moved = schedule.value(step + 1) - schedule.value(step);
            prop_assert!((moved - rise).abs() <= 1e-13 * first.abs(), "moved {moved} for {rise} at {step}");
        }
        prop_assert_eq!(schedule.value(steps + step), after.value(step));
        prop_assert_eq!(schedule.end(), after.end().map(|end| end + steps));
    }

    #[test]
    fn warmup_stable_decay_has_no_jump((schedule, [peak, last], [warmup, stable, decay]) in warmup_stable_decay()) {
        for step in 0..warmup + stable + decay + 3 {
            let moved = schedule.value(step + 1) - schedule.value(step);
            let expected = if step < warmup {
                peak / warmup as f64
            } else if step < warmup + stable || step >= warmup + stable + decay {
                0.0
            } else {
                (last - peak) / decay as f64
            };
            prop_assert!((moved - expected).abs() <= 1e-13, "moved {moved} for {expected} at {step}");
        }
        prop_assert_eq!(schedule.value(0), 0.0);
        prop_assert_eq!(schedule.end(), Some(warmup + stable + decay));
    }

    #[test]
    fn pieces_are_the_schedules_they_were(a in monotone(), b in any(), c in any(), at in 1usize..90, more in 1usize..90) {
        let (a, _) = a;
        let schedule = a.clone().then(at, b.clone()).unwrap().then(at + more, c.clone()).unwrap();
        for step in 0..300 {
            let expected = if step < at {
                a.value(step)
            } else if step < at + more {
                b.value(step - at)
            } else {
                c.value(step - at - more)
            };
            prop_assert_eq!(schedule.value(step), expected);
        }
    }

    #[test]
    fn json_brings_back_the_same_schedule(schedule in any()) {
        let json = serde_json::to_string(&schedule).unwrap();
        let read: Schedule = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&read, &schedule);
        prop_assert!(schedule.validate().is_ok());
    }

    #[test]
    fn a_plateau_scale_only_falls_and_never_below_its_minimum(
        factor in fraction(), patience in 0usize..4, cooldown in 0usize..4, min in fraction(),
        metrics in proptest::collection::vec(prop_oneof![9 => number(), 1 => Just(f64::NAN)], 0..80),
        stop in 0usize..80,
    ) {
        let plateau = ReduceOnPlateau::new(factor, patience).unwrap().with_cooldown(cooldown).with_min(min).unwrap();
        let mut state = PlateauState::default();
        let mut scales = vec![plateau.scale(&state)];
        for (index, &metric) in metrics.iter().enumerate() {
            if index == stop {
                // Saved and resumed in the middle.
                state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
            }
            plateau.observe(&mut state, metric);
            scales.push(plateau.scale(&state));
        }
        prop_assert_eq!(scales[0], 1.0);
        prop_assert!(goes(scales.iter().copied(), -1.0));
        prop_assert!(scales.iter().all(|scale| *scale >= min));
        // Between two reductions lie at least `patience + 1` observations.
        let changes: Vec<usize> = (1..scales.len()).filter(|&i| scales[i] != scales[i - 1]).collect();
        prop_assert!(changes.windows(2).all(|pair| pair[1] - pair[0] > patience.max(cooldown)));
        let best = metrics.iter().copied().fold(f64::INFINITY, f64::min);
        prop_assert!(state.best.is_none_or(|seen| seen >= best));
    }

    #[test]
    fn the_gap_temperature_rises_with_the_gap(
        min in positive(), span in positive(), half_gap in positive(), momentum in fraction(),
        start in number(), lower in number(), more in positive(),
    ) {
        let temperature = GapTemperature::new(min, min + span, half_gap).unwrap().with_momentum(momentum).unwrap();
        let after = |gaps: [f64; 2]| {
            let mut state = GapState::default();
            gaps.into_iter().for_each(|gap| temperature.observe(&mut state, gap));
            (temperature.value(&state), state.mean.unwrap())
        };
        let ((low, low_mean), (high, high_mean)) = (after([start, lower]), after([start, lower + more]));
        prop_assert!(low_mean < high_mean);
        prop_assert!(low <= high && low >= min && high <= min + span);
        prop_assert!(low < high || high_mean <= 0.0);
        prop_assert!((high_mean - (momentum * start + (1.0 - momentum) * (lower + more))).abs() < 1e-12);
    }
}
