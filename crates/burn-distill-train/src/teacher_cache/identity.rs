use std::path::Path;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema};

use super::error::{Result, TeacherCacheError};

/// The version of the format; a reader refuses every other.
pub(super) const FORMAT_VERSION: &str = "1";
/// The columns of a row: one distribution, the logits of all classes.
const LAYOUT: &str = "dense";

/// What a teacher cache was made from: two caches with equal identities are interchangeable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheIdentity {
    /// The teacher's [`fingerprint`](burn_distill_models::Teacher::fingerprint).
    pub teacher: String,
    /// What the keys count: the fingerprints of the data sets, and the settings of the augmentation that makes a view
    /// of a sample and a seed.
    pub dataset: String,
    /// The number of classes, which is the width of the logits; in [1, 2^31).
    pub classes: usize,
}

impl CacheIdentity {
    pub(super) fn validate(&self) -> Result<()> {
        if self.classes == 0 || i32::try_from(self.classes).is_err() {
            let given = self.classes.to_string();
            return Err(TeacherCacheError::Setting { field: "classes", allowed: "in [1, 2^31)", given });
        }
        Ok(())
    }

    /// The metadata of a schema, in the order in which differences are reported.
    fn metadata(&self) -> [(&'static str, String); 8] {
        let classes = self.classes.to_string();
        [
            ("format_version", FORMAT_VERSION.into()),
            ("layout", LAYOUT.into()),
            ("sampling", LAYOUT.into()),
            ("teacher", self.teacher.clone()),
            ("dataset", self.dataset.clone()),
            ("classes", classes.clone()),
            ("k", classes),
            ("temperature", "1".into()),
        ]
    }

    /// The columns and the metadata of every part.
    pub(super) fn schema(&self) -> Schema {
        let [dataset, sample, view] =
            ["dataset", "sample", "view"].map(|name| Field::new(name, DataType::UInt64, false));
        let logits = DataType::FixedSizeList(item(), self.classes as i32);
        let columns = vec![
            dataset,
            sample,
            view,
            Field::new("crc32", DataType::UInt32, false),
            Field::new("logits", logits, false),
        ];
        let metadata: std::collections::BTreeMap<String, String> =
            self.metadata().into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        Schema::new(columns).with_metadata(metadata)
    }

    /// Reads the identity from a part's schema, of this version and layout.
    pub(super) fn of_schema(schema: &Schema, path: &Path) -> Result<Self> {
        let read = |key: &str| schema.metadata().get(key).cloned().unwrap_or_default();
        let classes = read("classes").parse().unwrap_or(0);
        let identity = Self { teacher: read("teacher"), dataset: read("dataset"), classes };
        identity.check(schema, path)?;
        identity.validate()?;
        Ok(identity)
    }

    /// Compares a part's schema with the one expected.
    pub(super) fn check(&self, schema: &Schema, path: &Path) -> Result<()> {
        let differs = |field: &str, found: String, expected: String| {
            Err(TeacherCacheError::Mismatch { path: path.into(), field: field.into(), found, expected })
        };
        for (field, expected) in self.metadata() {
            let found = schema.metadata().get(field);
            if found != Some(&expected) {
                return differs(field, found.map_or("absent".into(), |found| quoted(found)), quoted(&expected));
            }
        }
        let expected = self.schema();
        let columns = |schema: &Schema| -> Vec<String> {
            schema.fields().iter().map(|field| format!("{}: {}", field.name(), field.data_type())).collect()
        };
        if columns(schema) != columns(&expected) {
            return differs("columns", columns(schema).join(", "), columns(&expected).join(", "));
        }
        Ok(())
    }

    /// Compares two identities.
    pub(super) fn check_same(&self, found: &Self, path: &Path) -> Result<()> {
        self.check(&found.schema(), path)
    }
}

/// The element of the logits' column, under Arrow's usual name.
pub(super) fn item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float32, false))
}

fn quoted(text: &str) -> String {
    format!("`{text}`")
}
