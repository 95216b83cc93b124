use std::collections::HashMap;

use crate::LossError;

/// Which classes of a student's vocabulary are the same tokens as which of a teacher's.
///
/// ```
/// use burn_distill_losses::VocabularyMap;
///
/// let map = VocabularyMap::from_tokens(&["a", "b", "ing"], &["ing", "c", "a", "d"]);
/// assert_eq!(map.pairs(), [(2, 0), (0, 2)]);
/// assert_eq!((map.student(), map.teacher()), (3, 4));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VocabularyMap {
    pairs: Vec<(usize, usize)>,
    student: usize,
    teacher: usize,
}

impl VocabularyMap {
    /// Pairs `(student id, teacher id)` of the same token, and the sizes of both vocabularies (the widths of the logits,
    /// padding included).
    ///
    /// # Errors
    /// If an id is not below its vocabulary's size, or stands in two pairs.
    pub fn new(pairs: Vec<(usize, usize)>, student: usize, teacher: usize) -> Result<Self, LossError> {
        check("student", pairs.iter().map(|pair| pair.0), student)?;
        check("teacher", pairs.iter().map(|pair| pair.1), teacher)?;
        Ok(Self { pairs, student, teacher })
    }

    /// The tokens that both vocabularies spell alike; a token's id is its position. Where a side holds a spelling twice its
    /// first id counts. Spell both in the same alphabet: a byte-level "Ġ" and a SentencePiece "▁" are different letters.
    pub fn from_tokens<S: AsRef<str>, T: AsRef<str>>(student: &[S], teacher: &[T]) -> Self {
        let mut ids: HashMap<&str, usize> = HashMap::new();
        for (id, token) in student.iter().enumerate() {
            ids.entry(token.as_ref()).or_insert(id);
        }
        // A spelling is removed with its pair, so that a second of the teacher's finds none.
        let pairs = teacher.iter().enumerate().filter_map(|(id, token)| Some((ids.remove(token.as_ref())?, id)));
        Self { pairs: pairs.collect(), student: student.len(), teacher: teacher.len() }
    }

    /// Pairs `(student id, teacher id)` of the same token.
    pub fn pairs(&self) -> &[(usize, usize)] {
        &self.pairs
    }

    /// Size of the student's vocabulary.
    pub fn student(&self) -> usize {
        self.student
    }

    /// Size of the teacher's vocabulary.
    pub fn teacher(&self) -> usize {
        self.teacher
    }

    /// Ids of the student's and of the teacher's matched tokens, pair by pair.
    pub(crate) fn matched(&self) -> (Vec<i64>, Vec<i64>) {
        self.pairs.iter().map(|(student, teacher)| (*student as i64, *teacher as i64)).unzip()
    }

    /// Ids of the student's and of the teacher's tokens that match none.
    pub(crate) fn unmatched(&self) -> (Vec<i64>, Vec<i64>) {
        let others = |size: usize, matched: Vec<usize>| {
            let mut keep = vec![true; size];
            matched.into_iter().for_each(|id| keep[id] = false);
            (0..size).filter(|id| keep[*id]).map(|id| id as i64).collect()
        };
        let (student, teacher) = self.pairs.iter().copied().unzip();
        (others(self.student, student), others(self.teacher, teacher))
    }
}

fn check(side: &'static str, ids: impl Iterator<Item = usize>, size: usize) -> Result<(), LossError> {
    let mut seen = vec![false; size];
    for id in ids {
        match seen.get_mut(id) {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(LossError::MatchedToken { side, id, size }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_twice_or_out_of_range_are_refused() {
        let message = VocabularyMap::new(vec![(0, 1), (3, 0)], 3, 3).unwrap_err().to_string();
        assert_eq!(message, "student token 3 must be below the vocabulary's size 3 and in one pair only");
        assert!(VocabularyMap::new(vec![(0, 1), (2, 1)], 3, 3).is_err());
    }

    #[test]
    fn each_spelling_is_matched_once() {
        let map = VocabularyMap::from_tokens(&["a", "a", "b"], &["b", "a", "a"]);
        assert_eq!(map.pairs(), [(2, 0), (0, 1)]);
        assert_eq!(map.unmatched(), (vec![1], vec![2]));
        assert_eq!(map.matched(), (vec![2, 0], vec![0, 1]));
    }
}
