//! The daemon's last word about what it saw and what became of it (SPEC §7):
//!
//! ```json
//! {"accounting": {
//!   "records": {"open": {"seen": 3, "delivered": 3, "dropped": {"ring_full": 0}, "in_ring": 0}},
//!   "items": {"traces": {"otlp": {"produced": 3, "exported": 3, "dropped": {"queue_full": 0}}}}}}
//! ```
//!
//! The items of a signal are accounted for by exporter. A term may be a number or numbers by reason; one that is absent is 0.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Where records and items come from, and where they went.
type Sides = (&'static [&'static str], &'static [&'static str]);

/// The records of a kind.
const RECORDS: Sides = (&["seen"], &["delivered", "dropped", "in_ring"]);
/// The items of a signal.
const ITEMS: Sides = (
    &["produced", "recovered"],
    &["exported", "filtered", "sampled", "refused", "rejected", "dropped", "held", "queued"],
);

/// The terms of one kind or signal.
pub type Book = BTreeMap<String, u64>;

/// The accounting line.
#[derive(Clone, Debug)]
pub struct Accounting {
    /// By kind of record.
    pub records: BTreeMap<String, Book>,
    /// By signal and exporter, `traces/otlp`.
    pub items: BTreeMap<String, Book>,
    /// What happened in the kernel that is no record: payload left out, for example.
    pub kernel_events: Book,
    /// What became of exchanges.
    pub exchanges: Book,
    /// Connections that were not looked at, by who decided so.
    pub filtered: Book,
}

impl Accounting {
    /// The last accounting line of a log.
    pub fn find(log: &[String]) -> Result<Self> {
        let line = log.iter().rev().find(|line| line.contains("\"accounting\""));
        let json: Value = serde_json::from_str(line.context("no accounting line")?)?;
        let accounting = &json["accounting"];
        let mut items = BTreeMap::new();
        let signals = accounting["items"].as_object().context("the accounting lacks items")?;
        for (signal, exporters) in signals {
            let of_signal = books(exporters).with_context(|| signal.clone())?;
            items.extend(of_signal.into_iter().map(|(it, book)| (format!("{signal}/{it}"), book)));
        }
        let records = books(&accounting["records"])?;
        let kernel_events = book(&accounting["kernel_events"]).unwrap_or_default();
        let exchanges = book(&accounting["exchanges"]).unwrap_or_default();
        let filtered = book(&accounting["filtered"]).unwrap_or_default();
        Ok(Self { records, items, kernel_events, exchanges, filtered })
    }

    /// A term of a kind of record.
    pub fn record(&self, kind: &str, term: &str) -> u64 {
        self.records.get(kind).and_then(|book| book.get(term)).copied().unwrap_or(0)
    }

    /// How often a kernel event happened.
    pub fn kernel_event(&self, name: &str) -> u64 {
        self.kernel_events.get(name).copied().unwrap_or(0)
    }

    /// What became of so many exchanges.
    pub fn exchange(&self, name: &str) -> u64 {
        self.exchanges.get(name).copied().unwrap_or(0)
    }

    /// A term of the spans, over all exporters.
    pub fn spans(&self, term: &str) -> u64 {
        let of_traces = self.items.iter().filter(|(name, _)| name.starts_with("traces/"));
        of_traces.filter_map(|(_, book)| book.get(term)).sum()
    }

    /// Both identities, to the unit, with nothing on its way any more.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.records.is_empty(), "the accounting holds no records");
        for (kind, book) in &self.records {
            balanced(book, RECORDS).with_context(|| format!("records of kind {kind}"))?;
            ensure!(book.get("in_ring").is_none_or(|left| *left == 0), "{kind} left in the ring");
        }
        for (signal, book) in &self.items {
            balanced(book, ITEMS).with_context(|| format!("items of signal {signal}"))?;
        }
        Ok(())
    }
}

fn balanced(book: &Book, (wholes, parts): Sides) -> Result<()> {
    ensure!(book.contains_key(wholes[0]), "no {:?} in {book:?}", wholes[0]);
    let sum = |terms: &[&str]| terms.iter().filter_map(|term| book.get(*term)).sum::<u64>();
    let (total, sum) = (sum(wholes), sum(parts));
    ensure!(total == sum, "{wholes:?} is {total}, but its parts are {sum}: {book:?}");
    Ok(())
}

fn books(json: &Value) -> Result<BTreeMap<String, Book>> {
    let books = json.as_object().context("no books")?;
    books.iter().map(|(name, terms)| Ok((name.clone(), book(terms)?))).collect()
}

fn book(terms: &Value) -> Result<Book> {
    let terms = terms.as_object().context("not an object")?;
    terms.iter().map(|(name, value)| Ok((name.clone(), total(value)?))).collect()
}

/// A number, or the sum of numbers by reason.
fn total(value: &Value) -> Result<u64> {
    match value {
        Value::Object(reasons) => reasons.values().map(total).sum(),
        value => value.as_u64().with_context(|| format!("{value} is not a count")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(records: &str, items: &str) -> Result<Accounting> {
        let line = format!("{{\"accounting\":{{\"records\":{records},\"items\":{items}}}}}");
        Accounting::find(&["Started.".to_owned(), line])
    }

    const ITEM: &str =
        r#"{"traces":{"otlp":{"produced":5,"exported":4,"dropped":{"queue_full":1}}}}"#;

    #[test]
    fn balanced_books_pass() {
        let records = r#"{"open":{"seen":3,"delivered":2,"dropped":{"ring_full":1},"in_ring":0}}"#;
        let accounting = of(records, ITEM).unwrap();
        accounting.check().unwrap();
        assert_eq!(accounting.record("open", "dropped"), 1);
        assert_eq!(accounting.spans("exported"), 4);
    }

    #[test]
    fn one_unit_off_is_found() {
        let records = r#"{"open":{"seen":3,"delivered":3,"dropped":{"ring_full":1}}}"#;
        assert!(of(records, ITEM).unwrap().check().is_err());
        let left = r#"{"open":{"seen":3,"delivered":2,"in_ring":1}}"#;
        assert!(of(left, ITEM).unwrap().check().is_err());
    }

    #[test]
    fn no_line_is_an_error() {
        assert!(Accounting::find(&["Started.".to_owned()]).is_err());
    }
}
