//! Compile-time proof that both sides of the kernel line see the same bytes.

use core::mem::{align_of, offset_of, size_of};

use crate::{record, settings, state};

const _: () = {
    assert!(size_of::<record::Header>() == 32);
    assert!(size_of::<record::Tuple>() == 40);
    assert!(size_of::<record::Connection>() == 80);
    assert!(size_of::<record::Open>() == 112);
    assert!(size_of::<record::Owner>() == 56);
    assert!(size_of::<record::Data>() == 64);
    assert!(size_of::<record::Close>() == 200);
    assert!(size_of::<record::Process>() == 56);
    assert!(align_of::<record::Close>() == 8);
    assert!(offset_of!(record::Header, cookie) == 8);
    assert!(offset_of!(record::Header, time_ns) == 24);
    assert!(offset_of!(record::Connection, opened_ns) == 40);
    assert!(offset_of!(record::Connection, tgid) == 64);
    assert!(offset_of!(record::Close, bytes) == 112);
    assert!(offset_of!(record::Close, srtt_us) == 180);
    assert!(size_of::<settings::Settings>() == 88);
    assert!(size_of::<settings::Admission>() == 8);
    assert!(size_of::<settings::Prefix>() == 20);
    assert!(size_of::<settings::Verdict>() == 8);
    assert!(size_of::<state::Direction>() == 40);
    assert!(size_of::<state::Socket>() == 224);
};
