//! Rules (`capture.include`, `capture.exclude`): wanted and unwanted programs at the same time. nginx
//! serves in a network namespace of its own; curl and Python fetch from it, each time a program that
//! was just executed. Which connections there were is the programs' own word.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tests::{
    bpf::cgroup_root,
    netns::Namespace,
    process::Process,
    programs::{find, output},
    stage::{Session, apart},
    tap::Launch,
    wait::{self, PATIENCE},
    workload::silence,
};

/// Fetches of each program.
const FETCHES: usize = 4;
/// A user of the test's own.
const USER: &str = "12345";
const SERVER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// A namespace with nginx in it, one worker.
struct Scene {
    namespace: Namespace,
    home: tempfile::TempDir,
    /// What the programs under test are started by.
    wrapper: Vec<String>,
    _nginx: Process,
}

impl Scene {
    fn new() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let (namespace, home) = (Namespace::new()?, tempfile::tempdir()?);
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
        let place = home.path().display();
        let config = home.path().join("nginx.conf");
        let text = format!(
            "daemon off; user www-data; worker_processes 1; pid {place}/pid; error_log stderr;\n\
             events {{}}\n\
             http {{ access_log off; server {{ listen {SERVER}; return 200 'hello'; }} }}\n"
        );
        fs::write(&config, text)?;
        let mut nginx = namespace.command(&find("nginx", "nginx-light")?.display().to_string());
        nginx.arg("-p").arg(home.path()).arg("-c").arg(&config);
        let nginx = Process::start(nginx)?;
        wait::until_true("nginx to be up", PATIENCE, || {
            namespace.run(|| Ok(TcpStream::connect(SERVER)?)).is_ok()
        })
        .with_context(|| nginx.stderr.text())?;
        Ok(Self { namespace, home, wrapper: Vec::new(), _nginx: nginx })
    }

    /// A copy of curl by another name.
    fn copy(&self, name: &str) -> Result<PathBuf> {
        let copy = self.home.path().join(name);
        fs::copy(find("curl", "curl")?, &copy)?;
        Ok(copy)
    }

    /// Has `program` fetch [`FETCHES`] times, one process each; gives its ports.
    fn curl(&self, program: &Path) -> Result<Vec<u16>> {
        let mut ports = Vec::new();
        for _ in 0..FETCHES {
            let program = program.display().to_string();
            let mut words = self.wrapper.iter().chain([&program]);
            let mut curl = self.namespace.command(words.next().context("no program")?);
            curl.args(words);
            curl.args(["--silent", "--show-error", "--max-time", "20", "--output", "/dev/null"]);
            curl.args(["--write-out", "%{local_port}", &format!("http://{SERVER}/")]);
            ports.push(output(&mut curl)?.trim().parse()?);
        }
        Ok(ports)
    }

    /// As [`Self::curl`], of Python.
    fn python(&self) -> Result<Vec<u16>> {
        let script = format!(
            "import http.client\n\
             for _ in range({FETCHES}):\n\
             \x20 c = http.client.HTTPConnection('{}', {}); c.connect()\n\
             \x20 print(c.sock.getsockname()[1])\n\
             \x20 c.request('GET', '/'); assert c.getresponse().read() == b'hello'; c.close()\n",
            SERVER.ip(),
            SERVER.port()
        );
        let python = find("python3", "python3")?.display().to_string();
        let said = output(self.namespace.command(&python).args(["-c", &script]))?;
        said.lines().map(|line| Ok(line.parse()?)).collect()
    }

    /// Traces with `config` while both fetch.
    fn seen(
        &self,
        config: &str,
        first: &dyn Fn() -> Result<Vec<u16>>,
        second: &dyn Fn() -> Result<Vec<u16>>,
    ) -> Result<Seen> {
        let session = Session::with(&Launch::new().config(config))?;
        let (first, second) = (first()?, second()?);
        ensure!(first.len() == FETCHES && second.len() == FETCHES);
        // An owner that is told late is told by now.
        silence(Duration::from_millis(200));
        let mut filtered = 0;
        let spans = session.finish_with(|books| filtered = books.filtered.values().sum())?.spans();
        let of = |ports: &[u16]| {
            let client = |port: &u16| SocketAddr::new(SERVER.ip(), *port);
            let count = |is: &dyn Fn(SocketAddr) -> (SocketAddr, SocketAddr)| {
                let ends = ports.iter().map(client).map(is);
                let has =
                    |(local, peer)| spans.iter().filter(|it| it.is_between(local, peer)).count();
                ends.map(has).sum::<usize>()
            };
            [count(&|client| (client, SERVER)), count(&|client| (SERVER, client))]
        };
        let (first, second) = (of(&first), of(&second));
        // Nothing that was refused is told, and all of it is counted; others on the host may be too.
        let missing = 4 * FETCHES - first.iter().chain(&second).sum::<usize>();
        ensure!(filtered >= missing as u64, "{config}: {missing} are missing, {filtered} filtered");
        Ok((first, second))
    }
}

/// Spans of the client's ends and of the server's, of both programs.
type Seen = ([usize; 2], [usize; 2]);

const NONE: [usize; 2] = [0, 0];
const CLIENT: [usize; 2] = [FETCHES, 0];
const SERVED: [usize; 2] = [0, FETCHES];
const BOTH: [usize; 2] = [FETCHES, FETCHES];

/// `config`, and what is seen of the first program and of the second.
type Row<'a> = (&'a str, [usize; 2], [usize; 2]);

fn check(scene: &Scene, first: &Path, rows: &[Row<'_>]) -> Result<()> {
    for (rules, of_first, of_second) in rows {
        let config = format!("capture: {{ {rules} }}\n");
        let seen = scene.seen(&config, &|| scene.curl(first), &|| scene.python())?;
        assert_eq!(seen, (*of_first, *of_second), "{rules}");
    }
    Ok(())
}

#[test]
fn executables_choose_connections() {
    apart(|| {
        let scene = Scene::new()?;
        let copy = scene.copy("kurl")?;
        let path = format!("include: [{{ exe: '{}/*' }}]", scene.home.path().display());
        check(
            &scene,
            &copy,
            &[
                ("include: [{ exe: kurl }]", CLIENT, NONE),
                (&path, CLIENT, NONE),
                ("exclude: [{ exe: kurl }]", SERVED, BOTH),
                ("include: [{ exe: nginx }]", SERVED, SERVED),
                ("exclude: [{ exe: nginx }, { exe: 'python3*' }]", CLIENT, NONE),
                (
                    "include: [{ exe: kurl }, { exe: nginx }], exclude: [{ exe: '*/python3*' }]",
                    BOTH,
                    SERVED,
                ),
            ],
        )
    });
}

#[test]
fn users_choose_connections() {
    apart(|| {
        let mut scene = Scene::new()?;
        let setpriv = find("setpriv", "util-linux")?.display().to_string();
        let words = [&*setpriv, "--reuid", USER, "--regid", USER, "--clear-groups"];
        scene.wrapper = words.map(str::to_owned).to_vec();
        let curl = find("curl", "curl")?;
        // The worker becomes www-data without executing a file.
        let worker = output(std::process::Command::new("id").args(["-u", "www-data"]))?;
        let of_worker = format!("include: [{{ uid: {} }}]", worker.trim());
        check(
            &scene,
            &curl,
            &[
                ("include: [{ uid: 12345 }]", CLIENT, NONE),
                ("exclude: [{ uid: 12345 }]", SERVED, BOTH),
                ("exclude: [{ uid: 0 }]", BOTH, SERVED),
                (&of_worker, SERVED, SERVED),
                ("include: [{ uid: 12345, exe: curl }, { uid: 12345, exe: nginx }]", CLIENT, NONE),
            ],
        )
    });
}

/// A cgroup of the test's own; its children go first.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(wait::until_true("an empty cgroup", PATIENCE, || fs::remove_dir(&self.0).is_ok()));
    }
}

#[test]
fn cgroups_and_containers_choose_connections() {
    apart(|| {
        let mut scene = Scene::new()?;
        let top = Cgroup::new(cgroup_root()?.join(format!("tap-test-{}", std::process::id())))?;
        let id = "0a1b2c3d".repeat(8);
        // As Docker's systemd driver names it; made for each run, so the daemon has not met it.
        let container = Cgroup::new(top.0.join(format!("docker-{id}.scope")))?;
        let enter = format!("echo $$ > {}/cgroup.procs; exec \"$0\" \"$@\"", container.0.display());
        scene.wrapper = ["/bin/sh", "-c", &enter].map(str::to_owned).to_vec();
        let curl = find("curl", "curl")?;
        let pattern = format!("exclude: [{{ cgroup: '/tap-test-{}' }}]", std::process::id());
        check(
            &scene,
            &curl,
            &[
                ("include: [{ cgroup: '/tap-test-*' }]", CLIENT, NONE),
                (&pattern, SERVED, BOTH),
                ("include: [{ container: 0a1b2c }]", CLIENT, NONE),
                ("exclude: [{ container: 0a1b2c, port: 8080, direction: egress }]", SERVED, BOTH),
                ("exclude: [{ container: 0a1b2d }]", BOTH, BOTH),
                ("include: [{ condition: \"container.id.startsWith('0a1b')\" }]", CLIENT, NONE),
            ],
        )?;
        // One that begins while tap runs, and takes a connection in.
        let born = || {
            let late = Cgroup::new(top.0.join("late"))?;
            let enter = format!("echo $$ > {}/cgroup.procs; exec \"$0\" \"$@\"", late.0.display());
            let wrapper = ["/bin/sh", "-c", &enter].map(str::to_owned).to_vec();
            let inside = Scene { wrapper, ..Scene::new()? };
            let ports = inside.curl(&curl)?;
            Ok(ports)
        };
        let config = "capture: { include: [{ cgroup: '*/late' }] }\n";
        let seen = scene.seen(config, &born, &|| scene.python())?;
        assert_eq!(seen, (CLIENT, NONE));
        Ok(())
    });
}

#[test]
fn ends_and_conditions_choose_connections() {
    apart(|| {
        let scene = Scene::new()?;
        let copy = scene.copy("kurl")?;
        check(
            &scene,
            &copy,
            &[
                ("exclude: [{ direction: egress, remote_port: 8080 }]", SERVED, SERVED),
                ("include: [{ local_port: 8080, local_cidr: 127.0.0.0/8 }]", SERVED, SERVED),
                ("include: [{ port: 8080, remote_cidr: 192.0.2.0/24 }]", NONE, NONE),
                ("exclude: [{ port: 8080, condition: \"process.name == 'kurl'\" }]", SERVED, BOTH),
                ("include: [{ condition: \"connection.protocol == 'http'\" }]", BOTH, BOTH),
                (
                    "exclude: [{ condition: \"connection.protocol == 'http' && connection.direction == 'ingress'\" }]",
                    CLIENT,
                    CLIENT,
                ),
                (
                    "include: [{ condition: \"process.command_line.contains('--write-out')\" }]",
                    CLIENT,
                    NONE,
                ),
            ],
        )
    });
}
