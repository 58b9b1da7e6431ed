//! MQTT: the CONNECT packet (MQTT 3.1 §3.1, 3.1.1 §3.1, 5.0 §3.1).
#![forbid(unsafe_code)]

use super::{Protocol, Rule, Said, fields::*, never};

pub(super) const RULE: Rule = Rule { first: &[CONNECT..=CONNECT], look, confirm: never };

const CONNECT: u8 = 0x10;
/// Bytes after the fixed header, with no properties and an empty client identifier.
const REST_MIN: u32 = 12;
/// Set by Mosquitto's bridges in the version.
const BRIDGE: u8 = 0x80;

fn look(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(&head[1..]);
    let mut rest = 0;
    for at in 0..4 {
        // The last byte of the length has its high bit clear.
        let byte = fields.byte(|byte| {
            let low = rest + (u32::from(byte & 0x7f) << (7 * at));
            if byte & 0x80 == 0 { low >= REST_MIN } else { at < 3 }
        })?;
        rest += u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            break;
        }
    }
    let version = if fields.one_of(&[b"\0\x04MQTT", b"\0\x06MQIsdp"])? == 0 {
        match fields.byte(|level| matches!(level & !BRIDGE, 4 | 5))? & !BRIDGE {
            4 => "3.1.1",
            _ => "5",
        }
    } else {
        fields.byte(|level| level & !BRIDGE == 3)?;
        "3.1"
    };
    // The lowest flag is reserved.
    fields.byte(|flags| flags & 1 == 0)?;
    Ok(Said::client(Protocol::Mqtt, Some(version)))
}
