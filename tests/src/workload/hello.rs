//! A TLS ClientHello of any size, as browsers with post-quantum key shares send them: more than
//! one segment of an Ethernet.

/// A TLS record with a ClientHello that names `server`, offers `protocols` by ALPN and TLS 1.3,
/// and has a key share of `padding` bytes before the server name.
pub fn client_hello(server: &str, protocols: &[&str], padding: usize) -> Vec<u8> {
    let mut extensions = Vec::new();
    // key_share with one entry of group X25519MLKEM768
    let share = [&0x11ec_u16.to_be_bytes()[..], &sized2(&vec![0x5a; padding])].concat();
    extensions.extend(extension(51, &sized2(&share)));
    // supported_versions: 1.3, 1.2
    extensions.extend(extension(43, &[4, 3, 4, 3, 3]));
    let names: Vec<u8> =
        protocols.iter().flat_map(|name| [&[name.len() as u8], name.as_bytes()].concat()).collect();
    extensions.extend(extension(16, &sized2(&names)));
    let host = [&[0][..], &sized2(server.as_bytes())].concat();
    extensions.extend(extension(0, &sized2(&host)));

    let mut body = vec![3, 3];
    body.extend([0x42; 32]);
    body.push(0); // no session id
    body.extend(sized2(&[0x13, 0x01, 0x13, 0x02, 0xc0, 0x2f]));
    body.extend([1, 0]); // no compression
    body.extend(sized2(&extensions));

    let length = body.len() as u32;
    let message = [&[1], &length.to_be_bytes()[1..], &body].concat();
    [&[22, 3, 1][..], &sized2(&message)].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized2(data)].concat()
}

/// With its length in two bytes before it.
fn sized2(data: &[u8]) -> Vec<u8> {
    [&(data.len() as u16).to_be_bytes()[..], data].concat()
}
