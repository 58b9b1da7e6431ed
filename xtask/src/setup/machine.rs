//! What machine this is, in one line for the log.

use std::env::consts::ARCH;
use std::fs;
use std::process::Command;

use crate::command;
use crate::privilege;

/// Distribution, architecture, kernel, user and compiler.
pub fn describe() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = field(&release, "PRETTY_NAME").unwrap_or("unknown distribution");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let user = match (privilege::is_root(), command::find("sudo").is_some()) {
        (true, _) => "root",
        (false, true) => "a user with sudo",
        (false, false) => "a user without sudo",
    };
    let rustc = command::output(Command::new("rustc").arg("--version"))
        .unwrap_or_else(|_| "no rustc on PATH".into());
    format!("{name}, {ARCH}, kernel {}, {user}, {}", kernel.trim(), rustc.trim())
}

fn field<'a>(release: &'a str, key: &str) -> Option<&'a str> {
    let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(line.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn a_field_of_os_release() {
        let text = "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        assert_eq!(field(text, "PRETTY_NAME"), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(field(text, "ID"), Some("debian"));
        assert_eq!(field(text, "VERSION"), None);
    }
}
