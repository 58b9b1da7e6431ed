//! The JSON Schema of the configuration file, made of its types; what a type does not show by itself
//! (units, names) is said here.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};

use super::file::Config;

/// Gives a type that is read by hand its schema, by hand.
macro_rules! by_hand {
    ($type:ty, $schema:tt) => {
        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}
pub(crate) use by_hand;

/// A number with a unit, as [`super::values::duration`] reads it.
pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h)$" })
}

/// A duration as Go has them.
const GO_DURATION: &str = "^(0|(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$";

/// A duration of the Collector's.
pub(super) fn go_duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [{ "type": "string", "pattern": GO_DURATION }, { "const": 0 }] })
}

/// The same, or none.
pub(super) fn some_go_duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [{ "type": "string", "pattern": GO_DURATION }, { "const": 0 }, { "type": "null" }]
    })
}

/// Bytes.
pub(super) fn size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": "^[0-9]+ *(KiB|MiB|GiB)?$" }
        ]
    })
}

/// The schema of the whole file, as it is kept in `config/tap.schema.json`.
pub fn json() -> String {
    let settings = SchemaSettings::draft2020_12();
    let mut schema = settings.into_generator().into_root_schema_for::<Config>();
    schema.insert("title".into(), "Configuration of tap".into());
    schema.insert(
        "description".into(),
        "Every key is optional; what one says stands in config/tap.yaml.".into(),
    );
    // The order of maps would follow features of serde_json that others choose.
    let mut value = schema.to_value();
    value.sort_all_objects();
    format!("{value:#}\n")
}

/// The schema of an exporter's block, or nothing behind its name.
pub(super) fn or_nothing<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let block = generator.subschema_for::<T>();
    json_schema!({ "anyOf": [block, { "type": "null" }] })
}
