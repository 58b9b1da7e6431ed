//! What the daemon said against what the programs counted.

use serde::Serialize;
use serde_json::Value;

use super::boot::Output;
use super::guests::{Guest, Phase};
use super::traffic::End;
use crate::command;

/// How one phase of one guest went.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// `uname -r`.
    pub kernel: String,
    /// What was done.
    pub phase: &'static str,
    /// The object and its required programs were loaded.
    pub loaded: bool,
    /// And attached.
    pub attached: bool,
    /// Ends of connections that there were.
    pub ends: usize,
    /// Ends with exactly one span.
    pub spans: usize,
    /// Ends whose span has the right bytes both ways.
    pub bytes: usize,
    /// Every record of the kernel side was delivered, none lost or left over.
    pub accounted: bool,
    /// From power-on to power-off, all phases together.
    pub seconds: f64,
    /// What is wrong.
    pub problems: Vec<String>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

impl Verdict {
    /// Whether all is as it should be.
    pub fn is_good(&self) -> bool {
        self.loaded
            && self.attached
            && self.accounted
            && self.spans == self.ends
            && self.bytes == self.ends
            && self.problems.is_empty()
    }
}

/// What a guest sent of one phase.
#[derive(Default)]
struct Account {
    ledger: Vec<End>,
    spans: Vec<Value>,
    log: Vec<String>,
    exit: Option<String>,
    unreadable: usize,
}

/// Judges each phase of a guest.
pub fn judge(kernel: &str, guest: &Guest, output: &Output, seconds: f64) -> Vec<Verdict> {
    let verdict = |phase: &Phase| {
        let account = account(&output.results, *phase);
        let mut verdict = one(kernel, *phase, &account);
        verdict.seconds = seconds;
        if !verdict.is_good() && !output.results.contains("\nend ") {
            let last = command::tail(&output.console, 6).replace('\n', " | ");
            verdict.problems.push(format!("the guest broke off; its console: {last}"));
        }
        verdict
    };
    guest.phases.iter().map(verdict).collect()
}

fn account(results: &str, phase: Phase) -> Account {
    let mut account = Account::default();
    let mut inside = false;
    for line in results.lines() {
        let (tag, rest) = line.trim_end_matches('\r').split_once(' ').unwrap_or((line, ""));
        if tag == "phase" {
            inside = rest == phase.name();
        } else if inside {
            account.take(tag, rest);
        }
    }
    account
}

impl Account {
    fn take(&mut self, tag: &str, rest: &str) {
        match tag {
            "ledger" => match serde_json::from_str(rest) {
                Ok(end) => self.ledger.push(end),
                Err(_) => self.unreadable += 1,
            },
            "span" => match serde_json::from_str(rest) {
                Ok(span) => self.spans.push(span),
                Err(_) => self.unreadable += 1,
            },
            "log" => self.log.push(rest.to_owned()),
            "exit" => self.exit = Some(rest.to_owned()),
            _ => {}
        }
    }

    fn accounting(&self) -> Option<Value> {
        let lines = self.log.iter().rev();
        let mut values = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        values.find_map(|value| value.get("accounting").cloned())
    }
}

fn one(kernel: &str, phase: Phase, account: &Account) -> Verdict {
    let tracing = account.log.iter().any(|line| line.contains("\"Tracing.\""));
    let refused = account.log.iter().find(|line| line.contains("attach")).filter(|_| !tracing);
    let mut verdict = Verdict {
        kernel: kernel.to_owned(),
        phase: phase.name(),
        loaded: tracing || refused.is_some(),
        attached: tracing,
        ends: 2 * phase.connections(),
        spans: 0,
        bytes: 0,
        accounted: false,
        seconds: 0.0,
        problems: Vec::new(),
        notes: Vec::new(),
    };
    for program in account.log.iter().filter_map(|line| program_not_in_use(line)) {
        let remark = format!("without {program}");
        if misses(kernel, &program) {
            verdict.notes.push(remark);
        } else {
            verdict.problems.push(remark);
        }
    }
    if !tracing {
        let words = account.log.last().map_or("nothing", String::as_str);
        verdict.problems.push(format!("the daemon did not trace; it said: {words}"));
        return verdict;
    }
    match account.accounting().as_ref().map(unaccounted) {
        None => verdict.problems.push("there is no accounting line".into()),
        Some(lines) => {
            verdict.accounted = lines.is_empty();
            verdict.problems.extend(lines);
        }
    }
    if account.exit.as_deref() != Some("0") {
        let code = account.exit.as_deref().unwrap_or("none");
        verdict.problems.push(format!("the daemon's exit code is {code}"));
    }
    compare(account, &mut verdict);
    verdict
}

/// Whether the kernel is known to lack what the program needs: before 5.11 tracing programs do not
/// reach socket storage. Any other program has to be in use.
fn misses(kernel: &str, program: &str) -> bool {
    kernel.starts_with("5.10.") && ["tap_state", "tap_read"].contains(&program)
}

/// The program of a line `A program is not in use.`.
fn program_not_in_use(line: &str) -> Option<String> {
    let value: Value = serde_json::from_str(line).ok()?;
    let fields = value.get("fields").unwrap_or(&value);
    let program = fields.get("program")?.as_str()?;
    Some(program.to_owned())
}

/// Kinds of records that were lost or left over.
fn unaccounted(accounting: &Value) -> Vec<String> {
    let Some(kinds) = accounting["records"].as_object() else {
        return vec!["the accounting has no records".into()];
    };
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let lines = kinds.iter().filter_map(|(kind, records)| {
        let seen = number(&records["seen"]);
        let delivered = number(&records["delivered"]);
        let dropped: u64 = records["dropped"].as_object()?.values().map(number).sum();
        (seen != delivered || dropped != 0)
            .then(|| format!("{kind}: {seen} seen, {delivered} delivered, {dropped} dropped"))
    });
    lines.collect()
}

fn compare(account: &Account, verdict: &mut Verdict) {
    let missing = verdict.ends.abs_diff(account.ledger.len());
    if missing > 0 || account.unreadable > 0 {
        let (ends, bad) = (account.ledger.len(), account.unreadable);
        verdict.problems.push(format!("the ledger has {ends} ends; {bad} lines are unreadable"));
    }
    for end in &account.ledger {
        let mine: Vec<_> = account.spans.iter().filter(|span| is_of(span, end)).collect();
        let [span] = mine.as_slice() else {
            verdict.problems.push(format!("{} spans of {} to {}", mine.len(), end.local, end.peer));
            continue;
        };
        verdict.spans += 1;
        let (sent, received) = (&span["tap.bytes.sent"], &span["tap.bytes.received"]);
        if sent.as_u64() == Some(end.sent) && received.as_u64() == Some(end.received) {
            verdict.bytes += 1;
        } else {
            verdict.problems.push(format!(
                "{} to {}: {}+{} bytes, the span says {sent}+{received}",
                end.local, end.peer, end.sent, end.received
            ));
        }
    }
    let others = account.spans.len().saturating_sub(verdict.spans);
    if others > 0 {
        verdict.problems.push(format!("{others} spans of connections that nobody made"));
    }
}

fn is_of(span: &Value, end: &End) -> bool {
    let direction = if end.client { "egress" } else { "ingress" };
    let text = |key: &str, want: String| span[key].as_str() == Some(&*want);
    let number = |key: &str, want: u16| span[key].as_u64() == Some(want.into());
    span["connection.direction"] == direction
        && text("network.local.address", end.local.ip().to_string())
        && text("network.peer.address", end.peer.ip().to_string())
        && number("network.local.port", end.local.port())
        && number("network.peer.port", end.peer.port())
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
