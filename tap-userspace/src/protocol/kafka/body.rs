//! The begin of Produce's and Fetch's bodies, and the names of API keys.
//! <https://kafka.apache.org/protocol.html#protocol_messages>
#![forbid(unsafe_code)]

pub const PRODUCE: i16 = 0;
pub const FETCH: i16 = 1;
/// Kafka's own limit of a topic's name.
pub const TOPIC_MAX: usize = 249;
/// More topics in one request are not believed.
const TOPICS_MAX: u32 = 1 << 20;

#[rustfmt::skip]
const NAMES: &[&str] = &[
    "Produce", "Fetch", "ListOffsets", "Metadata", "LeaderAndIsr", "StopReplica", "UpdateMetadata",
    "ControlledShutdown", "OffsetCommit", "OffsetFetch", "FindCoordinator", "JoinGroup",
    "Heartbeat", "LeaveGroup", "SyncGroup", "DescribeGroups", "ListGroups", "SaslHandshake",
    "ApiVersions", "CreateTopics", "DeleteTopics", "DeleteRecords", "InitProducerId",
    "OffsetForLeaderEpoch", "AddPartitionsToTxn", "AddOffsetsToTxn", "EndTxn", "WriteTxnMarkers",
    "TxnOffsetCommit", "DescribeAcls", "CreateAcls", "DeleteAcls", "DescribeConfigs",
    "AlterConfigs", "AlterReplicaLogDirs", "DescribeLogDirs", "SaslAuthenticate",
    "CreatePartitions", "CreateDelegationToken", "RenewDelegationToken", "ExpireDelegationToken",
    "DescribeDelegationToken", "DeleteGroups", "ElectLeaders", "IncrementalAlterConfigs",
    "AlterPartitionReassignments", "ListPartitionReassignments", "OffsetDelete",
    "DescribeClientQuotas", "AlterClientQuotas", "DescribeUserScramCredentials",
    "AlterUserScramCredentials", "Vote", "BeginQuorumEpoch", "EndQuorumEpoch", "DescribeQuorum",
    "AlterPartition", "UpdateFeatures", "Envelope", "FetchSnapshot", "DescribeCluster",
    "DescribeProducers", "BrokerRegistration", "BrokerHeartbeat", "UnregisterBroker",
    "DescribeTransactions", "ListTransactions", "AllocateProducerIds", "ConsumerGroupHeartbeat",
    "ConsumerGroupDescribe", "ControllerRegistration", "GetTelemetrySubscriptions",
    "PushTelemetry", "AssignReplicasToDirs", "ListConfigResources", "DescribeTopicPartitions",
    "ShareGroupHeartbeat", "ShareGroupDescribe", "ShareFetch", "ShareAcknowledge",
];

/// `messaging.operation.name`: the API's name, or its key's number if it is newer than the list.
pub fn api_name(api: i16) -> String {
    let name = usize::try_from(api).ok().and_then(|api| NAMES.get(api));
    name.map_or_else(|| format!("API {api}"), |name| (*name).to_owned())
}

/// A reader of a body's fields.
#[derive(Debug)]
struct Fields<'a> {
    bytes: &'a [u8],
    /// Lengths are varints and structures have tagged fields.
    flexible: bool,
}

impl<'a> Fields<'a> {
    fn skip(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(front)
    }

    fn i16(&mut self) -> Option<i16> {
        self.skip(2)?.first_chunk().map(|bytes| i16::from_be_bytes(*bytes))
    }

    fn i32(&mut self) -> Option<i32> {
        self.skip(4)?.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
    }

    fn varint(&mut self) -> Option<u32> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = *self.skip(1)?.first()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Elements of an array; none in a null one.
    fn count(&mut self) -> Option<u32> {
        let count = match self.flexible {
            true => self.varint()?.saturating_sub(1),
            false => u32::try_from(self.i32()?.max(0)).ok()?,
        };
        (count <= TOPICS_MAX).then_some(count)
    }

    /// A string; empty where it is null.
    fn string(&mut self) -> Option<&'a [u8]> {
        let len = match self.flexible {
            true => self.varint()?.saturating_sub(1),
            false => u32::try_from(self.i16()?.max(0)).ok()?,
        };
        self.skip(usize::try_from(len).ok()?)
    }

    fn tags(&mut self) -> Option<()> {
        if self.flexible {
            for _ in 0..self.varint()? {
                self.varint()?;
                let len = self.varint()?;
                self.skip(usize::try_from(len).ok()?)?;
            }
        }
        Some(())
    }
}

/// What a request says besides its header.
#[derive(Debug, Default)]
pub struct Request {
    pub topic: Option<String>,
    pub topics: u32,
    /// Produce with `acks=0`.
    pub unanswered: bool,
}

/// Reads the begin of a request, its length included.
pub fn request(api: i16, version: i16, head: &[u8]) -> Request {
    let mut request = Request::default();
    let flexible = match api {
        PRODUCE => version >= 9,
        FETCH => version >= 12,
        _ => return request,
    };
    // The client id is a plain string in every header.
    let mut fields = Fields { bytes: head.get(12..).unwrap_or_default(), flexible: false };
    if fields.string().is_none() {
        return request;
    }
    fields.flexible = flexible;
    let _ = match api {
        PRODUCE => produce(&mut fields, version, &mut request),
        _ => fetch(&mut fields, version, &mut request),
    };
    request
}

fn produce(fields: &mut Fields<'_>, version: i16, request: &mut Request) -> Option<()> {
    fields.tags()?;
    if version >= 3 {
        // The transaction's id.
        fields.string()?;
    }
    request.unanswered = fields.i16()? == 0;
    // Time-out.
    fields.skip(4)?;
    topics(fields, version, request)
}

fn fetch(fields: &mut Fields<'_>, version: i16, request: &mut Request) -> Option<()> {
    fields.tags()?;
    // Replica (a tag from 15 on), longest wait, least and most bytes, isolation, session and epoch.
    let replica = if version < 15 { 4 } else { 0 };
    let most = if version >= 3 { 4 } else { 0 };
    let isolation = usize::from(version >= 4);
    let session = if version >= 7 { 8 } else { 0 };
    fields.skip(replica + 8 + most + isolation + session)?;
    topics(fields, version, request)
}

/// From version 13 on topics are named by ids in both.
fn topics(fields: &mut Fields<'_>, version: i16, request: &mut Request) -> Option<()> {
    request.topics = fields.count()?;
    if request.topics > 0 && version < 13 {
        let name = fields.string()?;
        let fine = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        if (1..=TOPIC_MAX).contains(&name.len()) && name.iter().all(fine) {
            request.topic = Some(String::from_utf8_lossy(name).into_owned());
        }
    }
    Some(())
}

/// APIs whose responses begin with the error of the whole request: key, version from which the
/// header has tagged fields, version from which the time of throttling stands before the error, and
/// the first version that is made otherwise.
#[rustfmt::skip]
const LEADING: &[(i16, i16, i16, i16)] = &[
    (10, 3, 1, 4), // FindCoordinator; from 4 on one error for each key
    (11, 6, 2, i16::MAX), // JoinGroup
    (12, 4, 1, i16::MAX), // Heartbeat
    (13, 4, 1, i16::MAX), // LeaveGroup
    (14, 4, 1, i16::MAX), // SyncGroup
    (16, 3, 1, i16::MAX), // ListGroups
    (17, i16::MAX, i16::MAX, i16::MAX), // SaslHandshake
    (18, i16::MAX, i16::MAX, i16::MAX), // ApiVersions: its header never has tagged fields
    (22, 2, 0, i16::MAX), // InitProducerId
    (25, 3, 0, i16::MAX), // AddOffsetsToTxn
    (26, 3, 0, i16::MAX), // EndTxn
    (36, 2, i16::MAX, i16::MAX), // SaslAuthenticate
];

/// The first error in a response, its length included, as far as it is kept.
pub fn error(api: i16, version: i16, head: &[u8]) -> Option<i16> {
    let bytes = head.get(8..)?;
    let error = match api {
        PRODUCE => {
            let mut fields = Fields { bytes, flexible: version >= 9 };
            fields.tags()?;
            produced(&mut fields, version)
        }
        FETCH => {
            let mut fields = Fields { bytes, flexible: version >= 12 };
            fields.tags()?;
            fetched(&mut fields, version)
        }
        _ => {
            let (_, flexible, throttled, end) = LEADING.iter().find(|row| row.0 == api)?;
            let mut fields = Fields { bytes, flexible: version >= *flexible };
            fields.tags()?;
            fields.skip(if version >= *throttled { 4 } else { 0 })?;
            if version < *end { fields.i16() } else { None }
        }
    };
    error.filter(|error| *error != 0)
}

fn produced(fields: &mut Fields<'_>, version: i16) -> Option<i16> {
    // Each turn takes bytes off, so that a false count ends with them.
    for _ in 0..fields.count()? {
        topic(fields, version)?;
        for _ in 0..fields.count()? {
            fields.skip(4)?;
            let error = fields.i16()?;
            if error != 0 {
                return Some(error);
            }
            // Offset, time of appending, first offset.
            let time = if version >= 2 { 8 } else { 0 };
            let start = if version >= 5 { 8 } else { 0 };
            fields.skip(8 + time + start)?;
            if version >= 8 {
                for _ in 0..fields.count()? {
                    fields.skip(4)?;
                    fields.string()?;
                    fields.tags()?;
                }
                fields.string()?;
            }
            fields.tags()?;
        }
        fields.tags()?;
    }
    None
}

fn fetched(fields: &mut Fields<'_>, version: i16) -> Option<i16> {
    if version >= 1 {
        // Throttling.
        fields.skip(4)?;
    }
    if version >= 7 {
        let error = fields.i16()?;
        if error != 0 {
            return Some(error);
        }
        // Session.
        fields.skip(4)?;
    }
    if fields.count()? == 0 {
        return None;
    }
    topic(fields, version)?;
    if fields.count()? == 0 {
        return None;
    }
    fields.skip(4)?;
    fields.i16().filter(|error| *error != 0)
}

fn topic(fields: &mut Fields<'_>, version: i16) -> Option<()> {
    if version < 13 {
        fields.string()?
    } else {
        fields.skip(16)?
    };
    Some(())
}
