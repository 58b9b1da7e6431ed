//! Expressions over what stands above and beside items: resources, scopes, metrics and their points.

use std::sync::OnceLock;

use cel::common::{
    types::{CelBool, CelNull},
    value::Val,
};

use super::{Fields, Subject, number, of, shown, text};
use crate::policy::{
    data::{Resource, Scope, Source},
    metrics::{Metric, Point},
};

impl Subject for Resource {
    const VARIABLES: &'static [&'static str] = &["attributes", "resource"];

    fn variable<'v>(&'v self, name: &str) -> Box<dyn Val + 'v> {
        match name {
            "attributes" => of(&self.attributes),
            _ => Box::new(Fields::Resource(self)),
        }
    }

    fn with_empty<T>(tried: impl FnOnce(&Self) -> T) -> T {
        tried(&Self::default())
    }
}

/// A scope and the resource that it is under.
#[derive(Clone, Copy, Debug)]
pub struct ScopeOf<'a>(pub &'a Scope, pub &'a Resource);

impl Subject for ScopeOf<'_> {
    const VARIABLES: &'static [&'static str] =
        &["attributes", "name", "version", "scope", "resource"];

    fn variable<'v>(&'v self, name: &str) -> Box<dyn Val + 'v> {
        match name {
            "attributes" => of(&self.0.attributes),
            "name" => text(&self.0.name),
            "version" => text(&self.0.version),
            "scope" => Box::new(Fields::Scope(self.0)),
            _ => Box::new(Fields::Resource(self.1)),
        }
    }

    fn with_empty<T>(tried: impl FnOnce(&Self) -> T) -> T {
        static EMPTY: OnceLock<(Scope, Resource)> = OnceLock::new();
        let (scope, resource) = EMPTY.get_or_init(Default::default);
        tried(&ScopeOf(scope, resource))
    }
}

fn about<'v>(metric: &'v Metric, source: &'v Source, name: &str) -> Box<dyn Val + 'v> {
    match name {
        "name" => text(&metric.name),
        "description" => text(&metric.description),
        "unit" => text(&metric.unit),
        "type" => text(metric.kind),
        "is_monotonic" => Box::new(CelBool::from(metric.monotonic)),
        "aggregation_temporality" => text(metric.temporality),
        "resource" => Box::new(Fields::Resource(&source.resource)),
        "scope" => Box::new(Fields::Scope(&source.scope)),
        _ => Box::new(CelNull),
    }
}

/// A metric and where it is from.
#[derive(Clone, Copy, Debug)]
pub struct MetricOf<'a>(pub &'a Metric, pub &'a Source);

impl Subject for MetricOf<'_> {
    const VARIABLES: &'static [&'static str] = &[
        "name",
        "description",
        "unit",
        "type",
        "is_monotonic",
        "aggregation_temporality",
        "resource",
        "scope",
    ];

    fn variable<'v>(&'v self, name: &str) -> Box<dyn Val + 'v> {
        about(self.0, self.1, name)
    }

    fn with_empty<T>(tried: impl FnOnce(&Self) -> T) -> T {
        static EMPTY: OnceLock<(Metric, Source)> = OnceLock::new();
        let (metric, source) = EMPTY.get_or_init(Default::default);
        tried(&MetricOf(metric, source))
    }
}

/// A data point, its metric and where that is from.
#[derive(Clone, Copy, Debug)]
pub struct PointOf<'a>(pub &'a Point, pub &'a Metric, pub &'a Source);

impl Subject for PointOf<'_> {
    const VARIABLES: &'static [&'static str] = &[
        "attributes",
        "value",
        "count",
        "sum",
        "start_ns",
        "time_ns",
        "name",
        "description",
        "unit",
        "type",
        "is_monotonic",
        "aggregation_temporality",
        "resource",
        "scope",
    ];

    fn variable<'v>(&'v self, name: &str) -> Box<dyn Val + 'v> {
        match name {
            "attributes" => of(&self.0.attributes),
            "value" => shown(&self.0.value),
            "count" => shown(&self.0.count),
            "sum" => shown(&self.0.sum),
            "start_ns" => number(self.0.start_ns),
            "time_ns" => number(self.0.time_ns),
            _ => about(self.1, self.2, name),
        }
    }

    fn with_empty<T>(tried: impl FnOnce(&Self) -> T) -> T {
        static EMPTY: OnceLock<(Point, Metric, Source)> = OnceLock::new();
        let (point, metric, source) = EMPTY.get_or_init(Default::default);
        tried(&PointOf(point, metric, source))
    }
}
