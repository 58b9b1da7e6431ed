//! Exporters whose queue is on disk.

use super::*;

/// A block `exporters` with a queue in `folder`, soon in its retries.
fn stored_in(folder: &std::path::Path, more: &str) -> String {
    format!(
        "otlp: {{ sending_queue: {{ storage: {}, {more} }}, retry_on_failure: {{ initial_interval: \
         50ms, max_interval: 200ms }} }}",
        folder.display()
    )
}

fn start_stored(config: &str, endpoint: &str, protocol: &str) -> Exporters {
    let variables = [
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100"),
    ];
    start_with(config, &variables)
}

/// Ends an exporter with a queue on disk; what it holds there is queued at the end.
async fn leave(exporters: Exporters) -> Counts {
    let (counters, began) = (exporters.counters(), Instant::now());
    exporters.shutdown(began + Duration::from_secs(5)).await;
    let counts = counters.items()[0].counts();
    assert!(counts.balance() && counts.held == 0, "{counts:?}");
    assert!(began.elapsed() < Duration::from_secs(6));
    counts
}

fn ids(collector: &Collector) -> Vec<Vec<u8>> {
    collector.spans().into_iter().map(|span| span.span_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_on_disk_outlives_the_process_in_its_order() {
    for protocol in PROTOCOLS {
        let home = tempfile::tempdir().unwrap();
        let address = nowhere().await;
        let config = stored_in(home.path(), "");
        let first = start_stored(&config, &format!("http://{address}"), protocol);
        first.offer(many(1_234));
        let counts = leave(first).await;
        assert_eq!((counts.produced, counts.queued, counts.exported), (1_234, 1_234, 0));
        // The second finds nobody either, and has something to add.
        let second = start_stored(&config, &format!("http://{address}"), protocol);
        second.offer((1_234..1_300).map(plain).collect());
        let counts = leave(second).await;
        assert_eq!((counts.recovered, counts.produced, counts.queued), (1_234, 66, 1_300));
        let collector = Collector::start([]).await;
        let third = start_stored(&config, &url(&collector), protocol);
        let counts = until(&third, settled).await;
        assert_eq!((counts.recovered, counts.exported), (1_300, 1_300));
        let expected: Vec<_> = (0..1_300u64).map(|n| (n + 1).to_be_bytes().to_vec()).collect();
        assert_eq!(ids(&collector), expected, "{protocol}");
        let counts = leave(third).await;
        assert_eq!(counts.queued, 0);
        // Nothing is left behind but the lock.
        let left = std::fs::read_dir(home.path().join("otlp-traces")).unwrap().count();
        assert_eq!(left, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_with_a_queue_on_disk_are_retried_or_final() {
    let status = |status| Answer::Status(status, None);
    let partial = Answer::Take { rejected: 4, message: "too old" };
    let later = Answer::Status(503, Some(("retry-after", "1")));
    let grpc = |code, early| Answer::Grpc { code, early, details: None };
    // Protocol, answers, exported and rejected of ten, requests.
    let table = [
        ("http/protobuf", vec![status(503)], 10, 0, 2),
        ("http/json", vec![later], 10, 0, 2),
        ("http/protobuf", vec![status(400)], 0, 10, 1),
        ("http/json", vec![partial.clone()], 6, 4, 1),
        ("http/protobuf", vec![Answer::Hang], 10, 0, 2),
        ("grpc", vec![grpc(14, true)], 10, 0, 2),
        ("grpc", vec![grpc(3, false)], 0, 10, 1),
        ("grpc", vec![partial], 6, 4, 1),
    ];
    let mut running = Vec::new();
    for (protocol, script, exported, rejected, requests) in table {
        running.push(tokio::spawn(async move {
            let told = format!("{protocol} {script:?}");
            let slow = matches!(script[0], Answer::Status(503, Some(_)));
            let home = tempfile::tempdir().unwrap();
            let collector = Collector::start(script).await;
            let began = Instant::now();
            let config = stored_in(home.path(), "num_consumers: 3");
            let exporters = start_stored(&config, &url(&collector), protocol);
            exporters.offer(many(10));
            let counts = until(&exporters, settled).await;
            assert_eq!((counts.exported, counts.rejected), (exported, rejected), "{told}");
            assert_eq!(collector.received().len(), requests, "{told}");
            assert!(!slow || began.elapsed() >= Duration::from_secs(1), "{told}");
            assert_eq!(leave(exporters).await.queued, 0, "{told}");
        }));
    }
    for run in running {
        run.await.unwrap();
    }
}

/// Answers each request with the next of `script` and hangs up; how many requests there were.
fn raw(script: Vec<&'static [u8]>) -> (std::net::SocketAddr, std::thread::JoinHandle<usize>) {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        for answer in &script {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut piece) = (Vec::new(), [0; 4096]);
            loop {
                let read = stream.read(&mut piece).unwrap();
                request.extend_from_slice(&piece[..read]);
                let Some(head) = request.windows(4).position(|four| four == b"\r\n\r\n") else {
                    assert_ne!(read, 0);
                    continue;
                };
                let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
                if request.len() >= head + 4 + length.unwrap().parse::<usize>().unwrap() {
                    break;
                }
            }
            stream.write_all(answer).unwrap();
        }
        script.len()
    });
    (address, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_half_a_response_are_tried_again_unless_the_status_was_there() {
    const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    for script in [
        vec![b"SSH-2.0-OpenSSH_9.2\r\n" as &[u8], GOOD],
        vec![b"", b"HTTP/1.1 20", GOOD],
        vec![b"HTTP/1.1 503 no\r\nretry-after: 99999999999999999999\r\n\r\n", GOOD],
        vec![b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"],
        vec![b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n\xff\xff\xff"],
    ] {
        for config in ["", "disk"] {
            let home = tempfile::tempdir().unwrap();
            let config = match config {
                "disk" => stored_in(home.path(), ""),
                _ => "otlp: { retry_on_failure: { initial_interval: 50ms } }".to_owned(),
            };
            let (address, server) = raw(script.clone());
            let exporters = start_stored(&config, &format!("http://{address}"), "http/protobuf");
            exporters.offer(many(10));
            let counts = until(&exporters, settled).await;
            assert_eq!((counts.exported, counts.rejected), (10, 0), "{script:?}");
            assert_eq!(server.join().unwrap(), script.len());
            leave(exporters).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_queue_rejects_the_newest_or_waits() {
    for (more, block) in [
        ("queue_size: 3", false),
        ("queue_size: 300, sizer: items", false),
        ("queue_size: 3, block_on_overflow: true", true),
    ] {
        let home = tempfile::tempdir().unwrap();
        let address = nowhere().await;
        let config = stored_in(home.path(), more);
        let exporters = start_stored(&config, &format!("http://{address}"), "http/protobuf");
        exporters.offer(many(1_000));
        let full = |counts: &Counts| dropped(counts, Reason::QueueFull) == 700;
        if block {
            // In the disk's queue, in the hand of who waits for room, and before it in memory.
            until(&exporters, |counts| counts.held >= 100 && counts.queued >= 800).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(dropped(&counts(&exporters), Reason::QueueFull), 0);
            let collector = Collector::on(address, [], None).await;
            until(&exporters, settled).await;
            assert_eq!(collector.spans().len(), 1_000);
        } else {
            until(&exporters, full).await;
            assert_eq!(leave(exporters).await.queued, 300, "{more}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_exporters_do_not_share_a_queue() {
    let home = tempfile::tempdir().unwrap();
    let config = stored_in(home.path(), "");
    let collector = Collector::start([]).await;
    let both = [
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &url(&collector)),
    ];
    let exporters = start_with(&config, &both);
    for signal in ["traces", "logs"] {
        assert!(home.path().join(format!("otlp-{signal}/lock")).exists());
    }
    let second = try_start(&configuration(&config, ""), &both);
    let error = second.err().expect("two at a time").to_string();
    assert!(error.contains("in use by another tap"), "{error}");
    exporters.shutdown(Instant::now() + Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_on_disk_end_only_where_told_to() {
    let home = tempfile::tempdir().unwrap();
    let config = format!(
        "otlp: {{ sending_queue: {{ storage: {} }}, retry_on_failure: {{ initial_interval: 100ms, \
         max_interval: 200ms, max_elapsed_time: 700ms }} }}",
        home.path().display()
    );
    let exporters = start_stored(&config, &format!("http://{}", nowhere().await), "http/protobuf");
    exporters.offer(many(3));
    let counts = until(&exporters, settled).await;
    assert_eq!(dropped(&counts, Reason::RetryExhausted), 3);
    let config = "otlp: { retry_on_failure: { enabled: false } }";
    let exporters = start_stored(config, &format!("http://{}", nowhere().await), "grpc");
    exporters.offer(many(3));
    let counts = until(&exporters, settled).await;
    assert_eq!(dropped(&counts, Reason::RetryExhausted), 3);
}
