//! The processor `transform`: statements that change items, in OTTL's form with expressions in CEL. Comes in: items;
//! goes out: the same, changed.
#![forbid(unsafe_code)]

pub mod parse;
pub mod place;
pub mod statement;
pub mod words;

use std::{sync::Arc, time::Instant};

use self::{
    place::Places,
    statement::{Change, Statement},
};
use super::{
    data::{LogRecord, Record, Resource, Scope, Source, Span},
    expression::{EventOf, Expression, Failed, MetricOf, PointOf, ScopeOf},
    metrics::{Metric, OfMetrics, Point},
    processor::{Processor, Tally},
    sources::{Interner, Memo, Scopes},
};
use crate::config::processors::{
    filter::ErrorMode,
    transform::{Context, Group},
};

/// A running `transform`: the groups for one signal, in their order.
#[derive(Debug)]
pub struct Transform {
    groups: Vec<Running>,
    /// Resources that single items have changed.
    resources: Interner<Resource>,
    /// Scopes that single items have changed.
    scopes: Interner<Scope>,
}

/// A group.
#[derive(Debug)]
pub struct Running {
    group: Group,
    /// A failure has been told.
    told: bool,
    /// What resources become, where they are what is changed.
    resources: Memo<Resource>,
    /// The same of scopes.
    scopes: Scopes,
}

impl Transform {
    /// With these groups.
    pub fn new(groups: &[Group]) -> Self {
        Self {
            groups: groups.iter().map(Running::new).collect(),
            resources: Interner::default(),
            scopes: Interner::default(),
        }
    }

    /// Runs each group on each item; `own` on those that are not of its context.
    fn process<R: Record>(&mut self, batch: &mut [R], mut own: impl FnMut(&mut Running, &mut R)) {
        for running in &mut self.groups {
            for item in &mut *batch {
                match running.group.context {
                    Context::Resource => running.on_resource(item.source_mut()),
                    Context::Scope => running.on_scope(item.source_mut()),
                    _ => {
                        // While this is held, what is changed is a copy.
                        let before = item.source().clone();
                        own(running, item);
                        let after = item.source_mut();
                        if !Arc::ptr_eq(&before.resource, &after.resource) {
                            after.resource = self.resources.intern(after.resource.clone());
                        }
                        if !Arc::ptr_eq(&before.scope, &after.scope) {
                            after.scope = self.scopes.intern(after.scope.clone());
                        }
                    }
                }
            }
        }
    }
}

impl Running {
    /// Of this group.
    pub fn new(group: &Group) -> Self {
        Self {
            group: group.clone(),
            told: false,
            resources: Memo::default(),
            scopes: Scopes::default(),
        }
    }

    fn on_resource(&mut self, source: &mut Source) {
        let Self { group, told, resources, .. } = self;
        resources.change(&mut source.resource, |resource| on_resource(group, told, resource));
    }

    fn on_scope(&mut self, source: &mut Source) {
        let Self { group, told, scopes, .. } = self;
        scopes.change(source, |scope, resource| on_scope(group, told, scope, resource));
    }
}

fn on_resource(group: &Group, told: &mut bool, resource: &mut Resource) {
    run(group, told, resource, |it, is| is.holds(it), |it, does| does.decide(it));
}

fn on_scope(group: &Group, told: &mut bool, scope: &mut Scope, resource: &Resource) {
    let holds = |it: &Scope, is: &Expression| is.holds(&ScopeOf(it, resource));
    run(group, told, scope, holds, |it, does| does.decide(&ScopeOf(it, resource)));
}

/// Runs a group on one item. `holds` and `decide` ask its conditions and statements.
fn run<'g, P: Places>(
    group: &'g Group,
    told: &mut bool,
    item: &mut P,
    holds: impl Fn(&P, &Expression) -> Result<bool, Failed>,
    decide: impl Fn(&P, &'g Statement) -> Result<Option<Change<'g>>, Failed>,
) {
    let mut failed = |error: Failed| {
        if group.error_mode == ErrorMode::Ignore && !std::mem::replace(told, true) {
            tracing::warn!(%error, "A statement of a transform cannot be run, and changes nothing.");
        }
    };
    let mut one = |condition: &Expression| {
        holds(item, condition).unwrap_or_else(|error| {
            failed(error);
            false
        })
    };
    if !(group.conditions.is_empty() || group.conditions.iter().any(&mut one)) {
        return;
    }
    for statement in &group.statements {
        let done = decide(item, statement)
            .and_then(|change| change.map_or(Ok(()), |change| change.make(item)));
        done.unwrap_or_else(&mut failed);
    }
}

impl Processor<Span> for Transform {
    fn process(&mut self, batch: &mut Vec<Span>, _now: Instant, _tally: &mut Tally) {
        Self::process(self, batch, |Running { group, told, .. }, span| {
            if group.context == Context::SpanEvent {
                let mut events = std::mem::take(&mut span.events);
                for event in &mut events {
                    let holds = |it: &_, is: &Expression| is.holds(&EventOf(it, span));
                    run(group, told, event, holds, |it, does| does.decide(&EventOf(it, span)));
                }
                span.events = events;
            } else {
                run(group, told, span, |it, is| is.holds(it), |it, does| does.decide(it));
            }
        });
    }
}

impl Processor<LogRecord> for Transform {
    fn process(&mut self, batch: &mut Vec<LogRecord>, _now: Instant, _tally: &mut Tally) {
        Self::process(self, batch, |Running { group, told, .. }, record| {
            run(group, told, record, |it, is| is.holds(it), |it, does| does.decide(it));
        });
    }
}

impl OfMetrics for Running {
    fn resource(&mut self, resource: &mut Resource) {
        if self.group.context == Context::Resource {
            on_resource(&self.group, &mut self.told, resource);
        }
    }

    fn scope(&mut self, scope: &mut Scope, resource: &Resource) {
        if self.group.context == Context::Scope {
            on_scope(&self.group, &mut self.told, scope, resource);
        }
    }

    fn metric(&mut self, metric: &mut Metric, source: &Source) -> bool {
        if self.group.context == Context::Metric {
            let holds = |it: &_, is: &Expression| is.holds(&MetricOf(it, source));
            let decide = |it: &_, does| Statement::decide(does, &MetricOf(it, source));
            run(&self.group, &mut self.told, metric, holds, decide);
        }
        true
    }

    fn point(&mut self, point: &mut Point, metric: &Metric, source: &Source) -> bool {
        if self.group.context == Context::DataPoint {
            let holds = |it: &_, is: &Expression| is.holds(&PointOf(it, metric, source));
            let decide = |it: &_, does| Statement::decide(does, &PointOf(it, metric, source));
            run(&self.group, &mut self.told, point, holds, decide);
        }
        true
    }
}

#[cfg(test)]
#[path = "transform_tests.rs"]
mod tests;
