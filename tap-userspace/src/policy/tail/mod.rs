//! The `tail_sampling` processor. Comes in: spans, with the time; goes out: those of traces that a policy
//! keeps, once it is decided.
//!
//! A trace waits from its first span on for `decision_wait`, and is decided on at the next full second
//! (the Collector's own clock). What comes of it later follows the decision, as long as that is
//! remembered: among the last `num_traces`, in the decision caches, and, for traces that were kept, in
//! [`Verdicts`] beyond: once a connection is kept it stays kept. Where there is no room for another trace, or
//! for its bytes, the oldest that waits is decided on early, with what is there; the Collector would
//! lose it.
#![forbid(unsafe_code)]

pub mod logs;
mod recent;
pub mod rules;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hashbrown::HashMap;

use self::{
    recent::Recent,
    rules::{Decision, Evaluator, Trace},
};
use super::{
    chain::Place,
    data::{Record as _, Span, encode},
    processor::{Processor, Tally},
};
use crate::{
    config::processors::tail_sampling::{Rule, TailSampling},
    telemetry::{
        metric::{Family, Number},
        protobuf::varint_len,
    },
};

/// Between two moments at which it is decided.
const TICK: Duration = Duration::from_secs(1);

/// Verdicts that are remembered for log records and late spans, for each trace that may wait.
const VERDICTS_FOR_EACH: usize = 4;

const DECISIONS: Family = Family::counter(
    "tap_policy_traces_total",
    "Traces that a tail sampler has decided on (`decision`: sampled, not_sampled, dropped).",
);
const BY_POLICY: Family = Family::counter(
    "tap_policy_decisions_total",
    "What each policy of a tail sampler has said of traces.",
);
const HELD: Family =
    Family::gauge("tap_policy_traces_held", "Traces that a tail sampler waits for more spans of.");
const HELD_BYTES: Family =
    Family::gauge("tap_policy_traces_held_bytes", "Memory of the spans that a tail sampler holds.");
const KNOWN: Family = Family::gauge(
    "tap_policy_traces_known",
    "Traces that a tail sampler holds, or remembers as decided on (at most num_traces).",
);
const EARLY: Family = Family::counter(
    "tap_policy_traces_early_total",
    "Traces that a tail sampler could not wait for (`reason`: num_traces, bytes: decided on with what \
     was there; trace_size: left out).",
);
const LATE: Family = Family::counter(
    "tap_policy_late_spans_total",
    "Spans that came after the decision on their trace, and followed it.",
);
const TIME: Family = Family::counter(
    "tap_policy_evaluation_nanoseconds_total",
    "Time that a tail sampler has taken to decide.",
);

/// A trace's id.
pub type TraceId = [u8; 16];

/// What tail samplers have decided, by their names. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Verdicts(Arc<Mutex<HashMap<Arc<str>, Decided>>>);

/// The verdicts of one.
#[derive(Debug)]
struct Decided {
    kept: Recent<TraceId>,
    left_out: Recent<TraceId>,
}

impl Verdicts {
    /// Remembers a verdict of the sampler `name`. Of two that decide under one name, in two pipelines,
    /// the one that keeps a trace counts.
    fn tell(&self, name: &Arc<str>, trace: TraceId, keep: bool, size: usize) {
        let mut all = self.lock();
        let decided = all
            .entry(name.clone())
            .or_insert_with(|| Decided { kept: Recent::new(size), left_out: Recent::new(size) });
        match keep {
            true => decided.kept.put(trace),
            false => decided.left_out.put(trace),
        }
    }

    /// The verdict of the sampler `name`, if there is one.
    pub fn of(&self, name: &str, trace: &TraceId) -> Option<bool> {
        let mut all = self.lock();
        let decided = all.get_mut(name)?;
        match (decided.kept.has(trace), decided.left_out.has(trace)) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Decided>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running `tail_sampling`.
#[derive(Debug)]
pub struct Sampler {
    settings: Settings,
    policies: Vec<Policy>,
    name: Arc<str>,
    verdicts: Verdicts,
    /// Ticks are counted from here.
    start: Instant,
    traces: HashMap<TraceId, Known>,
    /// Those of `traces`, in the order that they came in.
    order: BTreeMap<u64, TraceId>,
    /// Those that are not decided on: the tick at which they are, their number in the order, and the id.
    waiting: BTreeSet<(u64, u64, TraceId)>,
    /// Number of the next trace.
    next: u64,
    /// Memory of what waits.
    bytes: usize,
    /// Sizes in OTLP are asked for.
    sizes: bool,
    sampled: Option<Recent<TraceId>>,
    not_sampled: Option<Recent<TraceId>>,
    counts: Counts,
    scratch: Vec<u8>,
}

/// What the settings say besides the policies.
#[derive(Debug)]
struct Settings {
    ticks: u64,
    /// From a root span, if it counts.
    ticks_after_root: Option<u64>,
    num_traces: usize,
    first_match: bool,
    drop_pending: bool,
    trace_size: u64,
    buffer_size: usize,
}

#[derive(Debug)]
struct Policy {
    evaluator: Evaluator,
    /// By [`Decision`].
    said: [Number; 3],
}

#[derive(Debug)]
struct Counts {
    /// By [`Decision`].
    decided: [Number; 3],
    held: Number,
    held_bytes: Number,
    known: Number,
    /// By [`Why`].
    early: [Number; 3],
    /// Left out, kept.
    late: [Number; 2],
    time: Number,
}

/// Why a trace could not be waited for.
#[derive(Clone, Copy, Debug)]
enum Why {
    Traces,
    Bytes,
    TraceSize,
}

/// A trace that is waited for, or was decided on.
#[derive(Debug)]
struct Known {
    number: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Waits { due: u64, trace: Trace, memory: usize, bare: u64 },
    Decided { keep: bool },
}

impl Sampler {
    /// With these settings, from `now` on.
    pub fn new(settings: &TailSampling, place: &Place<'_>, now: Instant) -> Self {
        let decisions = |family, labels: &[(&'static str, &str)]| {
            Decision::ALL.map(|decision| {
                let labels: Vec<_> =
                    labels.iter().copied().chain([("decision", decision.name())]).collect();
                place.number(family, &labels)
            })
        };
        // What drops is asked first: then nobody else is.
        let (mut first, mut others) = (Vec::new(), Vec::new());
        for policy in &settings.policies {
            let of = match policy.rule {
                Rule::Drop(_) => &mut first,
                _ => &mut others,
            };
            of.push(Policy {
                evaluator: Evaluator::new(policy),
                said: decisions(BY_POLICY, &[("policy", &policy.name)]),
            });
        }
        first.append(&mut others);
        let cache = |size: usize| (size > 0).then(|| Recent::new(size));
        let sizes = first.iter().any(|policy| policy.evaluator.asks_sizes());
        Self {
            sizes: sizes || settings.maximum_trace_size_bytes > 0,
            settings: Settings {
                ticks: settings.decision_wait.as_secs().max(1),
                ticks_after_root: Some(settings.decision_wait_after_root_received)
                    .filter(|wait| !wait.is_zero())
                    .map(|wait| wait.as_secs()),
                num_traces: settings.num_traces,
                first_match: settings.sample_on_first_match,
                drop_pending: settings.drop_pending_traces_on_shutdown,
                trace_size: settings.maximum_trace_size_bytes,
                buffer_size: settings.maximum_buffer_size_bytes,
            },
            policies: first,
            name: place.processor.clone(),
            verdicts: place.shared.verdicts.clone(),
            start: now,
            traces: HashMap::new(),
            order: BTreeMap::new(),
            waiting: BTreeSet::new(),
            next: 0,
            bytes: 0,
            sampled: cache(settings.sampled_cache_size),
            not_sampled: cache(settings.non_sampled_cache_size),
            counts: Counts {
                decided: decisions(DECISIONS, &[]),
                held: place.number(HELD, &[]),
                held_bytes: place.number(HELD_BYTES, &[]),
                known: place.number(KNOWN, &[]),
                early: ["num_traces", "bytes", "trace_size"]
                    .map(|reason| place.number(EARLY, &[("reason", reason)])),
                late: ["not_sampled", "sampled"]
                    .map(|decision| place.number(LATE, &[("decision", decision)])),
                time: place.number(TIME, &[]),
            },
            scratch: Vec::new(),
        }
    }

    /// Ticks that are over.
    fn ticks(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs()
    }

    /// Takes in the spans of one trace that came together; what goes on at once is put to `out`.
    fn take(
        &mut self,
        id: TraceId,
        spans: Vec<Span>,
        now: Instant,
        out: &mut Vec<Span>,
        tally: &mut Tally,
    ) {
        if let Some(keep) = self.known(&id) {
            self.counts.late[usize::from(keep)].add(spans.len() as u64);
            return match keep {
                true => out.extend(spans),
                false => tally.sampled += spans.len() as u64,
            };
        }
        if !self.traces.contains_key(&id) {
            while self.traces.len() >= self.settings.num_traces {
                self.forget_oldest(now, out, tally);
            }
            self.begin(id, now);
        }
        let (bare, size) = if self.sizes { self.size(&spans) } else { (0, 0) };
        let rooted = spans.iter().any(|span| span.parent_span_id == [0; 8]);
        let after_root = self.settings.ticks_after_root.filter(|_| rooted);
        let memory = spans.iter().map(|span| span.weight()).sum::<usize>();
        let earlier = after_root.map(|ticks| self.ticks(now) + ticks);
        let Some(Known { number, state: State::Waits { due, trace, memory: held, bare: all } }) =
            self.traces.get_mut(&id)
        else {
            return;
        };
        if let Some(earlier) = earlier.filter(|earlier| *earlier < *due) {
            self.waiting.remove(&(*due, *number, id));
            self.waiting.insert((earlier, *number, id));
            *due = earlier;
        }
        trace.size += size;
        *all += bare;
        let large = self.settings.trace_size > 0 && *all > self.settings.trace_size;
        trace.spans.extend(spans);
        *held += memory;
        self.bytes += memory;
        if large {
            self.counts.early[Why::TraceSize as usize].add(1);
            self.settle(id, false, out, tally);
        }
        while self.bytes > self.settings.buffer_size
            && let Some((_, _, oldest)) = self.waiting.first().copied()
        {
            self.counts.early[Why::Bytes as usize].add(1);
            self.decide(oldest, now, out, tally);
        }
    }

    /// The decision on a trace, if there is one.
    fn known(&mut self, id: &TraceId) -> Option<bool> {
        if self.sampled.as_mut().is_some_and(|cache| cache.has(id)) {
            return Some(true);
        }
        if self.not_sampled.as_mut().is_some_and(|cache| cache.has(id)) {
            return Some(false);
        }
        match self.traces.get(id) {
            Some(Known { state: State::Decided { keep }, .. }) => Some(*keep),
            Some(_) => None,
            // It may have been kept long ago.
            None => self.verdicts.of(&self.name, id).filter(|keep| *keep),
        }
    }

    fn begin(&mut self, id: TraceId, now: Instant) {
        let (number, due) = (self.next, self.ticks(now) + self.settings.ticks);
        self.next += 1;
        self.order.insert(number, id);
        self.waiting.insert((due, number, id));
        let state = State::Waits { due, trace: Trace::default(), memory: 0, bare: 0 };
        self.traces.insert(id, Known { number, state });
    }

    /// Makes room for a trace: the oldest one is decided on, if it is not, and forgotten.
    fn forget_oldest(&mut self, now: Instant, out: &mut Vec<Span>, tally: &mut Tally) {
        let Some((_, &oldest)) = self.order.first_key_value() else { return };
        if matches!(self.traces.get(&oldest), Some(Known { state: State::Waits { .. }, .. })) {
            self.counts.early[Why::Traces as usize].add(1);
            self.decide(oldest, now, out, tally);
        }
        self.forget(&oldest);
    }

    fn forget(&mut self, id: &TraceId) {
        if let Some(known) = self.traces.remove(id) {
            self.order.remove(&known.number);
        }
    }

    /// Decides on a trace that waits.
    fn decide(&mut self, id: TraceId, now: Instant, out: &mut Vec<Span>, tally: &mut Tally) {
        let Some(Known { state: State::Waits { trace, .. }, .. }) = self.traces.get(&id) else {
            return;
        };
        let begun = Instant::now();
        let at = now.saturating_duration_since(self.start);
        let mut decision = Decision::NotSampled;
        for policy in &mut self.policies {
            let said = policy.evaluator.evaluate(&id, trace, at);
            policy.said[said as usize].add(1);
            match said {
                Decision::NotSampled => {}
                Decision::Dropped => {
                    decision = said;
                    break;
                }
                Decision::Sampled => {
                    decision = said;
                    if self.settings.first_match {
                        break;
                    }
                }
            }
        }
        self.counts.decided[decision as usize].add(1);
        self.counts.time.add(begun.elapsed().as_nanos() as u64);
        self.settle(id, decision == Decision::Sampled, out, tally);
    }

    /// Lets a trace that waits go on, or not, and remembers it.
    fn settle(&mut self, id: TraceId, keep: bool, out: &mut Vec<Span>, tally: &mut Tally) {
        let Some(known) = self.traces.get_mut(&id) else { return };
        let state = std::mem::replace(&mut known.state, State::Decided { keep });
        let State::Waits { due, trace, memory, .. } = state else { return };
        self.waiting.remove(&(due, known.number, id));
        self.bytes -= memory;
        match keep {
            true => out.extend(trace.spans),
            false => tally.sampled += trace.spans.len() as u64,
        }
        let size = self.settings.num_traces.saturating_mul(VERDICTS_FOR_EACH);
        self.verdicts.tell(&self.name, id, keep, size);
        let cache = if keep { &mut self.sampled } else { &mut self.not_sampled };
        if let Some(cache) = cache {
            cache.put(id);
            self.forget(&id);
        }
    }

    /// Bytes of one `ResourceSpans` for each resource, as the Collector reckons them: without, and with
    /// the fields that hold them.
    fn size(&mut self, spans: &[Span]) -> (u64, u64) {
        let field = |len: usize| 1 + varint_len(len as u64) + len;
        let mut by_source: Vec<(&Span, usize)> = Vec::new();
        for span in spans {
            self.scratch.clear();
            encode::span(span, &mut self.scratch);
            let head = 2 + self.scratch.iter().skip(1).take_while(|&&byte| byte >= 0x80).count();
            // It writes these two where they are empty too.
            let status = span.status == 0 && span.status_message.is_empty();
            let empty = usize::from(status) + usize::from(span.parent_span_id == [0; 8]);
            let len = field(self.scratch.len() - head + 2 * empty);
            match by_source.iter_mut().find(|(first, _)| first.source.is(&span.source)) {
                Some((_, size)) => *size += len,
                None => by_source.push((span, len)),
            }
        }
        let mut by_resource: Vec<(&Span, usize)> = Vec::new();
        for (span, len) in by_source {
            let scope = field(field(encode::scope(&span.source.scope).len()) + len);
            let same = |of: &Span| Arc::ptr_eq(&of.source.resource, &span.source.resource);
            match by_resource.iter_mut().find(|(first, _)| same(first)) {
                Some((_, size)) => *size += scope,
                None => {
                    let resource = field(encode::resource(&span.source.resource).len());
                    by_resource.push((span, resource + scope));
                }
            }
        }
        let sizes = by_resource.into_iter().map(|(_, len)| (len as u64, field(len) as u64));
        sizes.fold((0, 0), |(bare, whole), (len, field)| (bare + len, whole + field))
    }

    fn show(&self) {
        self.counts.held.set(self.waiting.len() as u64);
        self.counts.held_bytes.set(self.bytes as u64);
        self.counts.known.set(self.traces.len() as u64);
    }
}

impl Processor<Span> for Sampler {
    fn process(&mut self, batch: &mut Vec<Span>, now: Instant, tally: &mut Tally) {
        // Those of a trace come together: in the order of its first.
        let mut of: HashMap<TraceId, usize> = HashMap::new();
        let mut groups: Vec<(TraceId, Vec<Span>)> = Vec::new();
        for span in batch.drain(..) {
            let at = *of.entry(span.trace_id).or_insert_with(|| {
                groups.push((span.trace_id, Vec::new()));
                groups.len() - 1
            });
            groups[at].1.push(span);
        }
        for (id, spans) in groups {
            self.take(id, spans, now, batch, tally);
        }
        self.show();
    }

    fn due(&self) -> Option<Instant> {
        let (due, ..) = self.waiting.first()?;
        // It is over once so many ticks, and this one, are.
        u32::try_from(due + 1).ok().map(|ticks| self.start + TICK * ticks)
    }

    fn release(&mut self, now: Instant, all: bool, tally: &mut Tally) -> Vec<Span> {
        let mut out = Vec::new();
        let ticks = self.ticks(now);
        while let Some((due, _, id)) = self.waiting.first().copied()
            && (all || due < ticks)
        {
            if all && due >= ticks && self.settings.drop_pending {
                self.settle(id, false, &mut out, tally);
            } else {
                self.decide(id, now, &mut out, tally);
            }
        }
        self.show();
        out
    }
}
