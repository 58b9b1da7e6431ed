//! Resources and scopes that processors change. They are shared by many items, and exporters bring together what
//! shares one; so that this stays so, what one becomes is remembered. Comes in: a resource; goes out: the
//! one that it becomes, the same in memory for the same.
#![forbid(unsafe_code)]

use std::sync::Arc;

use hashbrown::HashMap;

use super::data::{Attributes, Resource, Scope, Source};

/// Most that are remembered; then all are forgotten, which costs a further entry in a request.
const MOST: usize = 1024;

/// What each becomes that is always changed in the same way.
#[derive(Debug)]
pub struct Memo<T>(HashMap<usize, (Arc<T>, Arc<T>)>);

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Clone + PartialEq> Memo<T> {
    /// Puts in the place of `of` what `change` makes of it.
    pub fn change(&mut self, of: &mut Arc<T>, change: impl FnOnce(&mut T)) {
        // What is remembered lives, so nothing else can come to lie at its place.
        let place = Arc::as_ptr(of).addr();
        if let Some((_, changed)) = self.0.get(&place) {
            *of = changed.clone();
            return;
        }
        if self.0.len() >= MOST {
            self.0.clear();
        }
        let before = of.clone();
        let mut changed = (*before).clone();
        change(&mut changed);
        if changed != *before {
            *of = Arc::new(changed);
        }
        self.0.insert(place, (before, of.clone()));
    }
}

/// What scopes become that are always changed in the same way under the same resource.
#[derive(Debug, Default)]
pub struct Scopes(HashMap<(usize, usize), (Source, Arc<Scope>)>);

impl Scopes {
    /// Puts in the place of a source's scope what `change` makes of it.
    pub fn change(&mut self, of: &mut Source, change: impl FnOnce(&mut Scope, &Resource)) {
        let place = of.order();
        if let Some((_, changed)) = self.0.get(&place) {
            of.scope = changed.clone();
            return;
        }
        if self.0.len() >= MOST {
            self.0.clear();
        }
        let before = of.clone();
        let mut changed = (*before.scope).clone();
        change(&mut changed, &before.resource);
        if changed != *before.scope {
            of.scope = Arc::new(changed);
        }
        self.0.insert(place, (before, of.scope.clone()));
    }
}

/// What has attributes to be told apart by.
pub trait Digested: PartialEq {
    /// They.
    fn attributes(&self) -> &Attributes;
}

impl Digested for Resource {
    fn attributes(&self) -> &Attributes {
        &self.attributes
    }
}

impl Digested for Scope {
    fn attributes(&self) -> &Attributes {
        &self.attributes
    }
}

/// One for all resources, or scopes, that are equal.
#[derive(Debug)]
pub struct Interner<T> {
    known: HashMap<u64, Vec<Arc<T>>>,
    len: usize,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { known: HashMap::new(), len: 0 }
    }
}

impl<T: Digested> Interner<T> {
    /// The one that is equal to `new`.
    pub fn intern(&mut self, new: Arc<T>) -> Arc<T> {
        if self.len >= MOST {
            self.known.clear();
            self.len = 0;
        }
        let equal = self.known.entry(new.attributes().digest()).or_default();
        if let Some(known) = equal.iter().find(|known| **known == new) {
            return known.clone();
        }
        equal.push(new.clone());
        self.len += 1;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_resource_becomes_one() {
        let mut memo = Memo::default();
        let first = Arc::new(Resource::default());
        let (mut a, mut b) = (first.clone(), first.clone());
        for resource in [&mut a, &mut b] {
            memo.change(resource, |it| it.attributes.set("a", 1i64));
        }
        assert!(Arc::ptr_eq(&a, &b) && !Arc::ptr_eq(&a, &first));
        let mut same = first.clone();
        Memo::default().change(&mut same, |_| {});
        assert!(Arc::ptr_eq(&same, &first));
    }

    #[test]
    fn equal_resources_become_one_and_memory_is_bounded() {
        let mut interner = Interner::default();
        let of = |number: i64| {
            let mut resource = Resource::default();
            resource.attributes.set("a", number);
            Arc::new(resource)
        };
        assert!(Arc::ptr_eq(&interner.intern(of(1)), &interner.intern(of(1))));
        for number in 0..10_000 {
            interner.intern(of(number));
        }
        assert!(interner.known.values().map(Vec::len).sum::<usize>() <= MOST);
    }
}
