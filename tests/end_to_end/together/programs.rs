//! Real programs, and what they themselves say of their traffic.

use std::{fs, net::SocketAddr, process::Command};

use anyhow::Result;
use tests::{
    programs::{
        self, command, curl, find,
        nginx::Nginx,
        output, resolved,
        scripts::{node_client, node_executable, node_server},
        tls::{NAME, certificate},
    },
    stage::together,
    wait::PATIENCE,
    workload::Ends,
};

fn ends(client: u16, server: SocketAddr) -> Ends {
    Ends { client: ([127, 0, 0, 1], client).into(), server }
}

#[test]
fn nginx_and_curl_agree_with_the_span_on_every_byte() {
    together(|on| {
        let nginx = Nginx::start()?;
        fs::write(nginx.root().join("file"), vec![b'n'; 1_234_567])?;
        let mut curl = curl::curl(&["--header", "x-padding: yes"])?;
        curl.arg(format!("http://{}/file", nginx.http));
        let transfer = curl::fetch(curl)?;
        assert_eq!(transfer.status(), 200);
        let both = on.receiver.both(ends(transfer.local_port(), nginx.http))?;
        both.assert_bytes(transfer.sent(), transfer.received());
        both.assert_whole();
        both.assert_tied();
        let logged = nginx.logged(transfer.local_port(), 1)?[0];
        assert_eq!((logged.sent, logged.received), (transfer.received(), transfer.sent()));
        assert_eq!(both.client.str("process.executable.path"), curl::executable()?);
        let nginx_file = resolved(&find("nginx", "nginx-light")?)?;
        assert_eq!(both.server.str("process.executable.path"), nginx_file);
        assert_ne!(both.server.pid(), Some(i64::from(nginx.process.pid())), "the worker serves");
        assert_eq!(both.client.str("network.protocol.name"), "http");
        assert_eq!(both.client.str("network.protocol.version"), "1.1");
        Ok(())
    });
}

#[test]
fn requests_kept_alive_are_one_span_with_the_sum_of_bytes() {
    together(|on| {
        let nginx = Nginx::start()?;
        fs::write(nginx.root().join("file"), vec![b'n'; 2000])?;
        let url = format!("http://{}/file", nginx.http);
        let mut curl = command("curl", "curl")?;
        curl.args([
            "--silent",
            "--noproxy",
            "*",
            "--output",
            "/dev/null",
            "--write-out",
            "%{local_port}\n",
        ]);
        curl.arg(format!("{url}?[1-20]"));
        let said = output(&mut curl)?;
        let mut ports: Vec<u16> = said.lines().map(str::parse).collect::<Result<_, _>>()?;
        ports.dedup();
        assert_eq!(ports.len(), 1, "curl did not keep the connection");
        let logged = nginx.logged(ports[0], 20)?;
        let both = on.receiver.both(ends(ports[0], nginx.http))?;
        let sum = |of: fn(&programs::nginx::Logged) -> u64| logged.iter().map(of).sum::<u64>();
        both.assert_bytes(sum(|it| it.received), sum(|it| it.sent));
        assert_eq!(both.client.turns().len(), 40);
        Ok(())
    });
}

#[test]
fn http2_with_and_without_tls() {
    together(|on| {
        let nginx = Nginx::start()?;
        fs::write(nginx.root().join("file"), vec![b'n'; 50_000])?;
        let mut curl = curl::curl(&["--http2-prior-knowledge"])?;
        curl.arg(format!("http://{}/file", nginx.h2c));
        let plain = curl::fetch(curl)?;
        let both = on.receiver.both(ends(plain.local_port(), nginx.h2c))?;
        for span in [&both.client, &both.server] {
            assert_eq!(span.str("network.protocol.name"), "http", "{span:#?}");
            assert_eq!(span.str("network.protocol.version"), "2");
        }
        let mut curl = curl::curl(&["--http2", "--insecure", "--resolve"])?;
        let port = nginx.https.port();
        curl.arg(format!("{NAME}:{port}:127.0.0.1")).arg(format!("https://{NAME}:{port}/file"));
        let secret = curl::fetch(curl)?;
        assert_eq!(secret.status(), 200);
        let both = on.receiver.both(ends(secret.local_port(), nginx.https))?;
        both.assert_tied();
        for span in [&both.client, &both.server] {
            assert_eq!(span.attributes.strings("tap.tls.client.alpn"), ["h2", "http/1.1"]);
            assert_eq!(span.str("server.address"), NAME);
        }
        Ok(())
    });
}

#[test]
fn openssl_speaks_tls_1_2_to_openssl() {
    together(|on| {
        let tls = certificate()?;
        let mut server = command("openssl", "openssl")?;
        server.args(["s_server", "-accept", "127.0.0.1:0", "-www", "-naccept", "1", "-cert"]);
        server.arg(&tls.certificate).arg("-key").arg(&tls.key);
        let server = tests::process::Process::start(server)?;
        let port: u16 = server.stdout.wait_for("ACCEPT", PATIENCE, |line| {
            line.strip_prefix("ACCEPT ")?.rsplit_once(':')?.1.parse().ok()
        })?;
        let mut client = command("openssl", "openssl")?;
        client.args(["s_client", "-tls1_2", "-servername", NAME, "-alpn", "h2", "-connect"]);
        client.arg(format!("127.0.0.1:{port}")).stdin(std::process::Stdio::null());
        output(&mut client)?;
        let spans = on.receiver.wait_for("both spans", 2, PATIENCE, |span| span.has_port(port))?;
        for span in &spans {
            tests::expect::sound(span)?;
            assert_eq!(span.str("server.address"), NAME, "{span:#?}");
            assert_eq!(span.attributes.strings("tap.tls.client.alpn"), ["h2"]);
            assert_eq!(span.str("tls.protocol.version"), "1.2");
            assert_eq!(span.attributes.bool("tls.established"), Some(true));
            assert_eq!(span.str("process.executable.name"), "openssl");
        }
        assert_eq!(spans[0].trace_id, spans[1].trace_id);
        Ok(())
    });
}

#[test]
fn node_talks_to_node() {
    together(|on| {
        let server = node_server()?;
        let said = output(&mut node_client(&format!("http://127.0.0.1:{}/", server.port))?)?;
        assert_eq!(said.trim(), "done 200");
        let port = server.port;
        let spans = on.receiver.wait_for("both spans", 2, PATIENCE, |span| span.has_port(port))?;
        for span in &spans {
            tests::expect::sound(span)?;
            assert!(span.quality().is_empty(), "{span:#?}");
            assert_eq!(span.str("network.protocol.name"), "http");
            assert_eq!(span.str("process.executable.path"), node_executable()?);
        }
        let server_span = spans.iter().find(|it| it.str("connection.direction") == "ingress");
        let pid = server_span.and_then(|span| span.pid());
        assert_eq!(pid, Some(i64::from(server.process.pid())));
        Ok(())
    });
}

#[test]
fn git_clones_over_http() {
    together(|on| {
        let nginx = Nginx::start()?;
        let repository = nginx.root().join("project.git");
        let home = tempfile::tempdir()?;
        make_repository(home.path(), &repository)?;
        let mut clone = git(home.path())?;
        clone.args(["clone", "--quiet"]).arg(format!("http://{}/project.git", nginx.http));
        output(clone.arg(home.path().join("cloned")))?;
        assert!(home.path().join("cloned/file").is_file());
        let port = nginx.http.port();
        let spans = on.receiver.wait_for("git's spans", 2, PATIENCE, |span| span.has_port(port))?;
        for span in &spans {
            tests::expect::sound(span)?;
            let client = span.str("connection.direction") == "egress";
            let name = if client { "git-remote-http" } else { "nginx" };
            assert_eq!(span.str("process.executable.name"), name, "{span:#?}");
            assert_eq!(span.str("network.protocol.name"), "http");
        }
        Ok(())
    });
}

/// A bare repository with one commit, served as plain files.
fn make_repository(home: &std::path::Path, bare: &std::path::Path) -> Result<()> {
    let work = home.join("work");
    output(git(home)?.args(["init", "--quiet"]).arg(&work))?;
    fs::write(work.join("file"), "content\n")?;
    output(git(&work)?.args(["add", "file"]))?;
    output(git(&work)?.args(["commit", "--quiet", "--message", "first"]))?;
    output(git(home)?.args(["clone", "--quiet", "--bare"]).arg(&work).arg(bare))?;
    output(git(bare)?.arg("update-server-info")).map(drop)
}

/// `git` that reads nobody's settings.
fn git(directory: &std::path::Path) -> Result<Command> {
    let mut git = command("git", "git")?;
    git.current_dir(directory)
        .env("HOME", directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("no_proxy", "*");
    for role in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{role}_NAME"), "t").env(format!("GIT_{role}_EMAIL"), "t@example");
    }
    Ok(git)
}
