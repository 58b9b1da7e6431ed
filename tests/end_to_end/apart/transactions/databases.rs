//! Redis, PostgreSQL, MariaDB and Kafka with their own clients.

use std::collections::BTreeMap;

use tests::{
    programs::{kafka::Kafka, mariadb::MariaDb, postgres::Postgres, redis::Redis, tshark::Tshark},
    record::{Record, message, operation, query},
    scene::{Order, Scene, Turns},
    stage::apart,
};

/// Commands of Redis: strings, errors of both kinds, a transaction, another database, a blocked one.
const COMMANDS: &str = "SET k secret\nGET k\nget none\nLPUSH k x\nRPUSH list a b c\nLRANGE list 0 -1\n\
    NOSUCH a b\nGET\nMULTI\nINCR n\nSET m 1\nEXEC\nMULTI\nDISCARD\nSELECT 3\nSET k v\nCONFIG GET save\n\
    HSET h a 1 b 2\nHGETALL h\nHGET k f\nBLPOP none 0.05\nEVAL \"return 1\" 0\nPING\n";

/// `port COMMAND`.
fn command(record: &Record) -> Option<String> {
    Some(format!("{} {}", record.client(), operation(record)?))
}

/// The same of what Redis's monitor shows: what runs, and is not administration.
fn monitored(record: &Record) -> Option<String> {
    let administration = ["CONFIG"].contains(&operation(record)?);
    (record.str("error.type") != "ERR" && !administration).then(|| command(record))?
}

#[test]
fn redis_commands_are_what_redis_says_it_ran() {
    apart(|| {
        let redis = Redis::start()?;
        let port = redis.port;
        // It knows MONITOR already.
        let before = redis.statistics("commandstats")?;
        let scene = Scene::start(&[port])?;
        redis.run(COMMANDS)?;
        let mut pipelines = redis.client("redis-benchmark")?;
        pipelines.args(["-q", "-c", "2", "-n", "200", "-P", "10", "-t", "set,lpush"]);
        tests::programs::output(&mut pipelines)?;
        let shown = redis.monitored(421)?;
        let statistics = redis.statistics("commandstats")?;
        let errors = redis.statistics("errorstats")?;
        let evidence = scene.finish(&[(port, shown.len())])?;
        evidence.assert_agrees("MONITOR", port, monitored, Order::Connection, &shown);
        let tshark = Tshark { file: &evidence.capture, port };
        evidence.assert_agrees("tshark", port, command, Order::Connection, &tshark.redis()?);
        // Calls and failures of each command, errors of each kind.
        let ours = |it: &&Record| it.is_of("ingress", port);
        let mut calls = BTreeMap::<String, (u64, u64)>::new();
        let mut kinds = BTreeMap::<String, u64>::new();
        for record in evidence.live.iter().filter(ours) {
            let failed = !record.str("error.type").is_empty();
            let count = calls.entry(record.str("db.operation.name").into()).or_default();
            *count = (count.0 + 1, count.1 + u64::from(failed));
            if failed {
                *kinds.entry(record.str("error.type").into()).or_default() += 1;
            }
        }
        // What Redis does not know is an error, but no command.
        calls.remove("NOSUCH");
        let more = |(name, (calls, failed)): (&String, &(u64, u64))| {
            let (called, refused) = before.get(name).copied().unwrap_or_default();
            (name.clone(), (calls - called, failed - refused))
        };
        let theirs: BTreeMap<_, _> =
            statistics.iter().map(more).filter(|it| it.1.0 > 0 && it.0 != "INFO").collect();
        assert_eq!(calls, theirs);
        let errors: BTreeMap<_, _> =
            errors.into_iter().map(|(name, (count, _))| (name, count)).collect();
        assert_eq!(kinds, errors);
        evidence.assert_replayed("egress", Turns::Each, &[])
    });
}

/// Statements of PostgreSQL by the simple protocol.
const STATEMENTS: &str = "CREATE TABLE users (id int PRIMARY KEY, name text);\n\
    INSERT INTO users VALUES (1, 'secret'), (2, 'b');\n\
    SELECT * FROM users WHERE id IN (1, 2, 3);\nSELECT * FROM nosuch;\nSELECT 1/0;\nSELEC 1;\n\
    BEGIN;\nUPDATE users SET name = 'x' WHERE id = 1;\nSELECT nonsense;\nSELECT 1;\nROLLBACK;\n\
    SELECT 1\\; SELECT 2\\; SELECT name FROM users;\nINSERT INTO users VALUES (1, 'twice');\n\
    SELECT generate_series(1, 3000), repeat('x', 100);\nSELECT nothing;\nSELECT pg_sleep(0.5);\n\
    SELECT generate_series(1, 3000), repeat('y', 100);\nSELECT nothing;\nSET statement_timeout = 50;\nSELECT pg_sleep(5);\nRESET statement_timeout;\n\
    COPY users TO STDOUT;\nCOPY users FROM STDIN;\n10\tsecret\n11\tsecret\n\\.\n\
    COPY users FROM STDIN;\n10\ttwice\n\\.\nLISTEN chan;\nNOTIFY chan, 'secret';\nDELETE FROM users;\n";

/// [`query`] of what PostgreSQL logs: no statement that is only prepared.
fn ran(record: &Record) -> Option<String> {
    (operation(record)? != "PREPARE").then(|| query(record))?
}

#[test]
fn postgresql_statements_are_what_it_logged() {
    apart(|| {
        let postgres = Postgres::start()?;
        let port = postgres.port;
        let script = tempfile::NamedTempFile::new()?;
        std::fs::write(script.path(), "SELECT 1 + :client_id;\nSELECT repeat('x', 2000);\n")?;
        let path = script.path().display().to_string();
        let scene = Scene::start(&[port])?;
        postgres.client("psql", &["-q", "-o", "/dev/null"], STATEMENTS)?;
        for mode in ["simple", "extended", "prepared"] {
            let bench = ["-n", "-t", "10", "-c", "2", "-M", mode, "-f", &path];
            postgres.client("pgbench", &bench, "")?;
        }
        let logged = postgres.logged(27 + 3 * 40)?;
        let evidence = scene.finish(&[(port, logged.len())])?;
        evidence.assert_agrees("PostgreSQL", port, ran, Order::Connection, &logged);
        let tshark = Tshark { file: &evidence.capture, port };
        evidence.assert_agrees("tshark", port, query, Order::Connection, &tshark.postgres()?);
        evidence.assert_replayed("egress", Turns::Each, &[])
    });
}

/// Statements of MariaDB by the text protocol.
const TEXTS: &str = "CREATE DATABASE shop; USE shop;\n\
    CREATE TABLE users (id int PRIMARY KEY, name text);\n\
    INSERT INTO users VALUES (1, 'secret'), (2, \"sec'ret\");\nSELECT * FROM users;\n\
    SELECT * FROM nosuch;\nSELEC 1;\nINSERT INTO users VALUES (1, 'twice');\n\
    SELECT seq, repeat('x', 300) FROM seq_1_to_2000;\nUPDATE users SET name = 'it\\'s' WHERE id = 1;\n\
    DELIMITER //\nCREATE PROCEDURE two() BEGIN SELECT 1; SELECT name FROM users; END//\nDELIMITER ;\n\
    CALL two();\nSET @a = 1;\nDELETE FROM users WHERE id = 1;\n";

/// Prepared statements by the binary protocol; prints the codes of errors.
const PREPARED: &str = r#"
use DBI;
my $db = DBI->connect("DBI:mysql:database=shop;host=127.0.0.1;port=$ARGV[0];mysql_server_prepare=1",
    "root", "", {PrintError => 0, RaiseError => 0}) or die $DBI::errstr;
my $insert = $db->prepare("INSERT INTO users VALUES (?, ?)");
for my $id (10, 11, 10) {
    $insert->execute($id, "secret") or print $db->err, "\n";
}
my $select = $db->prepare("SELECT id, name FROM users WHERE id > ?");
for my $id (0, 10) {
    $select->execute($id);
    $select->fetchall_arrayref;
}
$db->prepare("SELECT * FROM nosuch WHERE id = ?") or print $db->err, "\n";
$db->ping;
$db->disconnect;
"#;

/// `- SELECT` of what stands in the general log: no pings, and no statement that could not be
/// prepared.
fn general(record: &Record) -> Option<String> {
    let operation = operation(record)?;
    let unprepared = operation == "PREPARE" && !record.str("error.type").is_empty();
    (operation != "PING" && !unprepared).then(|| format!("- {operation}"))
}

/// The codes of errors alone.
fn error(record: &Record) -> Option<String> {
    let code = record.str("error.type");
    (!code.is_empty()).then(|| code.to_owned())
}

#[test]
fn mariadb_statements_are_what_it_logged() {
    apart(|| {
        let mariadb = MariaDb::start()?;
        let port = mariadb.port;
        let scene = Scene::start(&[port])?;
        let texts = mariadb.run(TEXTS)?;
        let binary = mariadb.perl(PREPARED)?;
        let logged = mariadb.logged(23)?;
        let evidence = scene.finish(&[(port, logged.len())])?;
        evidence.assert_agrees("MariaDB", port, general, Order::Time, &logged);
        let codes: Vec<_> = texts.into_iter().chain(binary.lines().map(str::to_owned)).collect();
        evidence.assert_agrees("the clients", port, error, Order::Time, &codes);
        let tshark = Tshark { file: &evidence.capture, port };
        evidence.assert_agrees("tshark", port, query, Order::Connection, &tshark.mysql()?);
        evidence.assert_replayed("egress", Turns::Each, &[])
    });
}

/// [`message`] without its outcome, of which the broker logs nothing.
fn request(record: &Record) -> Option<String> {
    Some(message(record)?.rsplit_once(' ')?.0.to_owned())
}

#[test]
fn kafka_requests_are_what_the_broker_logged() {
    apart(|| {
        let kafka = Kafka::start()?;
        let port = kafka.port;
        let scene = Scene::start(&[port])?;
        kafka.client(&["-P", "-t", "orders"], "secret one\nsecret two\nsecret three\n")?;
        kafka.client(&["-P", "-t", "orders", "-K:"], "key:secret four\n")?;
        let idempotent = ["-P", "-t", "packed", "-z", "gzip", "-X", "enable.idempotence=true"];
        kafka.client(&idempotent, "packed\n")?;
        kafka.client(&["-L", "-t", "new"], "")?;
        let from_start = ["-C", "-t", "orders", "-o", "beginning", "-c", "4"];
        let consumed = kafka.client(&from_start, "")?;
        assert_eq!(consumed.lines().filter(|line| line.starts_with("secret")).count(), 4);
        // An offset that is not there is the broker's error.
        let far = ["-C", "-t", "orders", "-p", "0", "-o", "9999", "-e", "-X"];
        kafka.client(&[&far[..], &["auto.offset.reset=error"]].concat(), "")?;
        let group = ["-X", "auto.offset.reset=earliest", "-c", "4", "-G", "readers", "orders"];
        kafka.client(&group, "")?;
        let logged = kafka.logged("LeaveGroup", 1)?;
        let evidence = scene.finish(&[(port, logged.len())])?;
        evidence.assert_agrees("the broker", port, request, Order::Connection, &logged);
        let errors = evidence.told("ingress", port, message);
        assert!(errors.iter().any(|it| it.ends_with(" Fetch 1")), "{errors:#?}");
        let tshark = Tshark { file: &evidence.capture, port };
        evidence.assert_agrees("tshark", port, message, Order::Connection, &tshark.kafka()?);
        evidence.assert_replayed("egress", Turns::Each, &[])
    });
}
