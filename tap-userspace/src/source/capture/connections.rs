//! All connections of a capture, by their ends: bounded in number, with the few clocks that TCP
//! has.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use hashbrown::{HashMap, hash_map::Entry};
use tap_common::record::{Close, Header};

use super::{
    Counts, Item, Settings, Sink, Wall,
    flow::{Context, Flow},
    link::{Endpoint, Segment, flag},
};

/// A connect without answer is given up by Linux after this long (`tcp_syn_retries` 6: 1 + 2 + 4 +
/// … + 64 s).
const CONNECT_NS: u64 = 127_000_000_000;

/// So long a connection that ended is remembered, for what of it comes late (TIME-WAIT, twice the
/// segments' lifetime), and so long one whose last acknowledgment was not captured is waited for.
const LINGER_NS: u64 = 60_000_000_000;

/// The two ends of a connection, the lower one first: the same for both directions.
type Key = [Endpoint; 2];

/// A connection whose time comes: when, its ends, and its cookie, as the ends may have another
/// by then.
type Due = (u64, Key, u64);

// What `Settings::connections` says of memory: the flow, its place in the map, and its clocks.
const _: () = assert!(size_of::<Flow>() + 2 * size_of::<Key>() + 4 * size_of::<Due>() <= 1024);

/// The connections.
pub struct Connections {
    settings: Settings,
    counts: Counts,
    flows: HashMap<Key, Box<Flow>>,
    cookies: u64,
    /// Connects, by when they time out.
    connecting: VecDeque<Due>,
    /// What is ending or over, by when it is forgotten.
    lingering: VecDeque<Due>,
    /// Bytes held by all streams.
    held: usize,
    /// Time of the newest packet.
    now: Wall,
}

impl Connections {
    /// None yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            counts: Counts::default(),
            flows: HashMap::new(),
            cookies: 0,
            connecting: VecDeque::new(),
            lingering: VecDeque::new(),
            held: 0,
            now: Wall(0),
        }
    }

    /// What happened besides.
    pub const fn counts(&mut self) -> &mut Counts {
        &mut self.counts
    }

    /// Bytes that streams hold at the moment.
    pub const fn held(&self) -> usize {
        self.held
    }

    /// Connections that are followed or remembered.
    pub fn count(&self) -> usize {
        self.flows.len()
    }

    /// A packet of this time comes: ends what is due by then. Says the time of the newest packet.
    pub fn advance(&mut self, time_ns: u64, sink: &mut Sink<'_>) -> Wall {
        if time_ns > self.now.0 {
            self.now = Wall(time_ns);
            self.expire(sink);
        }
        self.now
    }

    /// Takes in a segment.
    pub fn segment(
        &mut self,
        from: Endpoint,
        to: Endpoint,
        segment: &Segment<'_>,
        time_ns: u64,
        sink: &mut Sink<'_>,
    ) {
        self.counts.segments += 1;
        let key = if from < to { [from, to] } else { [to, from] };
        if self.flows.len() >= self.settings.connections && !self.flows.contains_key(&key) {
            self.evict(sink);
        }
        let Self { settings, counts, flows, held, cookies, connecting, lingering, now } = self;
        let mut context = Context { settings, counts, held, time_ns, now: *now, sink };
        let flow = match flows.entry(key) {
            Entry::Occupied(found) => {
                let flow = found.into_mut();
                if flow.is_reused(flow.side(&from), segment) {
                    flow.replaced(&mut context);
                    **flow = begin(cookies, from, to, segment, &mut context);
                    connecting.push_back((now.0.saturating_add(CONNECT_NS), key, flow.cookie()));
                }
                flow
            }
            Entry::Vacant(place) => {
                if !begins(segment) {
                    context.counts.stray += 1;
                    return;
                }
                let flow = place.insert(Box::new(begin(cookies, from, to, segment, &mut context)));
                if flow.is_connecting() {
                    connecting.push_back((now.0.saturating_add(CONNECT_NS), key, flow.cookie()));
                }
                flow
            }
        };
        let was_over = flow.is_closed() || flow.is_ending();
        flow.segment(flow.side(&from), segment, &mut context);
        if !was_over && (flow.is_closed() || flow.is_ending()) {
            lingering.push_back((now.0.saturating_add(LINGER_NS), key, flow.cookie()));
        }
        // What is answered or replaced still stands there; it is swept out before it outweighs
        // the rest.
        if connecting.len() + lingering.len() > 4 * flows.len() + 4096 {
            self.sweep();
        }
    }

    /// Ends what is due.
    fn expire(&mut self, sink: &mut Sink<'_>) {
        while let Some(&(due, key, cookie)) = self.connecting.front()
            && due <= self.now.0
        {
            self.connecting.pop_front();
            let Some(flow) = self.flows.get_mut(&key) else { continue };
            if flow.cookie() != cookie || !flow.is_connecting() {
                continue;
            }
            let Self { settings, counts, held, now, .. } = self;
            flow.time_out(
                due,
                &mut Context { settings, counts, held, time_ns: now.0, now: *now, sink },
            );
            self.flows.remove(&key);
        }
        while let Some(&(due, key, cookie)) = self.lingering.front()
            && due <= self.now.0
        {
            self.lingering.pop_front();
            let Some(flow) = self.flows.get_mut(&key) else { continue };
            if flow.cookie() != cookie {
                continue;
            }
            if !flow.is_closed() {
                let Self { settings, counts, held, now, .. } = self;
                flow.end(&mut Context { settings, counts, held, time_ns: now.0, now: *now, sink });
            }
            self.flows.remove(&key);
        }
    }

    /// Makes room: what is over goes, then an eighth of all, those that were silent longest.
    fn evict(&mut self, sink: &mut Sink<'_>) {
        self.flows.retain(|_, flow| !flow.is_closed());
        let most = self.settings.connections - self.settings.connections / 8;
        let surplus = self.flows.len().saturating_sub(most.saturating_sub(1));
        if surplus > 0 {
            let mut oldest: Vec<_> =
                self.flows.iter().map(|(key, flow)| (flow.last_ns, flow.cookie(), *key)).collect();
            if surplus < oldest.len() {
                oldest.select_nth_unstable(surplus);
                oldest.truncate(surplus);
            }
            oldest.sort_unstable();
            for (_, _, key) in oldest {
                let Some(mut flow) = self.flows.remove(&key) else { continue };
                let Self { settings, counts, held, now, .. } = self;
                flow.give_up(&mut Context {
                    settings,
                    counts,
                    held,
                    time_ns: now.0,
                    now: *now,
                    sink,
                });
            }
        }
        self.sweep();
    }

    /// Drops what waits for connections that are gone.
    fn sweep(&mut self) {
        let Self { flows, connecting, lingering, .. } = self;
        let find = |(_, key, cookie): &Due| flows.get(key).filter(|flow| flow.cookie() == *cookie);
        connecting.retain(|due| find(due).is_some_and(|flow| flow.is_connecting()));
        lingering.retain(|due| find(due).is_some());
    }

    /// All that is open.
    pub fn snapshot(&mut self) -> Vec<Close> {
        let now = self.now.0;
        let mut open: Vec<_> =
            self.flows.values_mut().filter_map(|flow| flow.snapshot(now)).collect();
        open.sort_unstable_by_key(|close| close.header.cookie);
        open
    }

    /// Lets connections record so many turns in all.
    pub fn allow_turns(&mut self, allowed: &[(Header, u32)]) {
        if allowed.is_empty() {
            return;
        }
        let allowed: HashMap<u64, u32> =
            allowed.iter().map(|(header, turns)| (header.cookie, *turns)).collect();
        for flow in self.flows.values_mut() {
            if let Some(turns) = allowed.get(&flow.cookie()) {
                flow.socket().allow_turns(*turns);
            }
        }
    }

    /// The capture ends.
    pub fn end(&mut self, sink: &mut Sink<'_>) {
        let Self { settings, counts, flows, held, now, .. } = self;
        let mut ending: Vec<_> = flows.values_mut().filter(|flow| flow.is_ending()).collect();
        ending.sort_unstable_by_key(|flow| flow.cookie());
        let mut context = Context { settings, counts, held, time_ns: now.0, now: *now, sink };
        ending.into_iter().for_each(|flow| flow.end(&mut context));
        let open = self.snapshot();
        sink(Item::End { now: self.now, open: &open });
        self.flows.clear();
        self.connecting.clear();
        self.lingering.clear();
        self.held = 0;
    }
}

/// Whether a segment of no known connection begins one: a handshake, or data in the middle. Mere
/// acknowledgments and resets may be the rest of one that is over.
const fn begins(segment: &Segment<'_>) -> bool {
    !segment.has(flag::RST) && (segment.has(flag::SYN | flag::FIN) || segment.len > 0)
}

/// The connection that a segment begins.
fn begin(
    cookies: &mut u64,
    from: Endpoint,
    to: Endpoint,
    segment: &Segment<'_>,
    context: &mut Context<'_, '_>,
) -> Flow {
    let from_client = match (segment.has(flag::SYN), segment.has(flag::ACK)) {
        (true, answer) => !answer,
        // In the middle nothing but the ports tells.
        (false, _) => from.port >= to.port,
    };
    let ends = if from_client { [from, to] } else { [to, from] };
    *cookies += 1;
    context.counts.connections += 1;
    let mut flow = Flow::new(*cookies, ends, context.settings, context.time_ns);
    if !segment.has(flag::SYN) {
        let side = flow.side(&from);
        flow.join(side, segment, context);
    }
    flow
}
