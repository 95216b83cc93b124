//! One cube per row: its units stride over the columns, and reduce through shared memory.
//!
//! Four passes, of which all but the first find the row in the cache: maxima, sums of exponentials, the value and
//! `Σ q h` (see the kernels of `flex`), the gradient. Nothing here is infinite: some GPUs do not keep infinities.

use cubecl::prelude::*;

/// What is compiled into a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Options {
    pub(super) family: Family,
    /// Whether the cross-entropy of the targets is added.
    pub(super) hard: bool,
    /// Whether the gradient is written.
    pub(super) gradient: bool,
    /// Units of a cube, a power of two.
    pub(super) units: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Family {
    ForwardKl,
    CrossEntropy,
    ReverseKl,
    JensenShannon,
    SkewKl,
    SkewCrossEntropy,
    SkewReverseKl,
    Decoupled,
}

const FLOOR: f32 = -1e30;
const HALF_FLOOR: f32 = -5e29;
const TINY: f32 = f32::MIN_POSITIVE;

/// Sizes in columns, and strides: 1 or 0 where one element serves all rows.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) rows: u32,
    pub(super) classes: u32,
    pub(super) student_width: u32,
    pub(super) teacher_width: u32,
    pub(super) weight_stride: u32,
    pub(super) target_stride: u32,
}

/// Numbers of a `Spec`: `1 / T`, the weights of both parts, and the divergence's own one or two.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Numbers {
    pub(super) inverse: f32,
    pub(super) soft: f32,
    pub(super) hard: f32,
    pub(super) first: f32,
    pub(super) second: f32,
}

/// A class's term of the divergence, and `q h` of its gradient.
#[derive(CubeType, Clone, Copy)]
struct Term {
    value: f32,
    q_h: f32,
}

#[cube]
fn shifted(logit: f32, max: f32, inverse: f32) -> f32 {
    let absent = select(max < HALF_FLOOR, 0.0f32, FLOOR);
    let x = (logit - max) * inverse;
    let x = select(x < FLOOR, FLOOR, x);
    select(logit < HALF_FLOOR, absent, x)
}

/// A teacher's logit: absent where it has no such class, 0 in a row that does not count.
#[cube]
fn logit(x: f32, known: bool, counts: bool) -> f32 {
    select(counts, select(known, x, FLOOR), 0.0f32)
}

/// `exp(x)`, exactly 0 where it is hardly a normal number.
#[cube]
fn exponential(x: f32) -> f32 {
    let bounded = select(x < -87.0f32, -87.0f32, x);
    select(x < -87.0f32, 0.0f32, bounded.exp())
}

#[cube]
fn positive(x: f32) -> f32 {
    select(x < TINY, TINY, x)
}

#[cube]
fn term(
    p: f32,
    q: f32,
    x_student: f32,
    x_teacher: f32,
    log_student: f32,
    log_ratio: f32,
    first: f32,
    #[comptime] family: Family,
) -> Term {
    let log_q = x_student - log_student;
    if comptime![family == Family::CrossEntropy] {
        Term { value: -(p * log_q), q_h: -p }
    } else if comptime![family == Family::ReverseKl] {
        let value = q * select(x_teacher < HALF_FLOOR, log_q - first, log_ratio);
        Term { value, q_h: value }
    } else if comptime![family == Family::JensenShannon] {
        let its = first * p;
        let own = (1.0f32 - first) * q;
        let student_is_larger = log_ratio > 0.0f32;
        let larger = positive(select(student_is_larger, q, p));
        let log_m = positive((its + own) / larger).ln();
        let of_p = select(student_is_larger, -log_ratio - log_m, -log_m);
        let of_q = select(student_is_larger, -log_m, log_ratio - log_m);
        Term { value: its * of_p + own * of_q, q_h: own * of_q }
    } else if comptime![family == Family::SkewKl || family == Family::SkewCrossEntropy] {
        let own = (1.0f32 - first) * q;
        let m = first * p + own;
        let mut relative_to = f32::new(1.0f32);
        if comptime![family == Family::SkewKl] {
            relative_to = positive(p);
        }
        Term { value: -(p * positive(m / relative_to).ln()), q_h: -(own / positive(m) * p) }
    } else if comptime![family == Family::SkewReverseKl] {
        let own = first * q;
        let m = (1.0f32 - first) * p + own;
        let value = -(q * positive(m / positive(q)).ln());
        Term { value, q_h: value - q * (own / positive(m)) }
    } else {
        Term { value: -(p * log_ratio), q_h: -p }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fold {
    Max,
    Sum,
}

/// The largest of the units' values or their sum, for all of them.
#[cube]
fn over_units(shared: &mut Shared<[f32]>, value: f32, #[comptime] fold: Fold) -> f32 {
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut active = CUBE_DIM / 2u32;
    while active > 0u32 {
        if UNIT_POS < active {
            let own = shared[UNIT_POS as usize];
            let other = shared[(UNIT_POS + active) as usize];
            if comptime![fold == Fold::Max] {
                shared[UNIT_POS as usize] = select(other > own, other, own);
            } else {
                shared[UNIT_POS as usize] = own + other;
            }
        }
        active = active / 2u32;
        sync_cube();
    }
    // A copy: what `shared[0]` names changes with the next reduction.
    let mut result = f32::new(0.0f32);
    result += shared[0];
    sync_cube();
    result
}

/// `ln (1 / (1 + exp(-odds)))`
#[cube]
fn log_sigmoid(odds: f32) -> f32 {
    let negative = select(odds < 0.0f32, odds, 0.0f32);
    let size = select(odds < 0.0f32, odds, -odds);
    negative - (1.0f32 + exponential(size)).ln()
}

#[cube(launch_unchecked)]
pub(super) fn rows<N: Size>(
    student: &Tensor<Vector<f32, N>>,
    teacher: &Tensor<Vector<f32, N>>,
    weights: &Tensor<f32>,
    targets: &Tensor<i32>,
    values: &mut Tensor<f32>,
    gradient: &mut Tensor<Vector<f32, N>>,
    sizes: Sizes,
    numbers: Numbers,
    #[comptime] options: Options,
) {
    let family = comptime![options.family];
    let decoupled = comptime![options.family == Family::Decoupled];
    let with_target = comptime![options.family == Family::Decoupled || options.hard];
    let lanes = N::value();
    let mut shared = Shared::<[f32]>::new_slice(comptime![options.units as usize]);

    let row = CUBE_POS as usize;
    let exists = row < sizes.rows as usize;
    let row = select(exists, row, 0usize);
    let weight = weights[row * sizes.weight_stride as usize];
    // A row that does not count is read as zeros, whatever it holds.
    let counts = weight != 0.0f32;
    let given = targets[row * sizes.target_stride as usize];
    let target = select(given < 0i32, 0u32, u32::cast_from(given)) as usize;

    let student_start = row * (sizes.student_width as usize / lanes);
    let teacher_start = row * (sizes.teacher_width as usize / lanes);
    let compared = sizes.classes as usize / lanes;
    let taught = sizes.teacher_width as usize / lanes;
    let inverse = numbers.inverse;

    let mut max_student = f32::new(FLOOR);
    let mut max_teacher = f32::new(FLOOR);
    let mut i = UNIT_POS as usize;
    while i < compared {
        let own = student[student_start + i];
        let its = teacher[teacher_start + select(i < taught, i, 0usize)];
        let known = i < taught;
        #[unroll]
        for k in 0..lanes {
            let skip = decoupled && i * lanes + k == target;
            let s = select(counts, own.extract(k), 0.0f32);
            let t = logit(its.extract(k), known, counts);
            max_student = select(!skip && s > max_student, s, max_student);
            max_teacher = select(!skip && t > max_teacher, t, max_teacher);
        }
        i += CUBE_DIM as usize;
    }
    let max_student = over_units(&mut shared, max_student, Fold::Max);
    let max_teacher = over_units(&mut shared, max_teacher, Fold::Max);

    let mut sum_student = f32::new(0.0f32);
    let mut sum_teacher = f32::new(0.0f32);
    let mut sum_hard = f32::new(0.0f32);
    let mut student_at_target = f32::new(0.0f32);
    let mut teacher_at_target = f32::new(0.0f32);
    let mut i = UNIT_POS as usize;
    while i < compared {
        let own = student[student_start + i];
        let its = teacher[teacher_start + select(i < taught, i, 0usize)];
        let known = i < taught;
        #[unroll]
        for k in 0..lanes {
            let s = select(counts, own.extract(k), 0.0f32);
            let t = logit(its.extract(k), known, counts);
            let at_target = i * lanes + k == target;
            let skip = decoupled && at_target;
            sum_student += select(skip, 0.0f32, exponential(shifted(s, max_student, inverse)));
            sum_teacher += select(skip, 0.0f32, exponential(shifted(t, max_teacher, inverse)));
            if comptime![options.hard] {
                sum_hard += exponential(shifted(s, max_student, 1.0f32));
            }
            if with_target {
                student_at_target += select(at_target, select(s < FLOOR, FLOOR, s), 0.0f32);
                teacher_at_target += select(at_target, select(t < FLOOR, FLOOR, t), 0.0f32);
            }
        }
        i += CUBE_DIM as usize;
    }
    let sum_student = over_units(&mut shared, sum_student, Fold::Sum);
    let sum_teacher = over_units(&mut shared, sum_teacher, Fold::Sum);
    if comptime![options.hard] {
        sum_hard = over_units(&mut shared, sum_hard, Fold::Sum);
    }
    if with_target {
        student_at_target = over_units(&mut shared, student_at_target, Fold::Sum);
        teacher_at_target = over_units(&mut shared, teacher_at_target, Fold::Sum);
    }

    let log_student = sum_student.ln();
    let difference = (sum_student / sum_teacher).ln();
    let mut value = f32::new(0.0f32);
    let mut mean = f32::new(0.0f32);
    let mut i = UNIT_POS as usize;
    while i < compared {
        let own = student[student_start + i];
        let its = teacher[teacher_start + select(i < taught, i, 0usize)];
        let known = i < taught;
        #[unroll]
        for k in 0..lanes {
            let x_student = shifted(select(counts, own.extract(k), 0.0f32), max_student, inverse);
            let x_teacher = shifted(logit(its.extract(k), known, counts), max_teacher, inverse);
            let q = exponential(x_student) / sum_student;
            let p = exponential(x_teacher) / sum_teacher;
            let ratio = (x_student - x_teacher) - difference;
            let term = term(p, q, x_student, x_teacher, log_student, ratio, numbers.first, family);
            let skip = decoupled && i * lanes + k == target;
            value += select(skip, 0.0f32, term.value);
            mean += select(skip, 0.0f32, term.q_h);
        }
        i += CUBE_DIM as usize;
    }
    let value = over_units(&mut shared, value, Fold::Sum);
    let mean = over_units(&mut shared, mean, Fold::Sum);

    // Target or not: what the student's and the teacher's gradient of the others are multiplied by.
    let mut divergence = value;
    let mut by_student = f32::new(1.0f32);
    let mut by_teacher = f32::new(1.0f32);
    let mut of_target = f32::new(0.0f32);
    if decoupled {
        let odds_student = student_at_target * inverse - (max_student * inverse + log_student);
        let odds_teacher = teacher_at_target * inverse - (max_teacher * inverse + sum_teacher.ln());
        let p_target = log_sigmoid(odds_teacher).exp();
        let p_others = log_sigmoid(-odds_teacher).exp();
        let at_target = log_sigmoid(odds_teacher) - log_sigmoid(odds_student);
        let at_others = log_sigmoid(-odds_teacher) - log_sigmoid(-odds_student);
        let parts = select(p_target == 0.0f32, 0.0f32, p_target * at_target)
            + select(p_others == 0.0f32, 0.0f32, p_others * at_others);
        // A teacher that is sure of the target says nothing of the others.
        let beta = select(max_teacher < HALF_FLOOR, 0.0f32, numbers.second);
        let gap = log_sigmoid(odds_student).exp() - p_target;
        divergence = numbers.first * parts + select(beta == 0.0f32, 0.0f32, beta * value);
        by_student = beta - numbers.first * gap;
        by_teacher = beta;
        of_target = numbers.first * gap;
    }

    if UNIT_POS == 0 && exists {
        let mut sum = numbers.soft * divergence;
        if comptime![options.hard] {
            sum += numbers.hard * (sum_hard.ln() + max_student - student_at_target);
        }
        values[row] = weight * sum;
    }

    if comptime![options.gradient] {
        let scale = weight * numbers.soft * inverse;
        let columns = sizes.student_width as usize / lanes;
        let mut i = UNIT_POS as usize;
        while i < columns {
            let mut output = Vector::<f32, N>::new(0.0f32);
            if i < compared {
                let own = student[student_start + i];
                let its = teacher[teacher_start + select(i < taught, i, 0usize)];
                let known = i < taught;
                #[unroll]
                for k in 0..lanes {
                    let s = select(counts, own.extract(k), 0.0f32);
                    let x_student = shifted(s, max_student, inverse);
                    let x_teacher = shifted(logit(its.extract(k), known, counts), max_teacher, inverse);
                    let q = exponential(x_student) / sum_student;
                    let p = exponential(x_teacher) / sum_teacher;
                    let at_target = i * lanes + k == target;
                    let slope = if decoupled {
                        select(at_target, of_target, by_student * q - by_teacher * p)
                    } else {
                        let ratio = (x_student - x_teacher) - difference;
                        let term = term(p, q, x_student, x_teacher, log_student, ratio, numbers.first, family);
                        term.q_h - q * mean
                    };
                    let mut element = scale * slope;
                    if comptime![options.hard] {
                        let hard = exponential(shifted(s, max_student, 1.0f32)) / sum_hard;
                        element += weight * numbers.hard * (hard - select(at_target, 1.0f32, 0.0f32));
                    }
                    output.insert(k, element);
                }
            }
            if exists {
                gradient[student_start + i] = output;
            }
            i += CUBE_DIM as usize;
        }
    }
}
