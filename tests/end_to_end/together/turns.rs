//! Turns: one `DataEvent` for a run of bytes in one direction.

use std::time::Duration;

use tests::{
    stage::together,
    workload::{Connected, silence},
};

#[test]
fn a_dialogue_is_one_turn_for_each_change_of_direction() {
    together(|on| {
        let mut connected = Connected::new()?;
        for (request, answer) in [(10, 1000), (20, 2000), (30, 3000)] {
            connected.send(request)?;
            connected.answer(answer)?;
        }
        let both = on.receiver.both(connected.close()?)?;
        let expected = [10, 1000, 20, 2000, 30, 3000];
        for (span, first, second) in
            [(&both.client, "transmit", "receive"), (&both.server, "receive", "transmit")]
        {
            let turns: Vec<_> = span.turns().iter().map(|it| (it.direction, it.bytes)).collect();
            let wanted: Vec<_> = [first, second].into_iter().cycle().zip(expected).collect();
            assert_eq!(turns, wanted);
        }
        Ok(())
    });
}

#[test]
fn silence_ends_a_turn_and_the_delay_is_visible() {
    together(|on| {
        let mut connected = Connected::new()?;
        connected.send(10)?;
        silence(Duration::from_millis(200));
        connected.send(20)?;
        silence(Duration::from_millis(300));
        connected.answer(30)?;
        let both = on.receiver.both(connected.close()?)?;
        for span in [&both.client, &both.server] {
            let turns = span.turns();
            let bytes: Vec<_> = turns.iter().map(|turn| turn.bytes).collect();
            assert_eq!(bytes, [10, 20, 30], "{span:#?}");
            assert!(turns[1].time_ns - turns[0].time_ns >= 195_000_000, "{turns:?}");
            assert!(turns[2].time_ns - turns[1].time_ns >= 295_000_000, "{turns:?}");
        }
        Ok(())
    });
}

#[test]
fn a_long_dialogue_keeps_to_the_event_limit_and_counts_the_rest() {
    together(|on| {
        const ROUNDS: usize = 300;
        let mut connected = Connected::new()?;
        for _ in 0..ROUNDS {
            connected.send(3)?;
            connected.answer(4)?;
        }
        let both = on.receiver.both(connected.close()?)?;
        both.assert_bytes(3 * ROUNDS as u64, 4 * ROUNDS as u64);
        for span in [&both.client, &both.server] {
            assert_eq!(span.quality(), ["event_limit"]);
            assert_eq!(span.events.len(), 128);
            // Open, close, the protocol that nobody knows, and a turn for each direction and round.
            assert_eq!(span.dropped_events as usize + 128, 3 + 2 * ROUNDS);
        }
        Ok(())
    });
}

#[test]
fn a_bulk_transfer_is_few_turns() {
    together(|on| {
        let mut connected = Connected::new()?;
        connected.send(8 << 20)?;
        let both = on.receiver.both(connected.close()?)?;
        both.assert_bytes(8 << 20, 0);
        // One, if the machine does not pause for 50 ms.
        assert!(both.client.turns().len() < 20, "{:?}", both.client.turns());
        Ok(())
    });
}
