//! Watches the heads of one connection's directions until it is known what they speak. Comes in:
//! captured bytes. Goes out: [`Found`]s, each once.

use smallvec::SmallVec;

use super::{
    Protocol,
    detect::{self, Detected, Detection},
    head::Head,
    tls_hello::{self, ClientHello, ServerHello},
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
    version: Option<&'static str>,
    hello: Option<Box<ClientHello>>,
    answer: Option<ServerHello>,
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
            let looked = detect::detect(ends[0], ends[1]);
            let tls = |detected: &Detected| detected.protocol == Protocol::Tls;
            if matches!(&looked, Detection::Known(detected) if !tls(detected)) {
                self.know(looked, &mut finds);
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
        let looked = detect::detect(receive.contiguous(), transmit.contiguous());
        self.know(looked, finds);
    }

    fn know(&mut self, looked: Detection, finds: &mut Finds) {
        match looked {
            Detection::Known(Detected { protocol, version, client }) => {
                self.client = Some(client.index());
                self.version = version;
                let tls = protocol == Protocol::Tls;
                self.stage = if tls { Stage::Handshake } else { Stage::Done };
                finds.push(Found::Protocol(protocol));
            }
            Detection::NeedMore => {}
            Detection::Unknown => self.give_up(),
        }
    }

    /// What was read made no sense. It may have been a forged segment, whose place the true bytes
    /// will take, so a short head is looked at again.
    fn give_up(&mut self) {
        const ENOUGH: usize = 4096;
        let read =
            |heads: &[Head; 2]| heads.iter().map(|head| head.contiguous().len()).sum::<usize>();
        if self.heads.as_deref().is_none_or(|heads| read(heads) >= ENOUGH) {
            self.stage = Stage::Done;
        }
    }

    fn handshake(&mut self, finds: &mut Finds) {
        let (Some(heads), Some(client)) = (self.heads.as_deref(), self.client) else {
            return;
        };
        let (asked, answered) = (heads[client].contiguous(), heads[1 - client].contiguous());
        if self.hello.is_none() {
            match tls_hello::parse_client_hello(asked) {
                Ok(Some(hello)) => {
                    self.hello = Some(Box::new(hello));
                    finds.push(Found::ClientHello);
                }
                Ok(None) => {}
                Err(_) => return self.give_up(),
            }
        }
        if self.answer.is_none() {
            self.answer = tls_hello::parse_server_hello(answered).ok().flatten();
        }
        if self.hello.is_some() && tls_hello::established(asked, answered) {
            self.tls_established = true;
            self.stage = Stage::Done;
        }
    }

    /// Direction (as in the records) in which the client speaks, where the heads told.
    pub const fn client(&self) -> Option<usize> {
        self.client
    }

    /// Version of the protocol, where the bytes told.
    pub const fn version(&self) -> Option<&'static str> {
        self.version
    }

    /// The ClientHello.
    pub fn client_hello(&self) -> Option<Box<ClientHello>> {
        self.hello.clone()
    }

    /// What the server chose.
    pub const fn server_hello(&self) -> Option<ServerHello> {
        self.answer
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
