//! Compile-time proof that both sides of the kernel line see the same bytes.

use core::mem::{align_of, offset_of, size_of};

use crate::{record, settings, state};

const _: () = {
    assert!(size_of::<record::Header>() == 32);
    assert!(size_of::<record::Tuple>() == 40);
    assert!(size_of::<record::Connection>() == 72);
    assert!(size_of::<record::Open>() == 104);
    assert!(size_of::<record::Owner>() == 56);
    assert!(size_of::<record::Data>() == 72);
    assert!(size_of::<record::Close>() == 192);
    assert!(size_of::<record::Process>() == 80);
    assert!(size_of::<record::Dns>() == 72);
    assert!(align_of::<record::Close>() == 8);
    assert!(offset_of!(record::Header, cookie) == 8);
    assert!(offset_of!(record::Header, time_ns) == 24);
    assert!(offset_of!(record::Connection, opened_ns) == 40);
    assert!(offset_of!(record::Connection, tgid) == 56);
    assert!(offset_of!(record::Close, bytes) == 104);
    assert!(offset_of!(record::Close, srtt_us) == 172);
    assert!(size_of::<settings::Settings>() == 136);
    assert!(size_of::<settings::Admission>() == 120);
    assert!(size_of::<settings::Prefix>() == 20);
    assert!(size_of::<settings::Ends>() == 24);
    assert!(size_of::<settings::ExecutableKey>() == 24);
    assert!(size_of::<settings::CgroupKey>() == 16);
    assert!(size_of::<settings::Verdict>() == 16);
    assert!(size_of::<state::Direction>() == 32);
    assert!(size_of::<state::Socket>() == 184);
};
