//! Honest evaluation of students: classification metrics and teacher-against-student efficiency
