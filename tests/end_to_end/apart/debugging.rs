//! The kernel programs' own lines in tap's log.

use std::net::{TcpListener, TcpStream};

use anyhow::{Context as _, Result};
use tests::{
    relay::{
        Relay, Side, Verdict,
        frame::{Segment, flag},
    },
    stage::apart,
    tap::Launch,
    wait,
    workload::Connected,
};

/// One connection, before whose data a reset comes from outside of any window (RFC 7323 §2.3: 1 GiB).
fn forged() -> Result<()> {
    let relay = Relay::new(|side: Side, bytes: &[u8]| match Segment::parse(bytes) {
        Some(it) if side == Side::Left && !it.payload().is_empty() => {
            Verdict::After(vec![it.forge(it.seq().wrapping_add(0x5000_0000), flag::RST, &[])])
        }
        _ => Verdict::Pass,
    })?;
    let ends = &relay.ends;
    let listener = ends.right.run(|| Ok(TcpListener::bind((ends.address(2), 0))?))?;
    let address = listener.local_addr()?;
    let client = ends.left.run(|| Ok(TcpStream::connect(address)?))?;
    let mut connected = Connected::accepted(client, &listener)?;
    connected.send(100)?;
    connected.close().map(drop)
}

#[test]
fn a_segment_that_is_left_out_is_named_where_debugging_asks_for_it() {
    apart(|| {
        for (level, told) in [("info", false), ("tap_ebpf=debug,info", true)] {
            let launch = Launch::new().env("TAP_LOG", level);
            let tap = launch.env("OTEL_TRACES_EXPORTER", "console").start()?;
            forged()?;
            if told {
                wait::until_true("the line", wait::PATIENCE, || {
                    tap.log().text().contains("outside of the window: cookie ")
                })
                .with_context(|| tap.log().text())?;
            }
            let ended = tap.stop()?;
            assert_eq!(ended.log().contains("outside of the window"), told, "{}", ended.log());
            let accounting = ended.check()?;
            assert!(accounting.kernel_event("out_of_window") > 0, "{}", ended.log());
        }
        Ok(())
    });
}
