//! Where each rule of `capture` runs, as lines for people.

use crate::policy::admission::Rules;

/// A row for each rule: its name and text, and what of it the kernel decides at the open, what the
/// daemon, and when.
pub fn table(rules: &Rules) -> Vec<(String, String)> {
    let row = |place: crate::policy::admission::Place| {
        let or_nothing = |parts: String| if parts.is_empty() { "nothing".into() } else { parts };
        let text = format!(
            "{}; in the kernel: {}; in the daemon: {}",
            place.rule,
            or_nothing(place.kernel.join(", ")),
            or_nothing(place.daemon.join(", "))
        );
        (place.name, text)
    };
    rules.places().into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_a_row() {
        let text = "{ include: [{ port: 443, exe: curl }], \
                    exclude: [{ condition: \"tls.server_name == 'x'\" }, { uid: 0, direction: egress }] }";
        let rules = Rules::new(&serde_yaml::from_str(text).unwrap()).unwrap();
        let rows = table(&rules).into_iter().map(|(name, text)| format!("{name}: {text}"));
        assert_eq!(
            rows.collect::<Vec<_>>(),
            [
                "include[0]: port 443 and exe curl; in the kernel: port, exe; in the daemon: exe (of \
                 accepted connections, once read from)",
                "exclude[0]: condition tls.server_name == 'x'; in the kernel: nothing; in the daemon: \
                 condition (once its first bytes are seen)",
                "exclude[1]: uid 0 and direction egress; in the kernel: direction, uid; in the daemon: \
                 nothing",
            ]
        );
    }
}
