//! The public HPACK stories, and what they do not tell: hostile blocks and unknown tables.

use super::*;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<(Fields, bool), Broken> {
    let mut fields = vec![];
    let skipped =
        decoder.decode(block, |name, value| fields.push((name.to_vec(), value.to_vec())))?;
    Ok((fields, skipped))
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

struct Case {
    story: String,
    wire: Vec<u8>,
    fields: Fields,
    size: Option<usize>,
}

fn stories(name: &str) -> Vec<Case> {
    use std::io::Read as _;
    let path = format!("{}/../tests/fixtures/hpack/{name}.jsonl.gz", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text.lines()
        .map(|line| {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |value: &serde_json::Value| value.as_str().unwrap().as_bytes().to_vec();
            let fields = case["headers"].as_array().unwrap().iter();
            Case {
                story: case["story"].as_str().unwrap().to_owned(),
                wire: unhex(case["wire"].as_str().unwrap()),
                fields: fields.map(|field| (text(&field[0]), text(&field[1]))).collect(),
                size: case["header_table_size"].as_u64().map(|size| size as usize),
            }
        })
        .collect()
}

const ALL: [&str; 5] = [
    "go-hpack",
    "haskell-http2-static-huffman",
    "nghttp2-change-table-size",
    "nghttp2",
    "node-http2-hpack",
];

#[test]
fn each_public_story_is_decoded() {
    let mut blocks = 0;
    for name in ALL {
        let mut decoder = Decoder::default();
        let mut story = String::new();
        for case in stories(name) {
            if story != case.story {
                decoder = Decoder::default();
                story.clone_from(&case.story);
            }
            if let Some(size) = case.size {
                decoder.allow(size);
            }
            let result = decode(&mut decoder, &case.wire);
            assert_eq!(result, Ok((case.fields, false)), "{name} {story}");
            blocks += 1;
        }
    }
    assert_eq!(blocks, 6746);
}

#[test]
fn a_table_joined_in_the_middle_of_a_story_never_tells_a_wrong_field() {
    let (mut skipped_blocks, mut whole_blocks) = (0, 0);
    for name in ALL {
        let cases = stories(name);
        for story in cases.chunk_by(|a, b| a.story == b.story) {
            for from in [1, 2, 5, story.len() / 2] {
                let mut decoder = Decoder::default();
                decoder.lose();
                decoder.allow(usize::MAX);
                for case in story.iter().skip(from) {
                    let (fields, skipped) = decode(&mut decoder, &case.wire).unwrap();
                    if skipped {
                        skipped_blocks += 1;
                        // What is told is a part of what was said, in order.
                        let mut said = case.fields.iter();
                        let part = fields.iter().all(|field| said.any(|other| other == field));
                        assert!(part, "{name} {}", case.story);
                    } else {
                        whole_blocks += 1;
                        assert_eq!(fields, case.fields, "{name} {}", case.story);
                    }
                }
            }
        }
    }
    assert!(skipped_blocks > 500 && whole_blocks > 5000, "{skipped_blocks} {whole_blocks}");
}

#[test]
fn broken_blocks_are_errors() {
    let cases: [(&str, &[u8]); 12] = [
        ("index 0", &[0x80]),
        ("an index beyond the table", &[0xbe]),
        ("a name's index beyond the table", &[0x7e, 0x01, b'x']),
        ("an integer that does not end", &[0xff, 0x80, 0x80]),
        ("an integer of too many bytes", &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]),
        ("an integer too large", &[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ("a string beyond the block", &[0x40, 0x05, b'a']),
        ("no string", &[0x40]),
        ("no value", &[0x40, 0x01, b'a']),
        ("broken Huffman code", &[0x40, 0x81, 0xff, 0x01, b'x']),
        ("a size update beyond what is allowed", &[0x3f, 0xe2, 0x1f]),
        ("a size update after a field", &[0x82, 0x20]),
    ];
    for (what, block) in cases {
        assert_eq!(decode(&mut Decoder::default(), block), Err(Broken), "{what}");
    }
    assert_eq!(decode(&mut Decoder::default(), &[]), Ok((vec![], false)));
    assert_eq!(decode(&mut Decoder::default(), &[0x20, 0x3f, 0xe1, 0x1f]), Ok((vec![], false)));
}

#[test]
fn after_an_error_the_table_is_unknown_and_heals() {
    let mut decoder = Decoder::default();
    decode(&mut decoder, &[0x40, 1, b'a', 1, b'1']).unwrap();
    assert_eq!(decode(&mut decoder, &[0x80]), Err(Broken));
    // Its entry is unknown now; a name's too, but not for who comes after.
    assert_eq!(decode(&mut decoder, &[0xbe]), Ok((vec![], true)));
    assert_eq!(decode(&mut decoder, &[0x7e, 1, b'2']), Ok((vec![], true)));
    assert_eq!(decode(&mut decoder, &[0xbe]), Ok((vec![], true)));
    let field = (b"b".to_vec(), b"3".to_vec());
    let known = Ok((vec![field.clone()], false));
    assert_eq!(decode(&mut decoder, &[0x40, 1, b'b', 1, b'3']), known);
    assert_eq!(decode(&mut decoder, &[0xbe]), known);
    assert_eq!(decode(&mut decoder, &[0xbe, 0xbf]), Ok((vec![field], true)));
}

#[test]
fn entries_go_as_rfc_7541_says() {
    // Appendix C.5: a table of 256 bytes.
    let mut decoder = Decoder::default();
    decode(&mut decoder, &[0x3f, 0xe1, 0x01]).unwrap();
    let first = "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d";
    let fields = decode(&mut decoder, &unhex(first)).unwrap().0;
    assert_eq!(fields[0], (b":status".to_vec(), b"302".to_vec()));
    let fields = decode(&mut decoder, &unhex("4803333037c1c0bf")).unwrap().0;
    assert_eq!(fields[0], (b":status".to_vec(), b"307".to_vec()));
    assert_eq!(fields[3], (b"location".to_vec(), b"https://www.example.com".to_vec()));
    // `:status 302` went.
    assert_eq!(decode(&mut decoder, &[0xc2]), Err(Broken));

    // An entry larger than the table empties it (§4.4).
    let mut decoder = Decoder::default();
    decode(&mut decoder, &[0x40, 1, b'a', 1, b'1']).unwrap();
    let mut large = vec![0x40, 0x7f, 0xff, 0x3e];
    large.resize(large.len() + 0x7f + 0x7f + (0x3e << 7), b'n');
    large.truncate(4 + 0x7f + 0x7f + (0x3e << 7));
    large.push(0);
    decode(&mut decoder, &large).unwrap();
    assert_eq!(decode(&mut decoder, &[0xbe]), Err(Broken));
}

#[test]
fn an_entry_may_repeat_the_name_of_the_one_that_it_drives_out() {
    let mut decoder = Decoder::default();
    // Room for one entry of 100 bytes.
    decode(&mut decoder, &[0x3f, 100 - 31]).unwrap();
    let mut block = vec![0x40, 4, b'n', b'a', b'm', b'e', 60];
    block.extend([b'v'; 60]);
    decode(&mut decoder, &block).unwrap();
    let field = (b"name".to_vec(), vec![b'w'; 60]);
    let mut block = vec![0x7e, 60];
    block.extend([b'w'; 60]);
    assert_eq!(decode(&mut decoder, &block), Ok((vec![field.clone()], false)));
    assert_eq!(decode(&mut decoder, &[0xbe]), Ok((vec![field], false)));
    assert_eq!(decode(&mut decoder, &[0xbf]), Err(Broken));
}

#[test]
fn memory_and_work_are_bounded_whatever_is_indexed() {
    let mut decoder = Decoder::default();
    decoder.allow(usize::MAX);
    // The largest update that can be said: the table stays at its cap.
    decode(&mut decoder, &[0x3f, 0xff, 0xff, 0xff, 0x7f]).unwrap();
    let mut noise = crate::protocol::noise::Noise::new(7);
    let mut most = 0;
    for round in 0..20_000 {
        let len = match round % 3 {
            0 => noise.below(8),
            1 => noise.below(100),
            _ => noise.below(9000),
        };
        let mut block = vec![0x40, 1, noise.byte(), 0x7f];
        let mut rest = len;
        while rest >= 128 {
            block.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        block.push(rest as u8);
        block.resize(block.len() + len as usize + 127, b'v');
        decode(&mut decoder, &block).unwrap();
        most = most.max(decoder.memory());
    }
    assert!(most > CAP && most < 117 << 10, "{most}");
    // Beyond the cap there may be more entries, that are not known.
    assert_eq!(decode(&mut decoder, &[0xff, 0xff, 0x7f]), Ok((vec![], true)));
    // A name that is too long to be copied again and again is not kept.
    let mut block = vec![0x40, 0x7f, 0x82, 0x01];
    block.resize(block.len() + 257, b'n');
    block.push(0);
    assert_eq!(decode(&mut decoder, &block).unwrap().0.len(), 1);
    assert_eq!(decode(&mut decoder, &[0xbe]), Ok((vec![], true)));
}
