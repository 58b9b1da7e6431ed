use super::*;
use crate::protocol::noise::Noise;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/starttls");

/// What a course comes to: how, whose bytes are the first of what follows, and those.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Waiting,
    Lost,
    Tls(Side, Vec<u8>),
    Other(Side, Vec<u8>),
}

fn play<'a>(upgrade: Upgrade, pieces: impl Iterator<Item = (Side, &'a [u8])>) -> Ended {
    let mut parser = StartTls::new(upgrade);
    let mut out = Vec::new();
    for (side, bytes) in pieces {
        let outcome = parser.take(side, Piece::Bytes(bytes), 0, &mut out);
        assert!(out.is_empty());
        match outcome {
            Outcome::Continue => {}
            Outcome::Lost => return Ended::Lost,
            Outcome::Switch { to, rest } => {
                let rest = bytes[bytes.len() - rest..].to_vec();
                return match to {
                    Next::Tls => Ended::Tls(side, rest),
                    _ => Ended::Other(side, rest),
                };
            }
        }
    }
    Ended::Waiting
}

const C: Side = Side::Client;
const S: Side = Side::Server;

/// Plays it whole and cut at every place, which must come to the same.
fn ends(upgrade: Upgrade, course: &[(Side, &[u8])]) -> Ended {
    let whole = play(upgrade, course.iter().copied());
    for (n, (_, bytes)) in course.iter().enumerate() {
        for cut in 0..=bytes.len() {
            let pieces = course.iter().enumerate().flat_map(|(at, (side, bytes))| {
                let (first, second) = bytes.split_at(if at == n { cut } else { 0 });
                [(*side, first), (*side, second)]
            });
            same(&play(upgrade, pieces), &whole, course, &format!("{upgrade:?} {n} at {cut}"));
        }
    }
    let bytewise = course.iter().flat_map(|(side, b)| b.chunks(1).map(move |b| (*side, b)));
    same(&play(upgrade, bytewise), &whole, course, &format!("{upgrade:?} byte by byte"));
    whole
}

/// The rest of a piece is shorter where the pieces are.
fn same(found: &Ended, whole: &Ended, course: &[(Side, &[u8])], what: &str) {
    match (found, whole) {
        (Ended::Tls(side, rest), Ended::Tls(whole_side, whole_rest))
        | (Ended::Other(side, rest), Ended::Other(whole_side, whole_rest)) => {
            assert_eq!(side, whole_side, "{what}: {course:?}");
            assert!(whole_rest.starts_with(rest), "{what}: {course:?}");
        }
        _ => assert_eq!(found, whole, "{what}: {course:?}"),
    }
}

fn tls(side: Side, rest: &[u8]) -> Ended {
    Ended::Tls(side, rest.to_vec())
}

#[test]
fn what_openssl_says_to_upgrade_ends_at_its_hello() {
    for (name, upgrade) in [
        ("smtp", Upgrade::Smtp),
        ("imap", Upgrade::Imap),
        ("pop3", Upgrade::Pop3),
        ("ftp", Upgrade::Ftp),
        ("xmpp", Upgrade::Xmpp),
        ("postgres", Upgrade::PostgreSql),
        ("mysql", Upgrade::MySql),
        ("ldap", Upgrade::Ldap),
    ] {
        let text = std::fs::read_to_string(format!("{FIXTURES}/{name}.pieces")).expect(name);
        let said: Vec<_> = text
            .lines()
            .map(|line| {
                let (side, hex) = line.split_at(2);
                let bytes: Vec<u8> = (0..hex.len() / 2)
                    .map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).expect("hexadecimal"))
                    .collect();
                (if side == "c " { C } else { S }, bytes)
            })
            .collect();
        let (hello, before) = said.split_last().expect("pieces");
        assert!(hello.0 == C && hello.1.starts_with(&[22, 3, 1]), "{name}");
        let before: Vec<_> = before.iter().map(|(side, bytes)| (*side, &bytes[..])).collect();
        let last = before.last().expect("a piece").0;
        assert_eq!(ends(upgrade, &before), tls(last, b""), "{name}");
        assert_eq!(ends(upgrade, &before[..before.len() - 1]), Ended::Waiting, "{name}");
        // The ClientHello in the same piece (MySQL's client waits for nothing).
        if upgrade == Upgrade::MySql {
            let together = [before[1].1, &hello.1].concat();
            assert_eq!(ends(upgrade, &[before[0], (C, &together)]), tls(C, &hello.1));
        }
    }
}

#[test]
fn lines_that_agree_and_lines_that_do_not() {
    for (upgrade, asks, answer, ended) in [
        (Upgrade::Smtp, &b"starttls \r\n"[..], &b"220 go\r\n"[..], tls(S, b"")),
        (Upgrade::Smtp, b"STARTTLS\n", b"220\n", tls(S, b"")),
        (Upgrade::Smtp, b"STARTTLS\r\n", b"220-go\r\n220 on\r\nxyz", tls(S, b"xyz")),
        // Pipelined: the answer to EHLO is not that to STARTTLS.
        (Upgrade::Smtp, b"EHLO x\r\nSTARTTLS\r\n", b"250-x\r\n250 y\r\n220 z\r\n", tls(S, b"")),
        (Upgrade::Smtp, b"STARTTLS\r\n", b"454 not now\r\n220 what\r\n", Ended::Waiting),
        (Upgrade::Smtp, b"EHLO STARTTLS\r\n", b"220 x\r\n", Ended::Waiting),
        (Upgrade::Smtp, b"NOOP\r\n", b"220 x\r\n", Ended::Waiting),
        (Upgrade::Imap, b"a1 starttls\r\n", b"* OK still\r\na1 OK go\r\n", tls(S, b"")),
        (Upgrade::Imap, b"a1 STARTTLS\r\n", b"a1 NO never\r\na1 OK x\r\n", Ended::Waiting),
        (Upgrade::Imap, b"a1 STARTTLS\r\n", b"a2 OK other\r\n", Ended::Waiting),
        (Upgrade::Imap, b"a1 STARTTLS\r\n", b"a12 OK other\r\n", Ended::Waiting),
        (Upgrade::Imap, b"a1 STARTTLS now\r\n", b"a1 OK\r\n", Ended::Waiting),
        (Upgrade::Pop3, b"CAPA\r\nSTLS\r\n", b"USER\r\n.\r\n+OK go\r\n", tls(S, b"")),
        (Upgrade::Pop3, b"STLS\r\n", b"-ERR no\r\n+OK\r\n", Ended::Waiting),
        (Upgrade::Pop3, b"STLS\r\n", b"+OKAY\r\n", Ended::Waiting),
        (Upgrade::Ftp, b"auth ssl\r\n", b"234 go\r\n", tls(S, b"")),
        (Upgrade::Ftp, b"AUTH GSSAPI\r\n", b"234 go\r\n", Ended::Waiting),
        (Upgrade::Ftp, b"AUTH TLS\r\n", b"534 no\r\n234 x\r\n", Ended::Waiting),
        (Upgrade::Xmpp, b"<starttls x='y'></starttls>", b"<proceed x='y'></proceed>", tls(S, b"")),
        (Upgrade::Xmpp, b"<starttls/>", b" <failure/></stream:stream>", Ended::Waiting),
        (Upgrade::Xmpp, b"<starttlsnot/>", b"<proceed/>", Ended::Waiting),
    ] {
        assert_eq!(ends(upgrade, &[(C, asks), (S, answer)]), ended, "{upgrade:?} {asks:?}");
        // Not before it was asked.
        let turned = ends(upgrade, &[(S, answer), (C, asks)]);
        assert_eq!(turned, Ended::Waiting, "{upgrade:?} {asks:?}");
    }
}

#[test]
fn binary_protocols_that_do_not_upgrade() {
    const SSL: &[u8] = &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    const GSS: &[u8] = &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
    let postgresql = |course: &[(Side, &[u8])]| ends(Upgrade::PostgreSql, course);
    assert_eq!(postgresql(&[(C, SSL), (S, b"N")]), Ended::Other(S, b"".to_vec()));
    assert_eq!(postgresql(&[(C, GSS), (S, b"N"), (C, SSL), (S, b"S")]), tls(S, b""));
    assert_eq!(postgresql(&[(C, GSS), (S, b"G")]), Ended::Lost);
    assert_eq!(postgresql(&[(C, b"\0\0\0\x08\0\x03\0\0")]), Ended::Lost);
    assert_eq!(postgresql(&[(C, SSL), (S, b"E")]), Ended::Lost);
    assert_eq!(postgresql(&[(S, b"S")]), Ended::Lost);

    // A HandshakeResponse41 of a client without TLS, and one that has it but sends its name.
    let mysql = |packet: &[u8]| ends(Upgrade::MySql, &[(S, b"\x01\0\0\0\x0a"), (C, packet)]);
    assert_eq!(mysql(&[&[40, 0, 0, 1, 0x85, 0xa6][..], &[0; 38]].concat()), Ended::Lost);
    assert_eq!(mysql(&[&[40, 0, 0, 1, 0x85, 0xae][..], &[0; 38]].concat()), Ended::Lost);
    assert_eq!(mysql(&[&[32, 0, 0, 1, 0x85, 0xa6][..], &[0; 30]].concat()), Ended::Lost);
    assert_eq!(mysql(&[&[32, 0, 0, 1, 0x85, 0xae][..], &[0; 30]].concat()), tls(C, b""));

    let request = b"0\x1d\x02\x01\x01w\x18\x80\x161.3.6.1.4.1.1466.20037";
    let ldap = |answer: &[u8]| ends(Upgrade::Ldap, &[(C, request), (S, answer)]);
    let fine = b"0\x0c\x02\x01\x01x\x07\n\x01\x00\x04\x00\x04\x00";
    assert_eq!(ldap(fine), tls(S, b""));
    // Long forms of the lengths, as OpenLDAP and Active Directory write them.
    assert_eq!(
        ldap(b"0\x84\0\0\0\x10\x02\x01\x01x\x84\0\0\0\x07\n\x01\0\x04\0\x04\0?"),
        tls(S, b"?")
    );
    assert_eq!(ldap(b"0\x0c\x02\x01\x01x\x07\n\x01\x35\x04\x00\x04\x00"), Ended::Waiting);
    assert_eq!(ldap(b"0\x0c\x02\x01\x02a\x07\n\x01\x00\x04\x00\x04\x00"), Ended::Waiting);
    assert_eq!(ldap(b"0\x80\x02\x01"), Ended::Lost);
    assert_eq!(ldap(b"HTTP"), Ended::Lost);
    // A bind before it.
    let bind = b"0\x0c\x02\x01\x01`\x07\x02\x01\x03\x04\0\x80\0";
    assert_eq!(ends(Upgrade::Ldap, &[(C, bind), (C, request), (S, fine)]), tls(S, b""));
    assert_eq!(ends(Upgrade::Ldap, &[(C, bind), (S, fine)]), Ended::Waiting);
}

#[test]
fn a_gap_or_too_much_of_something_else_is_the_end() {
    let mut parser = StartTls::new(Upgrade::Smtp);
    let mut out = Vec::new();
    assert!(matches!(parser.take(C, Piece::Missing(1), 0, &mut out), Outcome::Lost));
    for upgrade in [Upgrade::Smtp, Upgrade::Imap, Upgrade::Xmpp, Upgrade::MySql] {
        let mut parser = StartTls::new(upgrade);
        assert!(matches!(parser.take(S, Piece::End, 0, &mut out), Outcome::Continue));
        let said = [b'x'; 1000];
        let pieces = (0..100).find(|_| {
            let outcome = parser.take(S, Piece::Bytes(&said), 0, &mut out);
            assert!(parser.memory() <= 2 * HEAD_MAX, "{upgrade:?}");
            matches!(outcome, Outcome::Lost)
        });
        assert_eq!(pieces, Some(16), "{upgrade:?}");
    }
}

#[test]
fn noise_is_never_trouble() {
    let mut noise = Noise::new(0x7461_7004);
    let seeds: [&[u8]; 4] = [
        b"\x00\x29STARTTLS\r\n\x21220 go\r\n",
        b"\x05\x20\0\0\0\x08\x04\xd2\x16\x2f\x05S",
        b"\x07\x7c0\x1d\x02\x01\x01w\x18\x80\x161.3.6.1.4.1.1466.20037\x390\x0c\x02\x01\x01x\x07\n\x01\0\x04\0\x04\0",
        b"\x06\x90 \0\0\x01\x85\xae\x7f\0\0\0\0\x01!\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ];
    let mut bytes = Vec::new();
    for n in 0..80_000 {
        bytes.clear();
        if n % 2 == 0 {
            bytes.extend_from_slice(seeds[n / 2 % seeds.len()]);
            noise.stir(&mut bytes);
        } else {
            bytes.extend((0..noise.below(96)).map(|_| noise.byte()));
        }
        fuzz_starttls(&bytes);
    }
}
