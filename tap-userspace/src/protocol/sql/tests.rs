//! Statements and what is read from them.
#![forbid(unsafe_code)]

use super::*;
use crate::protocol::noise::Noise;

const PG: Reading = Reading { dialect: Dialect::Postgres, backslash: false, text: true };
const MY: Reading = Reading { dialect: Dialect::Mysql, backslash: true, text: true };

/// Statement; operation; table (`-`: none); text.
#[rustfmt::skip]
const BOTH: &[(&str, &str, &str, &str)] = &[
    ("SELECT 1", "SELECT", "-", "SELECT ?"),
    ("select * from users where id = 7;", "SELECT", "users", "select * from users where id = ?;"),
    ("  SELECT\n\ta,  b FROM\r\n public.users  ", "SELECT", "public.users", "SELECT a, b FROM public.users"),
    ("SELECT 'it''s', 1.5e-3, -2, .5, 0xff FROM t1", "SELECT", "t1", "SELECT ?, ?, -?, ?, ? FROM t1"),
    ("SELECT x'ff', N'a', b'01' FROM t", "SELECT", "t", "SELECT ?, ?, ? FROM t"),
    ("SELECT a/* secret */b -- 'secret\nFROM t", "SELECT", "t", "SELECT a b FROM t"),
    ("/* app='x' */ SELECT * FROM t", "SELECT", "t", "SELECT * FROM t"),
    ("INSERT INTO orders (a, b) VALUES (1, 'x'), (2, 'y')", "INSERT", "orders", "INSERT INTO orders (a, b) VALUES (?, ?), (?, ?)"),
    ("insert into t(a) select b from u", "INSERT", "t", "insert into t(a) select b from u"),
    ("UPDATE t SET a = 'x' WHERE b IN (1, 2, 3) AND c IN ('a')", "UPDATE", "t", "UPDATE t SET a = ? WHERE b IN (?) AND c IN (?)"),
    ("SELECT 1 FROM t WHERE a in(1,-2,3) AND b NOT IN (SELECT c FROM u WHERE d IN (1,2))", "SELECT", "t", "SELECT ? FROM t WHERE a in(?) AND b NOT IN (SELECT c FROM u WHERE d IN (?))"),
    ("SELECT 1 FROM t WHERE (a, b) IN ((1, 2), (3, 4)) AND c IN (1, d, 2)", "SELECT", "t", "SELECT ? FROM t WHERE (a, b) IN ((?, ?), (?, ?)) AND c IN (?, d, ?)"),
    ("DELETE FROM t WHERE a = 1", "DELETE", "t", "DELETE FROM t WHERE a = ?"),
    ("(SELECT * FROM a) UNION (SELECT * FROM b)", "SELECT", "a", "(SELECT * FROM a) UNION (SELECT * FROM b)"),
    ("SELECT * FROM (SELECT * FROM inner_t) x", "SELECT", "inner_t", "SELECT * FROM (SELECT * FROM inner_t) x"),
    ("SELECT EXTRACT(YEAR FROM ts), TRIM('x' FROM y) FROM t", "SELECT", "t", "SELECT EXTRACT(YEAR FROM ts), TRIM(? FROM y) FROM t"),
    ("SELECT a IS DISTINCT FROM b FROM t", "SELECT", "t", "SELECT a IS DISTINCT FROM b FROM t"),
    ("SELECT * FROM generate_series(1, 10)", "SELECT", "-", "SELECT * FROM generate_series(?, ?)"),
    ("SELECT a FROM t FOR UPDATE", "SELECT", "t", "SELECT a FROM t FOR UPDATE"),
    ("WITH x AS (SELECT * FROM t), y AS (VALUES (1)) INSERT INTO u SELECT * FROM x", "INSERT", "t", "WITH x AS (SELECT * FROM t), y AS (VALUES (?)) INSERT INTO u SELECT * FROM x"),
    ("CREATE TABLE IF NOT EXISTS s.t (a int DEFAULT 5)", "CREATE", "s.t", "CREATE TABLE IF NOT EXISTS s.t (a int DEFAULT ?)"),
    ("CREATE UNIQUE INDEX i ON t (a)", "CREATE", "t", "CREATE UNIQUE INDEX i ON t (a)"),
    ("DROP TABLE IF EXISTS a, b", "DROP", "a", "DROP TABLE IF EXISTS a, b"),
    ("ALTER TABLE t ADD c int", "ALTER", "t", "ALTER TABLE t ADD c int"),
    ("CREATE USER u PASSWORD 'secret'", "CREATE", "-", "CREATE USER u PASSWORD ?"),
    ("TRUNCATE TABLE t", "TRUNCATE", "t", "TRUNCATE TABLE t"),
    ("BEGIN", "BEGIN", "-", "BEGIN"),
    ("BEGIN; UPDATE t SET a = 1; COMMIT;", "BATCH", "t", "BEGIN; UPDATE t SET a = ?; COMMIT;"),
    ("INSERT INTO t VALUES (1);INSERT INTO t VALUES (2)", "BATCH INSERT", "t", "INSERT INTO t VALUES (?);INSERT INTO t VALUES (?)"),
    ("SELECT 'unterminated secret", "SELECT", "-", "SELECT ?"),
    ("SELECT * FROM t WHERE a = 'x' /* unterminated secret", "SELECT", "t", "SELECT * FROM t WHERE a = ?"),
    ("", "", "-", ""),
    (" ; ;", "", "-", "; ;"),
    ("7 up", "", "-", "? up"),
    ("SELECT * FROM a.", "SELECT", "-", "SELECT * FROM a."),
    ("EXPLAIN SELECT * FROM t", "EXPLAIN", "t", "EXPLAIN SELECT * FROM t"),
    ("SELECT naïve FROM größe", "SELECT", "größe", "SELECT naïve FROM größe"),
];
#[rustfmt::skip]
const POSTGRES: &[(&str, &str, &str, &str)] = &[
    (r#"SELECT "a'b" FROM "My ""S""".t"#, "SELECT", r#"My "S".t"#, r#"SELECT "a'b" FROM "My ""S""".t"#),
    ("SELECT * FROM t WHERE a = $1 AND b IN ($2, $3)", "SELECT", "t", "SELECT * FROM t WHERE a = $1 AND b IN ($2)"),
    ("SELECT $$it's secret$$, $t$a $$ b$t$, $1 FROM t", "SELECT", "t", "SELECT ?, ?, $1 FROM t"),
    ("SELECT E'it\\'s secret', '\\' FROM t", "SELECT", "t", "SELECT ?, ? FROM t"),
    ("SELECT /* a /* b */ 'c */ 1", "SELECT", "-", "SELECT ?"),
    ("SELECT a::text, '{1}'::int[] FROM ONLY t", "SELECT", "t", "SELECT a::text, ?::int[] FROM ONLY t"),
    ("COPY t (a, b) FROM STDIN", "COPY", "t", "COPY t (a, b) FROM STDIN"),
    ("COPY (SELECT * FROM t) TO STDOUT", "COPY", "t", "COPY (SELECT * FROM t) TO STDOUT"),
    ("REFRESH MATERIALIZED VIEW CONCURRENTLY v", "REFRESH", "v", "REFRESH MATERIALIZED VIEW CONCURRENTLY v"),
    ("SELECT a--b\n-1", "SELECT", "-", "SELECT a -?"),
    ("SELECT j -> 'k' ->> 'secret' FROM t", "SELECT", "t", "SELECT j -> ? ->> ? FROM t"),
];
#[rustfmt::skip]
const MYSQL: &[(&str, &str, &str, &str)] = &[
    ("SELECT `a``b`, \"it's\\\" secret\" FROM `db`.`my``t`", "SELECT", "db.my`t", "SELECT `a``b`, ? FROM `db`.`my``t`"),
    ("SELECT 'it\\'s secret', 1 # 'x\n FROM t", "SELECT", "t", "SELECT ?, ? FROM t"),
    ("SELECT 5--1 FROM t -- x", "SELECT", "t", "SELECT ?--? FROM t"),
    ("/*!40101 SET NAMES 'utf8' */;", "SET", "-", "SET NAMES ? ;"),
    ("/*M!100100 SELECT */ 1", "SELECT", "-", "SELECT ?"),
    ("REPLACE t VALUES (?, 1)", "REPLACE", "t", "REPLACE t VALUES (?, ?)"),
    ("INSERT IGNORE INTO t SET a = _utf8'x'", "INSERT", "t", "INSERT IGNORE INTO t SET a = _utf8?"),
    ("LOAD DATA LOCAL INFILE '/tmp/secret' INTO TABLE t", "LOAD", "t", "LOAD DATA LOCAL INFILE ? INTO TABLE t"),
    ("USE `other`", "USE", "other", "USE `other`"),
    ("SET @a = 'x', @@session.sql_mode = ''", "SET", "-", "SET @a = ?, @@session.sql_mode = ?"),
    ("CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2 FROM t; END", "CREATE", "-", "CREATE PROCEDURE p() BEGIN SELECT ?; SELECT ? FROM t; END"),
    ("UPDATE LOW_PRIORITY t SET a = 1", "UPDATE", "t", "UPDATE LOW_PRIORITY t SET a = ?"),
];

#[test]
fn statements_are_read_by_their_dialect() {
    let both = BOTH.iter().flat_map(|case| [(case, PG), (case, MY)]);
    let own = POSTGRES.iter().map(|case| (case, PG)).chain(MYSQL.iter().map(|case| (case, MY)));
    for ((sql, operation, target, text), how) in both.chain(own) {
        let statement = read(sql.as_bytes(), false, how);
        let shown = (statement.operation.as_str(), statement.target.as_deref().unwrap_or("-"));
        assert_eq!(shown, (*operation, *target), "{sql} {how:?}");
        assert_eq!(statement.text.as_deref(), Some(*text), "{sql} {how:?}");
    }
}

#[test]
fn no_value_is_told_wherever_a_text_is_cut() {
    for (sql, ..) in BOTH.iter().chain(POSTGRES).chain(MYSQL) {
        for end in 0..sql.len() {
            for how in [PG, MY] {
                let foreign = POSTGRES.iter().chain(MYSQL).any(|case| case.0 == *sql);
                let text = read(&sql.as_bytes()[..end], true, how).text.unwrap_or_default();
                assert!(foreign || !text.contains("secret"), "{sql} to {end}: {text}");
            }
        }
    }
}

#[test]
fn no_text_unless_wanted() {
    let statement = read(b"SELECT 1", false, Reading { text: false, ..PG });
    assert_eq!(statement.text, None);
}

#[test]
fn backslashes_count_where_the_server_says_so() {
    let sql = br"SELECT 'a\' OR 'secret' FROM t";
    let plain = read(sql, false, PG).text.expect("a text");
    assert_eq!(plain, "SELECT ? OR ? FROM t");
    let escaped = read(br"SELECT 'a\'secret' FROM t", false, Reading { backslash: true, ..PG });
    assert_eq!(escaped.text.as_deref(), Some("SELECT ? FROM t"));
}

#[test]
fn what_is_cut_or_long_is_bounded() {
    assert_eq!(read(b"SELECT * FROM user", true, PG).target, None);
    assert_eq!(read(b"SELECT * FROM user ", true, PG).target.as_deref(), Some("user"));
    let long = format!("SELECT {} FROM t", "c, ".repeat(1000));
    let statement = read(long.as_bytes(), false, PG);
    assert_eq!(statement.target.as_deref(), Some("t"));
    assert_eq!(statement.text.map(|text| text.len()), Some(TEXT_MAX));
    let name = read(format!("TABLE {}", "ä".repeat(200)).as_bytes(), false, PG).target;
    assert_eq!(name.map(|name| name.len()), Some(NAME_MAX));
    assert_eq!(read(&[b'('; 10_000], false, PG).count, 0);
}

#[test]
fn noise_is_harmless() {
    let mut noise = Noise::new(7);
    for round in 0..20_000 {
        let cases = [BOTH, POSTGRES, MYSQL][round % 3];
        let mut bytes = cases[round % cases.len()].0.as_bytes().to_vec();
        noise.stir(&mut bytes);
        fuzz_sql(&bytes);
    }
}
