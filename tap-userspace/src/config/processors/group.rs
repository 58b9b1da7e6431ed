//! `groupbyattrs` (also `group_by_attrs`): items move to a resource that has some of their attributes.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// Settings of a `groupbyattrs` processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Group {
    /// Which attributes; none: items stay where they are.
    #[serde(deserialize_with = "keys")]
    pub keys: Vec<String>,
}

/// Each key once; an empty one is none, as in the Collector.
fn keys<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let mut keys: Vec<String> = Vec::new();
    for key in Option::<Vec<String>>::deserialize(from)?.unwrap_or_default() {
        if !key.is_empty() && !keys.contains(&key) {
            keys.push(key);
        }
    }
    Ok(keys)
}
