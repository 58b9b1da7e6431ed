//! tap's own numbers by OTLP (`OTEL_METRICS_EXPORTER=otlp`): the registry's families as observable
//! instruments of the OpenTelemetry SDK, whose reader calls [`Sender`] each interval.
//!
//! The SDK's exporter crate is not used: it reads the process's environment by itself and would
//! bring a second HTTP stack, and this way spans and metrics take the same certificates, headers
//! and proxies.

use std::{sync::Arc, time::Instant};

use opentelemetry::{KeyValue, metrics::MeterProvider as _};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    metrics::{
        PeriodicReader, SdkMeterProvider, Temporality, data::ResourceMetrics,
        exporter::PushMetricExporter,
    },
};
use prost::Message as _;
use tokio::runtime::Handle;

use super::{
    metric::{Family, Kind, Registry, Sample},
    resource::Resource,
    semconv,
};
use crate::{
    config::environment::{Environment, Exporter, Signal},
    export::{
        ItemCounters, client, left,
        otlp::Complaints,
        transport::{Outcome, Transport},
    },
};

/// Instrumentation scope of tap's own metrics.
pub const SCOPE: &str = "tap.internal";

/// The running export of metrics.
#[derive(Debug)]
pub struct Meter {
    provider: SdkMeterProvider,
}

/// Starts it, where the environment says so.
pub fn start(
    environment: &Environment,
    resource: &Resource,
    counters: &ItemCounters,
    handle: &Handle,
) -> Result<Option<Meter>, client::Error> {
    if !environment.exporters(Signal::Metrics).contains(&Exporter::Otlp) {
        return Ok(None);
    }
    let metering = environment.metering();
    let sender = Sender {
        transport: Arc::new(Transport::new(environment.otlp(Signal::Metrics))?),
        complaints: Arc::default(),
        temporality: metering.temporality,
        handle: handle.clone(),
    };
    let reader = PeriodicReader::builder(sender).with_interval(metering.interval).build();
    let provider =
        SdkMeterProvider::builder().with_reader(reader).with_resource(sdk(resource)).build();
    instruments(&provider, counters.registry());
    Ok(Some(Meter { provider }))
}

impl Meter {
    /// Sends the numbers once more, until `deadline`.
    pub async fn shutdown(self, deadline: Instant) {
        let provider = self.provider;
        // It waits for its thread, which waits for the network.
        let stop =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(left(deadline)));
        match tokio::time::timeout_at(deadline.into(), stop).await {
            Ok(Ok(Ok(()))) => {}
            other => tracing::debug!(?other, "The last metrics may not have been sent."),
        }
    }
}

fn sdk(resource: &Resource) -> opentelemetry_sdk::Resource {
    let attributes = resource.attributes().iter();
    let attributes = attributes.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let builder = opentelemetry_sdk::Resource::builder_empty();
    builder.with_schema_url(attributes, semconv::SCHEMA_URL).build()
}

/// An instrument for every family, those to come included.
fn instruments(provider: &SdkMeterProvider, registry: &Arc<Registry>) {
    let meter = provider.meter(SCOPE);
    // The registry holds the watcher; the instruments must not hold the registry in turn.
    let numbers = Arc::downgrade(registry);
    registry.watch(move |family: &Family| {
        let (name, registry) = (family.name, numbers.clone());
        let read = move || -> Vec<Sample> {
            let samples = registry.upgrade().map(|registry| registry.samples()).unwrap_or_default();
            samples.into_iter().filter(|sample| sample.name == name).collect()
        };
        match family.kind {
            Kind::Counter => drop(
                meter
                    .u64_observable_counter(name)
                    .with_description(family.help)
                    .with_callback(move |observer| {
                        for sample in read() {
                            observer.observe(sample.value, &labels(&sample));
                        }
                    })
                    .build(),
            ),
            Kind::Gauge => drop(
                meter
                    .u64_observable_gauge(name)
                    .with_description(family.help)
                    .with_callback(move |observer| {
                        for sample in read() {
                            observer.observe(sample.value, &labels(&sample));
                        }
                    })
                    .build(),
            ),
        }
    });
}

fn labels(sample: &Sample) -> Vec<KeyValue> {
    sample.labels.iter().map(|(name, value)| KeyValue::new(*name, value.clone())).collect()
}

/// Sends what the SDK's reader collects. It is called on the reader's own thread.
#[derive(Debug)]
struct Sender {
    transport: Arc<Transport>,
    complaints: Arc<Complaints>,
    temporality: Temporality,
    handle: Handle,
}

impl PushMetricExporter for Sender {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let message = ExportMetricsServiceRequest::from(metrics);
        let mut bytes = vec![0; Transport::HEADROOM];
        let failed = |cause: String| Err(OTelSdkError::InternalFailure(cause));
        if let Err(error) = message.encode(&mut bytes) {
            return failed(error.to_string());
        }
        let prepared = match self.transport.prepare(bytes, Transport::HEADROOM) {
            Ok(prepared) => prepared,
            Err(error) => return failed(error),
        };
        let transport = self.transport.clone();
        // Sockets and timers want the runtime, which this thread is not of.
        let sent = self
            .handle
            .spawn(async move { transport.attempt(&prepared, transport.timeout()).await });
        let cause = match sent.await {
            Ok(Outcome::Taken { rejected: 0, .. }) => return Ok(()),
            Ok(Outcome::Taken { message, .. }) => message,
            // The next interval's numbers hold these, so that nothing is sent again.
            Ok(Outcome::Again { cause, .. } | Outcome::Refused { cause, .. }) => cause,
            Err(error) => error.to_string(),
        };
        if self.complaints.may() {
            let endpoint = self.transport.endpoint();
            let remedy =
                "check that a collector listens there, or change OTEL_EXPORTER_OTLP_ENDPOINT";
            tracing::warn!(endpoint, cause, remedy, "Metrics cannot be sent.");
        }
        failed(cause)
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: std::time::Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        self.temporality
    }
}
