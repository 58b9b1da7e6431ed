//! Rules that change while the kernel programs run, on the running kernel (as root; skipped
//! elsewhere): each connection is decided by what is in force when it opens.

use std::{
    collections::HashMap,
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use tap_common::settings::Settings;
use tap_userspace::{
    policy::admission::Rules,
    probe::{
        cgroup,
        load::{self, Wanted},
        support,
    },
    source::{
        decode::{Record, decode},
        ring::Rings,
    },
};

const SWAPS: usize = 1000;

fn rules(include: &[u16], more: &str) -> Arc<Rules> {
    let ports =
        include.iter().map(|port| format!("{{ local_port: {port} }}, {{ remote_port: {port} }}"));
    let ports = ports.collect::<Vec<_>>().join(", ");
    let text = format!("{{ include: [{ports}], exclude: [{more}] }}");
    Arc::new(Rules::new(&serde_yaml::from_str(&text).unwrap()).unwrap())
}

/// One connection, accepted.
fn connection(listener: &TcpListener) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    drop((client, server));
}

#[test]
fn a_thousand_changes_lose_nothing_and_admit_nothing_else() {
    if !support::missing_capabilities().is_empty() {
        eprintln!("skipped: this process may not load programs");
        return;
    }
    let root = cgroup::root().unwrap();
    let [one, other, always, never] =
        [(); 4].map(|()| Arc::new(TcpListener::bind("127.0.0.1:0").unwrap()));
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let first = rules(&[port(&always)], "");
    let ring = 1 << 20;
    let settings = Settings { dns: 0, ..Settings::DEFAULT };
    let wanted = Wanted { settings, life_ring: ring, data_ring: ring, rules: first };
    let probes = match load::load(&root, wanted) {
        Ok(probes) => probes,
        Err(load::LoadError::Stub) => return eprintln!("skipped: built without kernel programs"),
        Err(error) => panic!("{error}"),
    };
    let (control, counters) = (probes.admission.clone(), probes.counters);
    let mut rings = Rings::new(probes.life, probes.data);
    let mut opens: HashMap<u16, u64> = HashMap::new();
    let watched = [&one, &other, &always, &never].map(|listener| port(listener));
    let mut drain = |opens: &mut HashMap<u16, u64>| {
        rings.drain_life(&mut |bytes: &[u8]| {
            if let Ok(Record::Open(open)) = decode(bytes) {
                let tuple = open.connection.tuple;
                for port in [tuple.local_port, tuple.remote_port] {
                    if watched.contains(&port) {
                        *opens.entry(port).or_default() += 1;
                    }
                }
            }
        });
        rings.drain_data(&mut |_: &[u8]| {});
    };

    // Traffic all the while, to a port that is always included and to one that never is.
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let traffic = thread::spawn({
        let (stop, made) = (stop.clone(), made.clone());
        let (always, never) = (always.clone(), never.clone());
        move || {
            while !stop.load(Relaxed) {
                connection(&always);
                connection(&never);
                made.fetch_add(1, Relaxed);
                // As many as the ring of this test takes between two looks at it.
                thread::sleep(std::time::Duration::from_micros(200));
            }
        }
    });
    for swap in 0..SWAPS {
        let (wanted, unwanted) = if swap % 2 == 0 { (&one, &other) } else { (&other, &one) };
        // Keys that no other generation has: what is not taken out again would fill the tables.
        let n = swap % 500;
        let more = format!(
            "{{ port: {}-{} }}, {{ uid: {} }}, {{ cidr: 203.0.{}.{}/32 }}, {{ exe: nothing-{n} }}",
            1 + n * 8,
            8 + n * 8,
            1_000_000 + swap,
            swap / 256,
            swap % 256,
        );
        control.apply(rules(&[port(&always), port(wanted)], &more)).unwrap();
        drain(&mut opens);
        let before = (opens.get(&port(wanted)).copied(), opens.get(&port(unwanted)).copied());
        connection(wanted);
        connection(unwanted);
        drain(&mut opens);
        let after = (opens.get(&port(wanted)).copied(), opens.get(&port(unwanted)).copied());
        // Both ends of the one, nothing of the other.
        assert_eq!(after.0, Some(before.0.unwrap_or(0) + 2), "change {swap}");
        assert_eq!(after.1, before.1, "change {swap}");
    }
    stop.store(true, Relaxed);
    traffic.join().unwrap();
    drain(&mut opens);
    let made = made.load(Relaxed);
    assert!(made > SWAPS as u64, "{made} connections in all");
    assert_eq!(opens.get(&port(&always)), Some(&(2 * made)), "{opens:?}");
    assert_eq!(opens.get(&port(&never)), None, "{opens:?}");
    let dropped = tap_common::counters::dropped(
        tap_common::record::Kind::Open,
        tap_common::counters::Drop::RingFull,
    );
    assert_eq!(counters.read()[dropped as usize], 0);
    eprintln!("{SWAPS} changes, {made} connections meanwhile");
}
