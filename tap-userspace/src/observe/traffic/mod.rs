//! Metrics of traffic. Comes in: every finished connection and exchange, before anything is filtered
//! or sampled; goes out: the series of [`instruments`], through the registry.
//!
//! Each reader has a view of its own where they want different things, since an interval's deltas
//! or exponential buckets are not what `/metrics` shows; else they share one. A view is bounded:
//! [`series::LIMIT`] series a group, some 3 kB each.

pub mod instruments;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use self::instruments as group;
use crate::{
    config::{
        environment::{Environment, ExemplarFilter, Exporter, Signal},
        pipelines::Pipelines,
    },
    connection::{
        clock,
        model::{Connection, Identity, Quality, Role, State},
        transaction::{About, Transaction},
    },
    policy::sample::Sampler,
    protocol::{
        exchange::{Exchange, Http, Message, Query},
        http2::grpc::{self, Grpc},
    },
    telemetry::{
        attributes::Address,
        log,
        metric::{
            Reader, Registry, Samples,
            histogram::{Aggregation, Exemplar},
            otlp::Temporality,
            series::{Labels, Series},
        },
    },
};

/// What is aggregated, for whom.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// `/metrics` is served.
    pub scrape: bool,
    /// Metrics are exported, in this form.
    pub push: Option<(Aggregation, Temporality)>,
    /// Which measurements may become exemplars; none where there is no sampler.
    pub exemplars: Option<Sampler>,
    /// Exchanges are to be read for this. Without it they are aggregated where they are read anyhow:
    /// payload must be captured for them, which costs more than metrics that nobody has asked for.
    pub exchanges: bool,
}

impl Terms {
    /// What the environment says, and which exporters are on; `scrape`: whether `/metrics` is served.
    pub fn new(environment: &Environment, pipelines: &Pipelines, scrape: bool) -> Self {
        let exporters = environment.exporters(Signal::Metrics);
        let push = !pipelines.of(Signal::Metrics).is_empty();
        let metering = environment.metering();
        let traced = !pipelines.of(Signal::Traces).is_empty();
        let exemplars = match metering.exemplars {
            ExemplarFilter::AlwaysOn => Some(Sampler::AlwaysOn),
            // A trace that is not exported explains nothing.
            ExemplarFilter::TraceBased if traced => Some(environment.sampler()),
            ExemplarFilter::TraceBased | ExemplarFilter::AlwaysOff => None,
        };
        let exchanges = push || scrape && exporters.contains(&Exporter::Prometheus);
        let push = push.then_some((metering.aggregation, metering.temporality));
        Self { scrape, push, exemplars, exchanges }
    }
}

/// The aggregation.
#[derive(Debug)]
pub struct Traffic {
    views: Vec<Mutex<View>>,
    exemplars: Option<Sampler>,
}

impl Traffic {
    /// Aggregates what `terms` ask for, into `registry`.
    pub fn start(terms: &Terms, registry: &Registry) -> Arc<Self> {
        let mut views = Vec::new();
        let shown = (Aggregation::Explicit, Temporality::Cumulative);
        let shared = terms.push == Some(shown);
        if terms.scrape {
            views.push(Mutex::new(View::new(shown, true, shared)));
        }
        if let Some(form) = terms.push
            && !(terms.scrape && shared)
        {
            views.push(Mutex::new(View::new(form, false, true)));
        }
        let traffic = Arc::new(Self { views, exemplars: terms.exemplars });
        if !traffic.views.is_empty() {
            let groups = group::ALL.iter().flat_map(|group| group.instruments);
            let families: Vec<_> = groups.map(|instrument| instrument.family).collect();
            let read = traffic.clone();
            registry.source(&families, move |samples| read.read(samples));
        }
        traffic
    }

    /// Takes in connections, segments and failed connects.
    pub fn connections(&self, connections: &[Connection]) {
        for view in &self.views {
            let mut view = view.lock().unwrap_or_else(PoisonError::into_inner);
            for connection in connections {
                let exemplar = self.exemplar(&connection.identity, connection.end_ns);
                view.connection(connection, exemplar);
            }
        }
    }

    /// Takes in exchanges.
    pub fn transactions(&self, transactions: &[Transaction]) {
        for view in &self.views {
            let mut view = view.lock().unwrap_or_else(PoisonError::into_inner);
            // What is still open when tap leaves has no duration and no outcome.
            let over = transactions.iter().filter(|one| !one.exchange.is_open());
            for Transaction { about, exchange, .. } in over {
                let exemplar = self.exemplar(&about.identity, exchange.ended_ns);
                view.exchange(about, exchange, exemplar);
            }
        }
    }

    fn exemplar(&self, identity: &Identity, time_ns: u64) -> Option<Exemplar> {
        let Identity { trace_id, span_id, .. } = *identity;
        let kept = self.exemplars.is_some_and(|sampler| sampler.keeps(&trace_id));
        kept.then_some(Exemplar { value: 0.0, time_ns, trace_id, span_id })
    }

    fn read(&self, samples: &mut Samples) {
        for view in &self.views {
            let taken: Vec<_> = {
                let mut view = view.lock().unwrap_or_else(PoisonError::into_inner);
                if !view.serves(samples.reader()) {
                    continue;
                }
                let now_ns = clock::wall();
                view.series().map(|series| series.take(now_ns)).collect()
            };
            taken.into_iter().for_each(|taken| taken.put(samples));
        }
    }
}

/// What a view shows readers of.
#[derive(Debug)]
struct View {
    scrape: bool,
    push: bool,
    labels: Labels,
    /// By side, see [`side`].
    http: [Series; 2],
    rpc: [Series; 2],
    db: [Series; 2],
    messaging: [Series; 2],
    connections: Series,
    ends: Series,
}

/// Index of this host's side.
const fn side(role: Role) -> usize {
    match role {
        Role::Client => 0,
        Role::Server => 1,
    }
}

const fn direction(role: Role) -> &'static str {
    match role {
        Role::Client => "egress",
        Role::Server => "ingress",
    }
}

/// Nanoseconds as seconds.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

impl View {
    fn new(
        (aggregation, temporality): (Aggregation, Temporality),
        scrape: bool,
        push: bool,
    ) -> Self {
        let delta_since = (temporality != Temporality::Cumulative).then(clock::wall);
        let series = |group| Series::new(group, aggregation, delta_since);
        Self {
            scrape,
            push,
            labels: Labels::default(),
            http: [&group::HTTP_CLIENT, &group::HTTP_SERVER].map(series),
            rpc: [&group::RPC_CLIENT, &group::RPC_SERVER].map(series),
            db: [&group::DB_CLIENT, &group::DB_SERVER].map(series),
            messaging: [&group::MESSAGING_CLIENT, &group::MESSAGING_SERVER].map(series),
            connections: series(&group::CONNECTIONS),
            ends: series(&group::ENDS),
        }
    }

    const fn serves(&self, reader: Reader) -> bool {
        match reader {
            Reader::Scrape => self.scrape,
            Reader::Push => self.push,
        }
    }

    fn series(&mut self) -> impl Iterator<Item = &mut Series> {
        let by_side = self.http.iter_mut().chain(&mut self.rpc).chain(&mut self.db);
        by_side.chain(&mut self.messaging).chain([&mut self.connections, &mut self.ends])
    }

    fn connection(&mut self, connection: &Connection, exemplar: Option<Exemplar>) {
        let direction = direction(connection.role);
        let protocol = connection.protocol.map(crate::protocol::Protocol::network_name);
        let process = connection.process.as_deref().map(|process| &*process.name);
        self.labels.clear().text(direction).maybe(protocol).maybe(process);
        let cells = self.connections.at(&self.labels);
        // By direction, received first, as the connection has them.
        cells[0].add(connection.bytes[0]);
        cells[1].add(connection.bytes[1]);
        if connection.state == State::Open {
            return;
        }
        cells[group::RETRANSMITS].add(connection.retransmits.into());
        if connection.rtt_us > 0 {
            cells[group::RTT].record(f64::from(connection.rtt_us) / 1e6, exemplar);
        }
        if let Some(took) = connection.tls_handshake_ns {
            cells[group::HANDSHAKE].record(seconds(took), exemplar);
        }
        if !connection.quality.has(Quality::PREEXISTING) {
            let took = connection.end_ns.saturating_sub(connection.opened_ns);
            cells[group::LIFETIME].record(seconds(took), exemplar);
        }
        self.labels.clear().text(direction).text(connection.state.name());
        self.labels.maybe(connection.error_type).maybe(protocol).maybe(process);
        self.ends.at(&self.labels)[0].add(1);
    }

    fn exchange(&mut self, about: &About, exchange: &Exchange, exemplar: Option<Exemplar>) {
        match &exchange.message {
            Message::Http(http) => {
                self.http(about, exchange, http, exemplar);
                if let Some(call) = grpc::grpc(http) {
                    self.rpc(about, exchange, http, &call, exemplar);
                }
            }
            Message::Query(query) => self.query(about, exchange, query, exemplar),
            Message::WebSocket(_) => {}
        }
    }

    fn http(
        &mut self,
        about: &About,
        exchange: &Exchange,
        http: &Http,
        exemplar: Option<Exemplar>,
    ) {
        let known = log::KNOWN_METHODS.contains(&http.method.as_str());
        self.labels.clear().text(if known { &http.method } else { "_OTHER" });
        match http.status {
            Some(status) => self.labels.int(status.into()),
            None => self.labels.absent(),
        };
        // 4xx are the client's errors only (conventions for HTTP spans, "Status").
        let least = if about.role == Role::Client { 400 } else { 500 };
        let mut digits = Digits::default();
        let failed = http.status.filter(|status| *status >= least);
        let error = http.error.map(log::trouble).or_else(|| failed.map(|it| digits.format(it)));
        self.labels.maybe(error).text("http").text(http.version);
        self.labels.text(http.scheme.as_deref().unwrap_or("http"));
        self.server(about, http.host());
        let cells = self.http[side(about.role)].at(&self.labels);
        cells[group::DURATION].record(took(exchange), exemplar);
        cells[group::REQUEST_BODY].record(http.body[0] as f64, exemplar);
        cells[group::RESPONSE_BODY].record(http.body[1] as f64, exemplar);
    }

    fn rpc(
        &mut self,
        about: &About,
        exchange: &Exchange,
        http: &Http,
        call: &Grpc<'_>,
        exemplar: Option<Exemplar>,
    ) {
        let status = call.status.map(|status| grpc::known_status(status).unwrap_or("_OTHER"));
        let failed = call.status.is_some_and(|status| match about.role {
            Role::Client => status != 0,
            Role::Server => grpc::is_server_error(status),
        });
        let method = http.target.strip_prefix('/').unwrap_or(&http.target);
        // gRPC has no query; what a client puts there may be a secret.
        let method = method.split_once('?').map_or(method, |(path, _)| path);
        self.labels.clear().text("grpc").maybe(match call.status {
            // A method that the server does not have is anybody's invention.
            Some(grpc::UNIMPLEMENTED) => Some("_OTHER"),
            // Its name was said before tap came.
            _ => Some(method).filter(|method| !method.is_empty()),
        });
        self.labels.maybe(status);
        self.labels.maybe(http.error.map(log::trouble).or(status.filter(|_| failed)));
        self.server(about, http.host());
        let cells = self.rpc[side(about.role)].at(&self.labels);
        cells[group::DURATION].record(took(exchange), exemplar);
    }

    fn query(
        &mut self,
        about: &About,
        exchange: &Exchange,
        query: &Query,
        exemplar: Option<Exemplar>,
    ) {
        let error = query.error.as_deref();
        let failed = error.or(query.trouble.map(log::trouble));
        let (target, operation) = (query.target.as_deref(), query.operation.as_str());
        let messaging = query.system == "kafka";
        self.labels.clear().text(query.system);
        if messaging {
            self.labels.maybe(target).text(operation);
        } else {
            self.labels
                .maybe(query.namespace.as_deref())
                .maybe(target)
                .text(operation)
                .maybe(error);
        }
        self.labels.maybe(failed);
        self.server(about, None);
        let side = side(about.role);
        let series = if messaging { &mut self.messaging[side] } else { &mut self.db[side] };
        series.at(&self.labels)[group::DURATION].record(took(exchange), exemplar);
    }

    /// The last labels of an exchange: the server, by `name` where it is known, and the process of
    /// this side.
    fn server(&mut self, about: &About, name: Option<&str>) {
        let mut text = Address::new();
        match about.role {
            Role::Client => {
                let address = text.format(about.peer.0);
                self.labels.text(name.unwrap_or(address)).int(about.peer.1.into());
            }
            Role::Server => {
                self.labels.absent().int(about.local.1.into());
            }
        }
        self.labels.maybe(about.process.as_deref().map(|process| &*process.name));
    }
}

fn took(exchange: &Exchange) -> f64 {
    seconds(exchange.ended_ns.saturating_sub(exchange.began_ns))
}

/// A status as text, without an allocation.
#[derive(Default)]
struct Digits([u8; 3]);

impl Digits {
    fn format(&mut self, status: u16) -> &str {
        self.0 = [status / 100, status / 10, status].map(|digit| b'0' + (digit % 10) as u8);
        // ASCII by construction.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}
