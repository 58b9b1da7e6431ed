//! Waiting for something to become true, with a deadline, so that no test sleeps and hopes.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long a test waits for what should come at once; generous, since the machine is shared.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks.
const STEP: Duration = Duration::from_millis(10);

/// Looks until `probe` gives something; after `limit` it is an error that names `what`.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("waited {limit:?} in vain for {what}");
        }
        thread::sleep(STEP);
    }
}

/// Looks until `probe` says yes.
pub fn until_true(what: &str, limit: Duration, mut probe: impl FnMut() -> bool) -> Result<()> {
    until(what, limit, || probe().then_some(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_what_was_found() {
        let mut looks = 0;
        let found = until("the third look", PATIENCE, || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn a_deadline_names_what_was_missed() {
        let error = until_true("nothing", Duration::ZERO, || false).unwrap_err();
        assert!(error.to_string().contains("nothing"), "{error}");
    }
}
