//! NATS: the server's `INFO {…}` and the client's `CONNECT {…}` (docs.nats.io, "Client Protocol").
#![forbid(unsafe_code)]

use super::{Protocol, Rule, Said, fields::*, never};

pub(super) const RULE: Rule = Rule { first: &[b'I'..=b'I', b'C'..=b'C'], look, confirm: never };

fn look(head: &[u8]) -> Step<Said> {
    let mut fields = Fields(head);
    let server = fields.one_of(&[b"CONNECT {", b"INFO {"])? == 1;
    fields.byte(|byte| byte == b'"' || (byte == b'}' && !server))?;
    Ok(if server { Said::server(Protocol::Nats, None) } else { Said::client(Protocol::Nats, None) })
}
