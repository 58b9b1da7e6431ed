//! Fingerprints: the published examples, and what other programs say of real hellos.

use smallvec::SmallVec;

use super::*;
use crate::protocol::tls::fingerprint::{Offer, ja3s, ja3s_text};

fn ids(list: &str, radix: u32) -> Vec<u16> {
    list.split([',', '-'])
        .filter(|id| !id.is_empty())
        .map(|id| u16::from_str_radix(id, radix).expect("a number"))
        .collect()
}

#[test]
fn ja3_of_the_readme() {
    // https://github.com/salesforce/ja3, README.md
    for (text, hash) in [
        (
            "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0",
            "ada70206e40642a3e4461f35503241d5",
        ),
        ("769,4-5-10-9-100-98-3-6-19-18-99,,,", "de350869b8c85de67a350c8d186f11e6"),
    ] {
        let mut parts = text.split(',').map(|part| ids(part, 10));
        let mut next = || parts.next().expect("a part");
        let offer = Offer {
            legacy_version: next()[0],
            ciphers: next().into(),
            extensions: next().into(),
            groups: next().into(),
            point_formats: next().iter().map(|format| *format as u8).collect(),
            ..Offer::default()
        };
        assert_eq!((&offer.ja3_text()[..], &offer.ja3()[..]), (text, hash));
    }
}

/// The example of JA4.md, in wire order.
fn example() -> Offer {
    let ciphers = "1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035";
    let extensions =
        "001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015";
    Offer {
        legacy_version: 0x0303,
        version: 0x0304,
        ciphers: ids(ciphers, 16).into(),
        extensions: ids(extensions, 16).into(),
        signature_algorithms: ids("0403,0804,0401,0503,0805,0501,0806,0601", 16).into(),
        alpn: Some(b"h2"[..].into()),
        ..Offer::default()
    }
}

#[test]
fn ja4_of_the_specification() {
    // https://github.com/FoxIO-LLC/ja4, technical_details/JA4.md
    assert_eq!(example().ja4(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    assert_eq!(
        example().ja4_raw(),
        "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_\
         0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_\
         0403,0804,0401,0503,0805,0501,0806,0601"
    );
    let unsigned = Offer { signature_algorithms: SmallVec::new(), ..example() };
    assert_eq!(unsigned.ja4(), "t13d1516h2_8daaf6152771_6d807ffa2a79");
    assert!(
        unsigned
            .ja4_raw()
            .ends_with("_0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01")
    );
    assert_eq!(Offer::default().ja4(), "t00i000000_000000000000_000000000000");
    // Only what the first part tells already.
    let named = Offer { extensions: [0, 16].as_slice().into(), ..Offer::default() };
    assert_eq!(named.ja4(), "t00d000200_000000000000_000000000000");
}

#[test]
fn ja4_alpn_version_and_counts() {
    for (alpn, expected) in [
        (&b"h2"[..], "h2"),
        (b"http/1.1", "h1"),
        (b"", "00"),
        (b"x", "xx"),
        // The examples of JA4.md.
        (b"\xab", "ab"),
        (b"\xab\xcd", "ad"),
        (b"\x30\xab", "3b"),
        (b"\x30\x31\xab\xcd", "3d"),
        (b"\x30\xab\xcd\x31", "01"),
        (b"h2-", "6d"),
    ] {
        let offer = Offer { alpn: Some(alpn.into()), ..Offer::default() };
        assert_eq!(&offer.ja4()[8..10], expected, "{alpn:?}");
    }
    for (version, expected) in [
        (0x0304, "13"),
        (0x0303, "12"),
        (0x0302, "11"),
        (0x0301, "10"),
        (0x0300, "s3"),
        (0x0002, "s2"),
        (0x7f1c, "00"),
    ] {
        assert_eq!(&Offer { version, ..Offer::default() }.ja4()[1..3], expected);
    }
    let many =
        Offer { ciphers: vec![5; 100].into(), extensions: vec![7; 150].into(), ..Offer::default() };
    assert!(many.ja4().starts_with("t00i999900_"));
}

#[test]
fn ja3s_of_what_a_server_says() {
    assert_eq!(ja3s_text(769, 47, &[65281, 0]), "769,47,65281-0");
    assert_eq!(ja3s_text(771, 4865, &[]), "771,4865,");
    // TLS 1.3 with key_share and supported_versions, known far and wide.
    assert_eq!(ja3s(771, 4866, &[43, 51]), "15af977ce25de452b96affa2addb1036");
    assert_eq!(ja3s(771, 4865, &[51, 43]), "eb1d94daa7e0344597e756a1fb6e7054");
}

#[test]
fn real_hellos_have_the_fingerprints_that_other_programs_give_them() {
    // expect.py: tshark for JA3, JA3S, SNI and what was chosen, ja4plus for JA4.
    let table = std::fs::read_to_string(format!("{FIXTURES}/expected.tsv")).expect("a table");
    let mut seen = 0;
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.split('\t').collect();
        let [name, ja3, ja3s, ja4, _, server_name, cipher, group] = fields[..] else {
            panic!("{line}");
        };
        let told = course(name).play();
        let hello = told.client_hello.expect(name);
        assert_eq!(hello.ja3, ja3, "{name}");
        assert_eq!(hello.ja4, ja4, "{name}");
        assert_eq!(
            hello.server_name.unwrap_or_default(),
            server_name.to_ascii_lowercase(),
            "{name}"
        );
        let server = told.server_hello.unwrap_or_default();
        assert_eq!(server.ja3s, ja3s, "{name}");
        let number = |text: &str| match text.strip_prefix("0x") {
            Some(hex) => u16::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        let named = number(cipher).and_then(crate::protocol::tls::registry::cipher_name);
        assert_eq!(server.cipher, named, "{name}");
        let named = number(group).and_then(crate::protocol::tls::group_name);
        // tshark reads no ServerKeyExchange with a hint before the curve.
        if name != "tls12-ecdhe-psk" {
            assert_eq!(server.group, named, "{name}");
        }
        seen += 1;
    }
    assert_eq!(seen, courses().len());
}
