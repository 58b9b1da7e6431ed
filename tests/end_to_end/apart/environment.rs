//! The `OTEL_*` variables (SPEC §5).

use std::{fs, net::SocketAddr};

use tests::{
    receiver::{Protocol, Receiver},
    stage::{Session, apart},
    tap::Launch,
    wait::PATIENCE,
    workload::Connected,
};

#[test]
fn spans_arrive_by_every_protocol_plain_and_compressed() {
    apart(|| {
        for protocol in Protocol::ALL {
            for compression in ["none", "gzip"] {
                let receiver = Receiver::start()?;
                let tap = Launch::new()
                    .exporting(&receiver, protocol)
                    .env("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
                    .env(
                        "OTEL_EXPORTER_OTLP_HEADERS",
                        "x-tenant=seven,authorization=Basic%20YQ%3D%3D",
                    )
                    .start()?;
                let mut connected = Connected::new()?;
                connected.send(3)?;
                let both = receiver.both(connected.close()?)?;
                both.assert_bytes(3, 0);
                both.assert_tied();
                let receiver = Session { tap, receiver }.finish()?;
                for request in receiver.store().requests() {
                    assert_eq!(request.protocol, protocol);
                    let header = |name: &str| request.headers.get(name).map(String::as_str);
                    assert_eq!(header("x-tenant"), Some("seven"));
                    assert_eq!(header("authorization"), Some("Basic YQ=="));
                    let name = if protocol == Protocol::Grpc {
                        "grpc-encoding"
                    } else {
                        "content-encoding"
                    };
                    assert_eq!(header(name) == Some("gzip"), compression == "gzip", "{request:?}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn the_unset_protocol_is_http_protobuf_and_a_signals_own_endpoint_is_taken_as_it_is() {
    apart(|| {
        let receiver = Receiver::start()?;
        let endpoint = format!("{}/v1/traces", receiver.endpoint(Protocol::HttpProtobuf));
        let tap = Launch::new()
            .env("OTEL_TRACES_EXPORTER", "otlp")
            .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &endpoint)
            .env("OTEL_BSP_SCHEDULE_DELAY", "100")
            .start()?;
        receiver.both(Connected::new()?.close()?)?;
        let receiver = Session { tap, receiver }.finish()?;
        let all = receiver.store().requests();
        assert!(all.iter().all(|request| request.protocol == Protocol::HttpProtobuf));
        Ok(())
    });
}

#[test]
fn the_resource_and_the_limits_are_set_by_it() {
    apart(|| {
        let receiver = Receiver::start()?;
        let tap = Launch::new()
            .exporting(&receiver, Protocol::Grpc)
            .env("OTEL_SERVICE_NAME", "watcher")
            .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=lab,service.name=lost")
            .env("OTEL_SPAN_EVENT_COUNT_LIMIT", "10")
            .start()?;
        let mut connected = Connected::new()?;
        for _ in 0..20 {
            connected.send(1)?;
            connected.answer(1)?;
        }
        let both = receiver.both(connected.close()?)?;
        assert_eq!(both.client.resource.str("service.name"), Some("watcher"));
        assert_eq!(both.client.resource.str("deployment.environment.name"), Some("lab"));
        assert_eq!(both.client.events.len(), 10);
        // Open, close, the protocol that nobody knows, and a turn for each.
        assert_eq!(both.client.dropped_events, 43 - 10);
        assert!(both.client.marked("event_limit"));
        both.assert_bytes(20, 20);
        Session { tap, receiver }.finish().map(drop)
    });
}

/// What the kernel's own files say, and a manifest by the downward API.
#[test]
fn the_resource_tells_of_host_system_and_pod() {
    apart(|| {
        let receiver = Receiver::start()?;
        let pod = [
            ("K8S_NODE_NAME", "k8s.node.name", "node-7"),
            ("POD_NAMESPACE", "k8s.namespace.name", "shop"),
            ("POD_NAME", "k8s.pod.name", "tap-x2x"),
            ("K8S_POD_UID", "k8s.pod.uid", "8d1f"),
            ("K8S_CONTAINER_NAME", "k8s.container.name", "tap"),
        ];
        let launch = Launch::new().exporting(&receiver, Protocol::Grpc);
        let tap = pod.iter().fold(launch, |it, (name, _, value)| it.env(name, value)).start()?;
        let span = receiver.client(Connected::new()?.close()?)?;
        for (_, key, value) in pod {
            assert_eq!(span.resource.str(key), Some(value), "{key}");
        }
        for (key, file) in [
            ("host.name", "/proc/sys/kernel/hostname"),
            ("os.version", "/proc/sys/kernel/osrelease"),
        ] {
            assert_eq!(span.resource.str(key), Some(fs::read_to_string(file)?.trim()), "{key}");
        }
        assert_eq!(span.resource.str("os.type"), Some("linux"));
        let id = span.resource.str("service.instance.id").unwrap_or_default();
        assert_eq!(id.len(), 36, "{id}");
        assert!(span.resource.str("cloud.provider").is_none(), "nobody asked for it");
        Session { tap, receiver }.finish().map(drop)
    });
}

#[test]
fn unknown_values_are_warned_about_by_name_and_ignored() {
    apart(|| {
        let receiver = Receiver::start()?;
        let wrong = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
            ("OTEL_SPAN_EVENT_COUNT_LIMIT", "-3"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ];
        let mut launch = Launch::new().exporting(&receiver, Protocol::HttpProtobuf);
        for (name, value) in wrong {
            launch = launch.env(name, value);
        }
        let tap = launch.start()?;
        receiver.both(Connected::new()?.close()?)?;
        for (name, value) in wrong {
            let warned = tap.log().with(name);
            assert!(warned.iter().any(|line| line.contains(value)), "{name}: {}", tap.log().text());
        }
        // What is allowed is said as well.
        assert!(tap.log().with("carrier-pigeon").iter().any(|it| it.contains("grpc")));
        Session { tap, receiver }.finish().map(drop)
    });
}

#[test]
fn an_empty_value_is_unset() {
    apart(|| {
        let receiver = Receiver::start()?;
        let tap = Launch::new()
            .exporting(&receiver, Protocol::HttpProtobuf)
            .env("OTEL_SERVICE_NAME", "")
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "")
            .start()?;
        let span = receiver.client(Connected::new()?.close()?)?;
        assert_eq!(span.resource.str("service.name"), Some("tap"));
        assert_eq!(tap.log().with("WARN"), [""; 0]);
        Session { tap, receiver }.finish().map(drop)
    });
}

#[test]
fn an_endpoint_that_is_no_url_is_exit_2() {
    apart(|| {
        for endpoint in ["not a url", "ftp://127.0.0.1:1", "http://"] {
            let ended = Launch::new()
                .env("OTEL_TRACES_EXPORTER", "otlp")
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
                .run()?;
            assert_eq!(ended.code(), 2, "{endpoint}: {}", ended.log());
            assert!(ended.log().contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{}", ended.log());
        }
        Ok(())
    });
}

#[test]
fn an_endpoint_without_an_exporter_is_warned_about() {
    apart(|| {
        let receiver = Receiver::start()?;
        let tap = Launch::new()
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.endpoint(Protocol::HttpProtobuf))
            .start()?;
        assert!(!tap.log().with("OTEL_TRACES_EXPORTER").is_empty(), "{}", tap.log().text());
        tap.stop()?.check()?;
        assert!(receiver.store().requests().is_empty());
        Ok(())
    });
}

#[test]
fn without_any_of_it_finished_connections_are_printed() {
    apart(|| {
        let tap = Launch::new().start()?;
        let mut connected = Connected::new()?;
        connected.send(4711)?;
        let ends = connected.close()?;
        // One JSON object a line, since standard output is no terminal.
        let printed = tap.output().wait_for("the connection", PATIENCE, |line| {
            let json: serde_json::Value = serde_json::from_str(line).ok()?;
            mentions(line, ends.client, ends.server).then_some(json)
        })?;
        assert!(printed.to_string().contains("4711"), "{printed}");
        let ended = tap.stop()?;
        assert!(ended.status.success(), "{}", ended.log());
        assert!(ended.accounting().is_ok());
        Ok(())
    });
}

fn mentions(line: &str, client: SocketAddr, server: SocketAddr) -> bool {
    [client, server].iter().all(|end| line.contains(&end.port().to_string()))
}

#[test]
fn a_console_exporter_and_none_can_be_asked_for() {
    apart(|| {
        let silent = Launch::new().env("OTEL_TRACES_EXPORTER", "none").start()?;
        Connected::new()?.close()?;
        let ended = silent.stop()?;
        assert!(ended.status.success() && ended.stdout.is_empty(), "{:?}", ended.stdout);
        let console = Launch::new().env("OTEL_TRACES_EXPORTER", "console").start()?;
        let ends = Connected::new()?.close()?;
        let shown = console.output().wait_for("the connection", PATIENCE, |line| {
            mentions(line, ends.client, ends.server).then_some(())
        });
        console.stop()?;
        shown
    });
}

#[test]
fn a_disabled_sdk_exports_nothing() {
    apart(|| {
        let receiver = Receiver::start()?;
        let tap = Launch::new()
            .exporting(&receiver, Protocol::Grpc)
            .env("OTEL_SDK_DISABLED", "true")
            .start()?;
        Connected::new()?.close()?;
        tap.stop()?;
        assert!(receiver.spans().is_empty());
        Ok(())
    });
}

#[test]
fn an_always_off_sampler_counts_what_it_left_out() {
    apart(|| {
        let receiver = Receiver::start()?;
        let tap = Launch::new()
            .exporting(&receiver, Protocol::Grpc)
            .env("OTEL_TRACES_SAMPLER", "always_off")
            .start()?;
        Connected::new()?.close()?;
        let accounting = tap.stop()?.check()?;
        assert!(accounting.spans("sampled") >= 2, "{accounting:?}");
        assert!(receiver.spans().is_empty());
        Ok(())
    });
}
