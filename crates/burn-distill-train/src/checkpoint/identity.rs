use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::CheckpointError;

/// What must be the same for a run to go on from a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunIdentity {
    pub(crate) config: Value,
    pub(crate) teacher: String,
}

impl RunIdentity {
    /// Compares a checkpoint's identity with this run's.
    pub(crate) fn check(&self, saved: &Self, manifest: &Path) -> Result<(), CheckpointError> {
        if let Some((field, expected, found)) = first_difference(&saved.config, &self.config, String::new()) {
            return Err(CheckpointError::OtherConfig { path: manifest.into(), field, expected, found });
        }
        if saved.teacher != self.teacher {
            let (expected, found) = (saved.teacher.clone(), self.teacher.clone());
            return Err(CheckpointError::OtherTeacher { path: manifest.into(), expected, found });
        }
        Ok(())
    }
}

/// The path and the two values of the first place where two documents differ.
fn first_difference(saved: &Value, given: &Value, path: String) -> Option<(String, String, String)> {
    let show = |value: Option<&Value>| value.map_or("absent".to_string(), Value::to_string);
    match (saved, given) {
        (Value::Object(saved), Value::Object(given)) => {
            let keys = saved.keys().chain(given.keys().filter(|key| !saved.contains_key(*key)));
            keys.into_iter().find_map(|key| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match (saved.get(key), given.get(key)) {
                    (Some(saved), Some(given)) => first_difference(saved, given, path),
                    (saved, given) => Some((path, show(saved), show(given))),
                }
            })
        }
        (saved, given) if same(saved, given) => None,
        (saved, given) => Some((path, show(Some(saved)), show(Some(given)))),
    }
}

/// Numbers are compared with room for the last bit, which reading JSON may lose.
fn same(saved: &Value, given: &Value) -> bool {
    match (saved, given) {
        (Value::Number(saved), Value::Number(given)) => {
            saved == given
                || match (saved.as_f64(), given.as_f64()) {
                    (Some(saved), Some(given)) => (saved - given).abs() <= 1e-15 * saved.abs().max(given.abs()),
                    _ => false,
                }
        }
        (Value::Array(saved), Value::Array(given)) => {
            saved.len() == given.len() && saved.iter().zip(given).all(|(saved, given)| same(saved, given))
        }
        (Value::Object(_), Value::Object(_)) => first_difference(saved, given, String::new()).is_none(),
        (saved, given) => saved == given,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_field_that_differs_is_named_by_its_path() {
        let saved = json!({ "seed": 1, "optimizer": { "weight_decay": { "l2": 0.1 }, "no_decay": ["a"] } });
        let mut given = saved.clone();
        assert_eq!(first_difference(&saved, &given, String::new()), None);
        given["optimizer"]["weight_decay"]["l2"] = json!(0.2);
        let difference = first_difference(&saved, &given, String::new()).unwrap();
        assert_eq!(difference, ("optimizer.weight_decay.l2".into(), "0.1".into(), "0.2".into()));
        given = saved.clone();
        given["extra"] = json!(null);
        assert_eq!(
            first_difference(&saved, &given, String::new()).unwrap(),
            ("extra".into(), "absent".into(), "null".into())
        );
    }

    #[test]
    fn another_teacher_is_refused_by_name() {
        let identity = |teacher: &str| RunIdentity { config: json!({}), teacher: teacher.into() };
        let error = identity("new").check(&identity("old"), Path::new("m.json")).unwrap_err();
        assert!(error.to_string().starts_with("m.json: `teacher` is old in the checkpoint and new in this run"));
    }
}
