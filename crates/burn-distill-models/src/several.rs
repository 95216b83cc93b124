//! Tuples, arrays and vectors of students are a student, of teachers a teacher: their output is the members' outputs.

use burn::module::Module;

use crate::{Student, Teacher, mix_seed};

impl<Batch, M: Student<Batch>, const N: usize> Student<Batch> for [M; N]
where
    [M; N]: Module,
{
    type Output = [M::Output; N];

    fn forward(&self, batch: &Batch) -> Self::Output {
        self.each_ref().map(|member| member.forward(batch))
    }
}

impl<Batch, M: Student<Batch>> Student<Batch> for Vec<M> {
    type Output = Vec<M::Output>;

    fn forward(&self, batch: &Batch) -> Self::Output {
        self.iter().map(|member| member.forward(batch)).collect()
    }
}

impl<Batch, T: Teacher<Batch>, const N: usize> Teacher<Batch> for [T; N]
where
    [T; N]: Module,
{
    type Output = [T::Output; N];

    fn forward(&self, batch: &Batch) -> Self::Output {
        self.each_ref().map(|member| member.forward(batch))
    }

    fn fingerprint(&self) -> String {
        joined(self.iter().map(T::fingerprint))
    }

    fn parameter_count(&self) -> u64 {
        self.iter().map(T::parameter_count).sum()
    }

    fn weight_bytes(&self) -> u64 {
        self.iter().map(T::weight_bytes).sum()
    }

    fn learns(&self) -> bool {
        self.iter().any(T::learns)
    }

    fn after_step<S: Module>(self, student: &S, step: usize) -> Self {
        self.map(|member| member.after_step(student, step))
    }
}

impl<Batch, T: Teacher<Batch>> Teacher<Batch> for Vec<T> {
    type Output = Vec<T::Output>;

    fn forward(&self, batch: &Batch) -> Self::Output {
        self.iter().map(|member| member.forward(batch)).collect()
    }

    fn fingerprint(&self) -> String {
        joined(self.iter().map(T::fingerprint))
    }

    fn parameter_count(&self) -> u64 {
        self.iter().map(T::parameter_count).sum()
    }

    fn weight_bytes(&self) -> u64 {
        self.iter().map(T::weight_bytes).sum()
    }

    fn learns(&self) -> bool {
        self.iter().any(T::learns)
    }

    fn after_step<S: Module>(self, student: &S, step: usize) -> Self {
        self.into_iter().map(|member| member.after_step(student, step)).collect()
    }
}

macro_rules! tuple {
    ($($member:ident $index:tt),+) => {
        impl<Batch, $($member: Student<Batch>),+> Student<Batch> for ($($member,)+) {
            type Output = ($($member::Output,)+);

            fn forward(&self, batch: &Batch) -> Self::Output {
                ($(self.$index.forward(batch),)+)
            }
        }

        impl<Batch, $($member: Teacher<Batch>),+> Teacher<Batch> for ($($member,)+) {
            type Output = ($($member::Output,)+);

            fn forward(&self, batch: &Batch) -> Self::Output {
                ($(self.$index.forward(batch),)+)
            }

            fn fingerprint(&self) -> String {
                joined([$(self.$index.fingerprint()),+].into_iter())
            }

            fn parameter_count(&self) -> u64 {
                0 $(+ self.$index.parameter_count())+
            }

            fn weight_bytes(&self) -> u64 {
                0 $(+ self.$index.weight_bytes())+
            }

            fn learns(&self) -> bool {
                false $(|| self.$index.learns())+
            }

            fn after_step<Trained: Module>(self, student: &Trained, step: usize) -> Self {
                ($(self.$index.after_step(student, step),)+)
            }
        }
    };
}

tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);

/// One fingerprint of several; their order counts.
fn joined(members: impl Iterator<Item = String>) -> String {
    let text: Vec<_> = members.collect();
    format!("{:016x}", mix_seed(&format!("{text:?}").bytes().map(u64::from).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::{Frozen, MeanTeacher, NoTeacher};

    #[derive(Module, Debug)]
    struct Net {
        layer: Linear,
    }

    impl Student<Tensor<2>> for Net {
        type Output = Tensor<2>;

        fn forward(&self, batch: &Tensor<2>) -> Tensor<2> {
            self.layer.forward(batch.clone())
        }
    }

    fn net(outputs: usize) -> Net {
        Net { layer: LinearConfig::new(3, outputs).init(&Device::flex().autodiff()) }
    }

    fn batch() -> Tensor<2> {
        Tensor::from_floats([[1.0, -2.0, 0.5]], &Device::flex().autodiff())
    }

    fn assert_same(given: Tensor<2>, expected: Tensor<2>) {
        assert_eq!(given.into_data(), expected.into_data());
    }

    #[test]
    fn members_answer_in_their_order() {
        let (a, b, c) = (net(2), net(4), net(2));
        let heard = |net: &Net| net.forward(&batch());
        let pair = (a.clone(), b.clone()).forward(&batch());
        assert_same(pair.0, heard(&a));
        assert_same(pair.1, heard(&b));
        let triple = Student::forward(&(a.clone(), b.clone(), c.clone()), &batch());
        assert_same(triple.2, heard(&c));
        let [first, second] = Student::forward(&[a.clone(), c.clone()], &batch());
        assert_same(first, heard(&a));
        assert_same(second, heard(&c));
        let all = Student::forward(&vec![c.clone(), a.clone()], &batch());
        assert_same(all[0].clone(), heard(&c));
        let [first, second] = Teacher::forward(&[Frozen::new(c.clone()), Frozen::new(a.clone())], &batch());
        assert_same(first, heard(&c));
        assert_same(second, heard(&a));
        let teachers = Teacher::forward(&(Frozen::new(b.clone()), NoTeacher::new()), &batch());
        assert_same(teachers.0, heard(&b));
        assert_same(Teacher::forward(&vec![Frozen::new(b.clone())], &batch())[0].clone(), heard(&b));
    }

    /// The fingerprint, the parameters and the bytes.
    fn identity<T: Teacher<Tensor<2>>>(teacher: &T) -> (String, u64, u64) {
        (teacher.fingerprint(), teacher.parameter_count(), teacher.weight_bytes())
    }

    #[test]
    fn a_panel_is_its_members_in_their_order() {
        let (a, b) = (Frozen::new(net(2)), Frozen::new(net(2)));
        let [vector, array, pair] = [
            identity(&vec![a.clone(), b.clone()]),
            identity(&[a.clone(), b.clone()]),
            identity(&(a.clone(), b.clone())),
        ];
        assert_eq!((vector.1, vector.2), (16, 64));
        assert!(vector == array && array == pair);
        assert_ne!(pair.0, identity(&(b.clone(), a.clone())).0);
        assert_ne!(pair.0, identity(&(a.clone(), a.clone())).0);
        assert_ne!(identity(&(a.clone(), a.clone(), b.clone())).0, identity(&(a.clone(), b.clone(), b)).0);
    }

    #[test]
    fn a_panel_learns_if_a_member_does() {
        fn learns<T: Teacher<Tensor<2>>>(teacher: T) -> bool {
            teacher.learns()
        }
        let (frozen, mean) = (Frozen::new(net(2)), MeanTeacher::new(&net(2), 0.9).unwrap());
        assert!(!learns(frozen.clone()) && learns(mean.clone()));
        assert!(!learns((frozen.clone(), NoTeacher::new())) && learns((frozen.clone(), mean.clone())));
        assert!(!learns(vec![frozen.clone(), frozen.clone()]) && learns(vec![mean.clone()]));
        assert!(!learns([frozen.clone(), frozen]) && learns([mean.clone(), mean]));
    }

    #[test]
    fn every_member_hears_of_the_students_steps() {
        let (start, student) = (net(2), net(2));
        // At step 0 the average takes nine tenths of the student.
        let expected = start.forward(&batch()).inner() * 0.1 + student.forward(&batch()).inner() * 0.9;
        let mean = || MeanTeacher::new(&start, 0.9).unwrap();
        let plain = batch().inner();
        let check = |logits: Tensor<2>| {
            logits.into_data().assert_approx_eq::<f32>(&expected.clone().into_data(), Default::default());
        };
        let after = Teacher::<Tensor<2>>::after_step((NoTeacher::new(), mean()), &student, 0);
        check(Teacher::forward(&after, &plain).1);
        let after = Teacher::<Tensor<2>>::after_step([mean(), mean()], &student, 0);
        Teacher::forward(&after, &plain).into_iter().for_each(check);
        let after = Teacher::<Tensor<2>>::after_step(vec![mean(), mean()], &student, 0);
        Teacher::forward(&after, &plain).into_iter().for_each(check);
    }
}
