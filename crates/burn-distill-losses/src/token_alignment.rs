use std::ops::Range;

use crate::LossError;

/// Tokens of a student's and of a teacher's tokenizer that cover the same bytes of one text.
///
/// Positions count from the first token of the lists given to [`align_tokens`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TokenGroup {
    /// Positions of the student's tokens.
    pub student: Range<usize>,
    /// Positions of the teacher's tokens.
    pub teacher: Range<usize>,
}

impl TokenGroup {
    /// The same group where the lists begin at other positions of the sequences, as after their prompts.
    ///
    /// ```
    /// use burn_distill_losses::TokenGroup;
    ///
    /// let group = TokenGroup { student: 0..2, teacher: 0..1 };
    /// assert_eq!(group.shifted(7, 5), TokenGroup { student: 7..9, teacher: 5..6 });
    /// ```
    pub fn shifted(&self, student: usize, teacher: usize) -> Self {
        let shift = |range: &Range<usize>, by: usize| range.start + by..range.end + by;
        Self { student: shift(&self.student, student), teacher: shift(&self.teacher, teacher) }
    }
}

/// The finest groups of tokens in which two tokenizations of the same text agree about the boundaries.
///
/// `student_ends` and `teacher_ends` hold, for each token, the byte of the text at which it ends. Both lists are walked
/// together, the side whose token ends first advances, and a group closes where both end at the same byte. A token that
/// covers no byte (an end-of-sequence token at the end of the text) groups with one of the other side at the same byte,
/// or is left out if there is none; at the start of the text it joins the first group.
///
/// The rules are those of TRL's GOLD trainer. So is what happens where one text is a prefix of the other, as after a
/// truncation: the remaining tokens of both sides form one last group, unless one side has none left.
///
/// Count bytes, not characters: byte-level tokenizers split characters.
///
/// # Errors
/// If the ends of a side are not in order.
///
/// ```
/// use burn_distill_losses::{TokenGroup, align_tokens};
///
/// // "unbelievable": un|believ|able and unb|eliev|a|ble.
/// let groups = align_tokens(&[2, 8, 12], &[3, 8, 9, 12])?;
/// assert_eq!(groups[0], TokenGroup { student: 0..2, teacher: 0..2 });
/// assert_eq!(groups[1], TokenGroup { student: 2..3, teacher: 2..4 });
/// # Ok::<(), burn_distill_losses::LossError>(())
/// ```
///
/// # References
/// - TRL `trl/experimental/gold/gold_trainer.py` at 35def3ee (`_align_by_byte_offsets`; degenerate groups are dropped in
///   `_compute_distillation_loss`).
pub fn align_tokens(student_ends: &[usize], teacher_ends: &[usize]) -> Result<Vec<TokenGroup>, LossError> {
    check("student", student_ends)?;
    check("teacher", teacher_ends)?;
    let mut groups = Vec::new();
    let (mut student, mut teacher) = (0, 0);
    let (mut student_start, mut teacher_start) = (0, 0);
    while student < student_ends.len() && teacher < teacher_ends.len() {
        let (student_end, teacher_end) = (student_ends[student], teacher_ends[teacher]);
        student += usize::from(student_end <= teacher_end);
        teacher += usize::from(teacher_end <= student_end);
        if student_end == teacher_end {
            groups.push(TokenGroup { student: student_start..student, teacher: teacher_start..teacher });
            (student_start, teacher_start) = (student, teacher);
        }
    }
    let rest = TokenGroup { student: student_start..student_ends.len(), teacher: teacher_start..teacher_ends.len() };
    if !rest.student.is_empty() && !rest.teacher.is_empty() {
        groups.push(rest);
    }
    Ok(groups)
}

fn check(side: &'static str, ends: &[usize]) -> Result<(), LossError> {
    match ends.windows(2).position(|pair| pair[0] > pair[1]) {
        Some(position) => {
            Err(LossError::TokenEnds { side, position: position + 1, end: ends[position + 1], before: ends[position] })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(groups: &[TokenGroup]) -> Vec<[usize; 4]> {
        groups.iter().map(|g| [g.student.start, g.student.end, g.teacher.start, g.teacher.end]).collect()
    }

    fn ends(tokens: &[&str]) -> Vec<usize> {
        tokens
            .iter()
            .scan(0, |end, token| {
                *end += token.len();
                Some(*end)
            })
            .collect()
    }

    #[test]
    fn equal_tokenizations_pair_one_by_one() {
        let groups = align_tokens(&[1, 2, 3], &[1, 2, 3]).unwrap();
        assert_eq!(ranges(&groups), [[0, 1, 0, 1], [1, 2, 1, 2], [2, 3, 2, 3]]);
    }

    #[test]
    fn bytes_not_characters() {
        // The character 你 has three bytes, 😊 four; the second tokenizer splits 😊 in its middle.
        let student = ends(&["hi", " ", "😊", "你好"]);
        let teacher = [2, 5, 7, 10, 13];
        let groups = align_tokens(&student, &teacher).unwrap();
        assert_eq!(ranges(&groups), [[0, 1, 0, 1], [1, 3, 1, 3], [3, 4, 3, 5]]);
    }

    #[test]
    fn a_token_without_bytes() {
        // Both end with an end-of-sequence token.
        assert_eq!(ranges(&align_tokens(&[4, 4], &[2, 4, 4]).unwrap()), [[0, 1, 0, 2], [1, 2, 2, 3]]);
        // Only the teacher does.
        assert_eq!(ranges(&align_tokens(&[4], &[2, 4, 4]).unwrap()), [[0, 1, 0, 2]]);
        // Only the student begins with one.
        assert_eq!(ranges(&align_tokens(&[0, 4], &[4]).unwrap()), [[0, 2, 0, 1]]);
    }

    #[test]
    fn a_truncated_side_leaves_a_last_group_if_both_have_tokens() {
        assert_eq!(ranges(&align_tokens(&[2, 3], &[2, 5]).unwrap()), [[0, 1, 0, 1], [1, 2, 1, 2]]);
        assert_eq!(ranges(&align_tokens(&[2], &[2, 5]).unwrap()), [[0, 1, 0, 1]]);
        assert_eq!(align_tokens(&[], &[2, 5]).unwrap(), []);
    }

    #[test]
    fn ends_out_of_order_are_refused() {
        let message = align_tokens(&[2, 3], &[2, 5, 4]).unwrap_err().to_string();
        assert_eq!(message, "token 2 of the teacher ends at byte 4, before token 1, which ends at 5");
    }

    proptest! {
        #[test]
        fn groups_cover_all_tokens_and_equal_spans_as_finely_as_can_be(
            boundaries in prop::collection::btree_set(1usize..40, 0..20),
            student in any::<u64>(),
            teacher in any::<u64>(),
        ) {
            // Two tokenizations of the same 40 bytes.
            let side = |bits: u64| -> Vec<usize> {
                boundaries.iter().copied().filter(|end| bits >> end & 1 == 1).chain([40]).collect()
            };
            let (student, teacher) = (side(student), side(teacher));
            let groups = align_tokens(&student, &teacher).unwrap();
            let starts = |ends: &[usize], at: usize| if at == 0 { 0 } else { ends[at - 1] };
            let (mut next_student, mut next_teacher) = (0, 0);
            for group in &groups {
                prop_assert_eq!((group.student.start, group.teacher.start), (next_student, next_teacher));
                (next_student, next_teacher) = (group.student.end, group.teacher.end);
                prop_assert_eq!(starts(&student, group.student.start), starts(&teacher, group.teacher.start));
                prop_assert_eq!(student[group.student.end - 1], teacher[group.teacher.end - 1]);
            }
            prop_assert_eq!((next_student, next_teacher), (student.len(), teacher.len()));
            let shared = student.iter().filter(|end| teacher.contains(end)).count();
            prop_assert_eq!(groups.len(), shared);
        }
    }
}
