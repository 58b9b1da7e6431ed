use super::*;
use crate::enrich::process::Process;

fn rules(yaml: &str) -> Rules {
    Rules::new(&serde_yaml::from_str(yaml).unwrap()).unwrap()
}

fn facts<'a>(local: &str, peer: &str, role: Role) -> Facts<'a> {
    let end = |text: &str| {
        let end: std::net::SocketAddr = text.parse().unwrap();
        (end.ip(), end.port())
    };
    Facts {
        local: end(local),
        peer: end(peer),
        role,
        peer_name: None,
        process: None,
        cgroup: None,
        protocol: None,
        hello: None,
        last: false,
    }
}

/// What the kernel side does with the tables, of a connection whose process part is `of_process`:
/// uid, executable, cgroup; each may not be known. Refused, or looked at and whether for sure.
fn kernel(rules: &Rules, facts: &Facts<'_>, uid: Option<u32>) -> Option<bool> {
    let Tables { admission, ports, prefixes, users } = rules.tables();
    let (active, address) = (facts.role == Role::Client, |ip: IpAddr| match ip {
        IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
        IpAddr::V6(six) => six.octets(),
    });
    let port = |wanted: u16| {
        ports.iter().find(|(port, _)| *port == wanted).map_or(admission.no_port, |(_, ends)| *ends)
    };
    let longest = |ip: IpAddr| {
        let whole = Prefix { len: 128, address: address(ip) };
        let fit = prefixes.iter().filter(|(prefix, _)| contains(prefix, &whole));
        fit.max_by_key(|(prefix, _)| prefix.len).map_or(admission.no_prefix, |(_, ends)| *ends)
    };
    let mut said = if active { admission.of_egress } else { admission.of_ingress };
    let mut unsure = admission.partial;
    for (local, remote) in
        [(port(facts.local.1), port(facts.peer.1)), (longest(facts.local.0), longest(facts.peer.0))]
    {
        said &= (local.either | remote.either) & local.local & remote.remote;
    }
    match uid {
        Some(uid) => {
            let said_of = users.iter().find(|(user, _)| *user == uid);
            said &= said_of.map_or(admission.no_user, |(_, said)| *said);
        }
        None => unsure |= !admission.no_user,
    }
    match facts.process {
        Some(process) => said &= rules.of_executable(&process.executable),
        None => unsure |= !admission.no_executable,
    }
    match facts.cgroup {
        Some(path) => said &= rules.of_cgroup(path),
        None => unsure |= !admission.no_cgroup,
    }
    let out = said & admission.exclude & !unsure != 0
        || admission.include != 0 && said & admission.include == 0;
    (!out).then_some(said & unsure == 0)
}

#[test]
fn the_kernel_refuses_only_what_the_whole_rule_does() {
    let curl = Process {
        executable: "/usr/bin/curl".into(),
        name: "curl".into(),
        uid: Some(7),
        ..Process::default()
    };
    let docker = format!("/system.slice/docker-{}.scope", "0123abcd".repeat(8));
    let ports = [80, 443, 8080];
    let all = [
        "{}",
        "include: [{ port: 443 }]",
        "include: [{ port: 443 }, { port: 80 }, { cidr: 10.0.0.0/8 }]",
        "exclude: [{ port: 1-100 }, { remote_cidr: 192.0.2.0/24 }]",
        "include: [{ port: 443, uid: 7 }]",
        "include: [{ remote_port: 443, exe: '/usr/*' }, { local_port: 80 }]",
        "exclude: [{ exe: curl, cidr: 10.0.0.0/8 }]",
        "exclude: [{ exe: curl, condition: 'connection.server.port == 443' }]",
        "include: [{ condition: \"process.name == 'curl'\" }], exclude: [{ uid: 7, port: 80 }]",
        "exclude: [{ container: 0123ab }, { direction: ingress, port: 8080 }]",
        "include: [{ cgroup: '/system.slice' , uid: 7 }]",
        "include: [{ cidr: '::/0' }]",
        "include: [{ cidr: 10.0.0.0/8 }], exclude: [{ cidr: 10.1.0.0/16 }, { local_cidr: 10.2.0.0/16 }]",
    ];
    let mut sure = 0;
    for text in all {
        let rules = rules(&format!("{{ {} }}", text.trim_matches(['{', '}'])));
        for port in ports {
            for peer in ["10.1.2.3", "192.0.2.7", "203.0.113.9", "[2001:db8::1]"] {
                let local = if peer.starts_with('[') { "[2001:db8::2]" } else { "10.2.0.1" };
                for role in [Role::Client, Role::Server] {
                    let (here, there) = match role {
                        Role::Client => (40_000, port),
                        Role::Server => (port, 40_000),
                    };
                    let open = facts(&format!("{local}:{here}"), &format!("{peer}:{there}"), role);
                    for (process, cgroup) in [
                        (None, None),
                        (Some(&curl), None),
                        (None, Some(&*docker)),
                        (Some(&curl), Some("/user.slice")),
                        (Some(&curl), Some(&*docker)),
                    ] {
                        let now = Facts { process, cgroup, ..open };
                        // Whatever else there is to be known, in the end.
                        for (process, cgroup) in [(Some(&curl), Some(&*docker)), (None, None)] {
                            let end = Facts {
                                process: now.process.or(process),
                                cgroup: now.cgroup.or(cgroup),
                                last: true,
                                ..now
                            };
                            let wanted = rules.judge(&end) == Judgement::Wanted;
                            let uid = now.process.and_then(|process| process.uid);
                            match kernel(&rules, &now, uid) {
                                None => assert!(!wanted, "{text}: refused {now:?}"),
                                Some(true) => {
                                    assert!(wanted, "{text}: admitted {now:?}");
                                    sure += 1;
                                }
                                Some(false) => assert!(rules.need_daemon(false), "{text}"),
                            }
                            // The daemon says nothing before it is certain either.
                            match rules.judge(&now) {
                                Judgement::Undecided => {}
                                said => {
                                    assert_eq!(
                                        said == Judgement::Wanted,
                                        wanted,
                                        "{text}: {now:?}"
                                    );
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(sure > 500, "{sure}");
}

#[test]
fn rules_hold_of_what_they_name() {
    let nginx = Process {
        executable: "/usr/sbin/nginx".into(),
        name: "nginx".into(),
        uid: Some(33),
        ..Process::default()
    };
    let script = Process { name: "nginx".into(), ..Process::default() };
    let pod = format!("/kubepods.slice/pod-1.slice/cri-containerd-{}.scope", "ab12".repeat(16));
    let out = facts("10.0.0.1:40000", "10.9.0.2:443", Role::Client);
    let accepted = facts("10.0.0.1:443", "10.9.0.2:40000", Role::Server);
    let of = |process| Facts { process: Some(process), ..out };
    let inside = Facts { cgroup: Some(&pod), ..out };
    let wanted = Judgement::Wanted;
    let excluded = Judgement::Refused(Reason::Exclude, Some(0));
    let nothing = Judgement::Refused(Reason::Include, None);
    for (text, facts, judgement) in [
        ("include: [{ port: 443 }]", out, wanted),
        ("include: [{ local_port: 443 }]", out, nothing),
        ("include: [{ local_port: 443 }]", accepted, wanted),
        ("include: [{ port: 443, remote_cidr: 10.9.0.0/16 }]", out, wanted),
        ("include: [{ port: 443, local_cidr: 10.9.0.0/16 }]", out, nothing),
        ("exclude: [{ cidr: '::/0' }]", out, wanted),
        ("exclude: [{ cidr: 0.0.0.0/0 }]", out, excluded),
        ("exclude: [{ direction: egress }]", out, excluded),
        ("exclude: [{ direction: egress }]", accepted, wanted),
        ("direction: ingress", out, Judgement::Refused(Reason::Direction, None)),
        ("include: [{ exe: nginx }]", out, Judgement::Undecided),
        ("include: [{ exe: nginx }]", Facts { last: true, ..out }, nothing),
        ("include: [{ exe: nginx }]", of(&nginx), wanted),
        ("include: [{ exe: nginx }]", of(&script), wanted),
        ("include: [{ exe: '*/nginx' }]", of(&script), nothing),
        ("include: [{ exe: '/usr/*/nginx' }]", of(&nginx), wanted),
        ("exclude: [{ uid: 33 }]", of(&nginx), excluded),
        ("exclude: [{ uid: 33 }]", of(&script), wanted),
        ("include: [{ exe: nginx, uid: 0 }]", of(&nginx), nothing),
        ("include: [{ cgroup: /kubepods.slice }]", inside, wanted),
        ("include: [{ cgroup: '/kubepods.slice/pod-?.slice' }]", inside, wanted),
        ("include: [{ cgroup: /kubepods }]", inside, nothing),
        ("include: [{ container: ab12ab12 }]", inside, wanted),
        ("include: [{ container: ab12ab13 }]", inside, nothing),
        ("include: [{ exe: nginx }, { port: 443 }]", out, wanted),
        ("include: [{ port: 443 }], exclude: [{ exe: nginx }]", out, Judgement::Undecided),
        ("include: [{ port: 443 }], exclude: [{ exe: nginx }]", of(&nginx), excluded),
        ("include: [{ condition: \"connection.protocol == 'http'\" }]", out, Judgement::Undecided),
        (
            "include: [{ condition: \"connection.protocol == 'http'\" }]",
            Facts { protocol: Some("http"), ..out },
            wanted,
        ),
    ] {
        assert_eq!(rules(&format!("{{ {text} }}")).judge(&facts), judgement, "{text} {facts:?}");
    }
    let local = facts("127.0.0.1:1", "127.0.0.1:2", Role::Client);
    let said = rules("loopback: false").judge(&local);
    assert_eq!(said, Judgement::Refused(Reason::Loopback, None));
}

#[test]
fn containers_are_found_in_paths() {
    let id = "0af3".repeat(16);
    for (path, found) in [
        (format!("/system.slice/docker-{id}.scope"), true),
        (format!("/docker/{id}"), true),
        (format!("/kubepods/burstable/pod7/{id}"), true),
        (format!("/machine.slice/libpod-{id}.scope/container"), true),
        (format!("/x/{id}0"), false),
        ("/user.slice/é".to_owned(), false),
        (String::new(), false),
    ] {
        assert_eq!(container_id(&path), found.then_some(&*id), "{path}");
    }
}

#[test]
fn more_rules_than_the_kernel_side_holds_are_refused() {
    let told =
        |yaml: &str| Rules::new(&serde_yaml::from_str(yaml).unwrap()).unwrap_err().to_string();
    let list = |rule: &dyn Fn(usize) -> String, n: usize| -> String {
        let rules: Vec<String> = (0..n).map(|n| format!("{{ {} }}", rule(n))).collect();
        format!("include: [{}]", rules.join(", "))
    };
    assert!(told("exclude: [{ port: 1-2000 }]").contains("2000 ports"));
    let cidr = |n: usize| format!("cidr: 10.{}.{}.0/24", n / 256, n % 256);
    assert!(told(&list(&cidr, 1025)).contains("1025 prefixes"));
    let several = |n: usize| format!("port: {}, uid: 1", n + 1);
    assert!(told(&list(&several, 65)).contains("65 rules of several keys"));
    assert!(told(&list(&|n| format!("uid: {n}"), 1025)).contains("1025 users"));
    // A thousand of one key are one to the kernel.
    let many = rules(&list(&cidr, 1024));
    assert_eq!(many.tables().admission.include, 1);
    assert_eq!(many.tables().prefixes.len(), 1024);
}

#[test]
fn an_ipv6_network_is_around_no_ipv4_network() {
    let rules = rules("exclude: [{ cidr: '::/0' }, { cidr: 10.0.0.0/8 }]");
    let said: Vec<(u32, u64)> = rules
        .tables()
        .prefixes
        .iter()
        .map(|(prefix, ends)| (prefix.len, ends.either & 1))
        .collect();
    assert_eq!(said, [(0, 1), (96, 0), (104, 1)]);
}

#[test]
fn it_is_told_where_each_rule_runs() {
    let text = "include: [{ port: 443, condition: \"tls.server_name == 'x'\" }], \
                exclude: [{ exe: curl }, { exe: curl, direction: egress }, { container: 0123ab }]";
    let places = rules(&format!("{{ {text} }}")).places();
    let shown: Vec<String> = places
        .iter()
        .map(|place| {
            format!("{}: {} | {}", place.name, place.kernel.join(", "), place.daemon.join(", "))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "include[0]: port | condition (once its first bytes are seen)",
            "exclude[0]: exe | exe (of accepted connections, once read from)",
            "exclude[1]: direction, exe | ",
            "exclude[2]: container | ",
        ]
    );
}
