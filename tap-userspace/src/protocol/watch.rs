//! Watches the heads of one connection's directions until it is known what they speak. Comes in:
//! captured bytes. Goes out: [`Found`]s, each once.

use smallvec::SmallVec;

use super::{
    Protocol,
    detect::{self, Detection},
    head::Head,
    tls_hello::{self, ClientHello},
};

/// Something that the heads told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// What is spoken.
    Protocol(Protocol),
    /// A TLS ClientHello is whole; it is [`Watch::client_hello`].
    ClientHello,
}

/// What is found in one step.
pub type Finds = SmallVec<[Found; 2]>;

/// The watch over one connection.
#[derive(Debug, Default)]
pub struct Watch {
    stage: Stage,
    /// By direction, as in the records; none until bytes have to be kept.
    heads: Option<Box<[Head; 2]>>,
    hello: Option<Box<ClientHello>>,
    client: Option<usize>,
    tls_established: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Not known yet.
    #[default]
    Detecting,
    /// TLS whose handshake is not over.
    Handshake,
    /// Nothing more is wanted.
    Done,
}

impl Watch {
    /// Takes in captured bytes of `direction`: `bytes` at `offset` of a segment of `segment_len`;
    /// of each direction at most `limit` bytes are kept.
    pub fn take(
        &mut self,
        direction: usize,
        offset: u64,
        bytes: &[u8],
        segment_len: u32,
        limit: usize,
    ) -> Finds {
        let mut finds = Finds::new();
        if self.stage == Stage::Done || bytes.is_empty() {
            return finds;
        }
        // Mostly the first segment tells, and then nothing has to be kept.
        if self.heads.is_none() && offset == 0 {
            let mut ends: [&[u8]; 2] = [&[], &[]];
            ends[direction] = bytes;
            if let Detection::Known { protocol, client } = detect::detect(ends[0], ends[1])
                && protocol != Protocol::Tls
            {
                self.client = client;
                self.stage = Stage::Done;
                finds.push(Found::Protocol(protocol));
                return finds;
            }
        }
        let heads =
            self.heads.get_or_insert_with(|| Box::new([Head::new(limit), Head::new(limit)]));
        heads[direction].put(offset, bytes, segment_len);
        if self.stage == Stage::Detecting {
            self.detect(&mut finds);
        }
        if self.stage == Stage::Handshake {
            self.handshake(&mut finds);
        }
        if self.stage == Stage::Done {
            self.heads = None;
        }
        finds
    }

    fn detect(&mut self, finds: &mut Finds) {
        let Some([receive, transmit]) = self.heads.as_deref() else { return };
        match detect::detect(receive.contiguous(), transmit.contiguous()) {
            Detection::Known { protocol, client } => {
                self.client = client;
                self.stage = if protocol == Protocol::Tls { Stage::Handshake } else { Stage::Done };
                finds.push(Found::Protocol(protocol));
            }
            Detection::NeedMore => {}
            Detection::Unknown => self.stage = Stage::Done,
        }
    }

    fn handshake(&mut self, finds: &mut Finds) {
        let (Some(heads), Some(client)) = (self.heads.as_deref(), self.client) else {
            return;
        };
        let client_head = heads[client].contiguous();
        if self.hello.is_none() {
            match tls_hello::parse_client_hello(client_head) {
                Ok(Some(hello)) => {
                    self.hello = Some(Box::new(hello));
                    finds.push(Found::ClientHello);
                }
                Ok(None) => return,
                Err(_) => {
                    self.stage = Stage::Done;
                    return;
                }
            }
        }
        if tls_hello::established(client_head, heads[1 - client].contiguous()) {
            self.tls_established = true;
            self.stage = Stage::Done;
        }
    }

    /// Direction (as in the records) in which the client speaks, where the heads told.
    pub const fn client(&self) -> Option<usize> {
        self.client
    }

    /// The ClientHello, once.
    pub const fn take_client_hello(&mut self) -> Option<Box<ClientHello>> {
        self.hello.take()
    }

    /// Whether both ends of a TLS handshake have come to encrypted data.
    pub const fn tls_established(&self) -> bool {
        self.tls_established
    }

    /// Whether a head that is still wanted has a hole.
    pub fn has_gap(&self) -> bool {
        self.stage != Stage::Done && self.any(Head::gap)
    }

    /// Whether a hello that is still wanted goes past what is captured.
    pub fn is_truncated(&self) -> bool {
        let wants = self.stage == Stage::Detecting
            || (self.stage == Stage::Handshake && self.hello.is_none());
        wants && self.any(Head::truncated)
    }

    fn any(&self, is: impl Fn(&Head) -> bool) -> bool {
        self.heads.as_deref().is_some_and(|heads| heads.iter().any(is))
    }
}
