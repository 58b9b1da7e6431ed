//! `batch`: how many items leave together. In tap it is no step of its own: the queues before the
//! exporters of its pipeline make the batches, in these sizes.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{exporters::queue::duration, schema, values::write_duration};

/// Settings of a `batch` processor, with the Collector's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Batch {
    /// Items that a batch has when it leaves before its time.
    pub send_batch_size: usize,
    /// Most items of a batch; 0: no bound but that of a request.
    pub send_batch_max_size: usize,
    /// Longest wait for a batch to fill; 0: none.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    #[schemars(schema_with = "schema::go_duration")]
    pub timeout: Duration,
}

impl Default for Batch {
    fn default() -> Self {
        Self { send_batch_size: 8192, send_batch_max_size: 0, timeout: Duration::from_millis(200) }
    }
}
