//! haproxy between client and server: each leg is a connection with exchanges of its own.

use tests::{
    programs::{haproxy::Haproxy, nginx::Nginx, tshark::Tshark},
    record::{http, http_body},
    scene::{Order, Scene, Turns},
    stage::apart,
};

use super::{curl, fill, words};

#[test]
fn both_legs_of_haproxy_are_what_it_logged() {
    apart(|| {
        let nginx = Nginx::start()?;
        fill(&nginx.root())?;
        let haproxy = Haproxy::start(nginx.http)?;
        let (http1, http2, back) = (haproxy.http, haproxy.h2c, nginx.http.port());
        let ports = [http1.port(), http2.port(), back];
        let scene = Scene::start(&ports)?;
        let body = "x".repeat(30_000);
        curl(
            http1,
            &[
                ("small?a=1", &[]),
                ("large", &[]),
                ("large", &["--head"]),
                ("none", &[]),
                ("none", &["--data", &body]),
            ],
        )?;
        for path in ["small", "large", "none"] {
            curl(http2, &[(path, &["--http2-prior-knowledge"])])?;
        }
        let logged = haproxy.logged(8)?;
        let served: Vec<_> = nginx.told(nginx.http, 8)?.iter().map(|line| words(line, 5)).collect();
        // Its idle connections to the server end with it.
        drop(haproxy);
        let of = |port: u16| logged.iter().filter(move |it| it.to == port);
        let counts = ports.map(|port| (port, if port == back { 8 } else { of(port).count() }));
        let evidence = scene.finish(&counts)?;
        for port in [http1.port(), http2.port()] {
            let front: Vec<_> = of(port).map(|it| it.front.clone()).collect();
            evidence.assert_agrees("haproxy", port, http, Order::Connection, &front);
        }
        let behind: Vec<_> = logged.iter().map(|it| it.back.clone()).collect();
        evidence.assert_agrees("haproxy", back, http, Order::Connection, &behind);
        evidence.assert_agrees("nginx", back, http_body, Order::Connection, &served);
        for port in [http1.port(), back] {
            let tshark = Tshark { file: &evidence.capture, port };
            evidence.assert_agrees("tshark", port, http, Order::Connection, &tshark.http1()?);
        }
        let tshark = Tshark { file: &evidence.capture, port: http2.port() };
        evidence.assert_agrees("tshark", http2.port(), http, Order::Any, &tshark.http2()?);
        evidence.assert_replayed("egress", Turns::Sums, &[])
    });
}
