//! The processor `groupbyattrs`: moves attributes of items to their resource. Exporters bring together what has one
//! resource and scope, so this is all that grouping takes; where no keys are named there is nothing to do.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::{
    data::{Record, Resource},
    processor::{Processor, Tally},
    sources::Interner,
};
use crate::config::processors::group;

/// A running `groupbyattrs`.
#[derive(Debug)]
pub struct Group {
    settings: group::Group,
    known: Interner<Resource>,
}

impl Group {
    /// With these settings.
    pub fn new(settings: group::Group) -> Self {
        Self { settings, known: Interner::default() }
    }
}

impl<R: Record> Processor<R> for Group {
    fn process(&mut self, batch: &mut Vec<R>, _now: Instant, _tally: &mut Tally) {
        for item in batch {
            let attributes = item.attributes_mut();
            let taken: Vec<_> = self
                .settings
                .keys
                .iter()
                .filter_map(|key| Some((key.clone(), attributes.remove(key)?)))
                .collect();
            if taken.is_empty() {
                continue;
            }
            let source = item.source_mut();
            let mut resource = Resource::clone(&source.resource);
            for (key, value) in taken {
                resource.attributes.set(key, value);
            }
            source.resource = self.known.intern(resource.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::data::{LogRecord, Span, Value};

    fn span(attributes: &[(&'static str, Value)]) -> Span {
        let mut span = Span::default();
        Arc::make_mut(&mut span.source.resource).attributes.set("host.name", "localhost");
        for (key, value) in attributes {
            span.attributes.set(*key, value.clone());
        }
        span
    }

    #[test]
    fn items_of_equal_values_share_a_resource() {
        let keys = vec!["host.name".to_owned(), "zone".to_owned()];
        let mut group = Group::new(group::Group { keys });
        let mut batch = vec![
            span(&[("host.name", "a".into()), ("id", "eth0".into())]),
            span(&[("id", "eth0".into()), ("host.name", "a".into())]),
            span(&[("host.name", "b".into()), ("zone", 1i64.into())]),
            span(&[("id", "eth0".into())]),
        ];
        group.process(&mut batch, Instant::now(), &mut Tally::default());
        let names: Vec<_> = batch
            .iter()
            .map(|span| {
                let resource = &span.source.resource.attributes;
                (resource.get("host.name").unwrap().as_text(), resource.get("zone").is_some())
            })
            .collect();
        assert_eq!(
            names,
            [("a", false), ("a", false), ("b", true), ("localhost", false)]
                .map(|(name, zone)| (name.into(), zone))
        );
        assert!(Arc::ptr_eq(&batch[0].source.resource, &batch[1].source.resource));
        assert!(batch.iter().all(|span| span.attributes.get("host.name").is_none()));
        assert_eq!(batch[1].attributes.len(), 1);
    }

    #[test]
    fn without_keys_nothing_changes() {
        let mut group = Group::new(group::Group::default());
        let mut record = LogRecord::default();
        record.attributes.set("a", "b");
        let mut batch = vec![record.clone()];
        group.process(&mut batch, Instant::now(), &mut Tally::default());
        assert_eq!(batch, [record]);
    }
}
