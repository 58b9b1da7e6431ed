//! AMQP: the protocol header, and the `connection.start` of a server of 0-9-1 (AMQP 0-9-1 §2.3.5
//! and §4.2.2, AMQP 1.0 part 2 §2.2).
#![forbid(unsafe_code)]

use super::{Protocol, Rule, Said, fields::*, never};

pub(super) const RULE: Rule = Rule { first: &[b'A'..=b'A', 1..=1], look, confirm: never };

/// What follows `AMQP`; the last three are 1.0 as it is, within TLS, and with SASL before.
const HEADERS: [&[u8]; 7] = [
    &[0, 0, 9, 1],
    &[1, 1, 0, 9],
    &[1, 1, 8, 0],
    &[1, 1, 0, 10],
    &[0, 1, 0, 0],
    &[2, 1, 0, 0],
    &[3, 1, 0, 0],
];
const VERSIONS: [&str; 7] = ["0-9-1", "0-9", "0-8", "0-10", "1.0", "1.0", "1.0"];
/// A frame before tuning; servers take 4096 bytes, RabbitMQ 8192.
const FRAME_MAX: u32 = 1 << 17;

fn look(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    if head.first() == Some(&1) {
        // A method frame of channel 0: class 10, method 10, version 0 and 9.
        fields.literal(&[1, 0, 0])?;
        fields.be(4, 16..=FRAME_MAX)?;
        fields.literal(&[0, 10, 0, 10, 0, 9])?;
        return Ok(Said::server(Protocol::Amqp, Some("0-9-1")));
    }
    fields.literal(b"AMQP")?;
    let header = fields.one_of(&HEADERS)?;
    let version = Some(VERSIONS[header]);
    // From 0-10 on the server answers with the same.
    Ok(if header < 3 {
        Said::client(Protocol::Amqp, version)
    } else {
        Said::either(Protocol::Amqp, version)
    })
}
