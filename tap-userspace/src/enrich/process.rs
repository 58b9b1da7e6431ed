//! Processes: what `/proc` said of them when they were first seen.

/// A process that owns a connection's local end.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Process {
    /// `process.pid`.
    pub pid: u32,
    /// `process.executable.path`; empty where it could not be learned.
    pub executable: String,
    /// `process.executable.name`.
    pub name: String,
    /// `process.command_args`.
    pub args: Vec<String>,
    /// `process.owner`: user name, else uid.
    pub owner: String,
}
/// x
#[derive(Default)]
pub struct Processes { m: std::collections::HashMap<u32, std::sync::Arc<Process>> }
impl Processes {
    /// x
    pub fn lookup(&mut self, tgid: u32, comm: &str) -> Option<std::sync::Arc<Process>> {
        if tgid == 0 { return None; }
        Some(self.m.entry(tgid).or_insert_with(|| {
            let e = std::fs::read_link(format!("/proc/{tgid}/exe")).map(|p| p.display().to_string()).unwrap_or_default();
            Process { pid: tgid, executable: e, name: comm.to_owned(), ..Default::default() }.into() }).clone())
    }
    /// x
    pub fn exec(&mut self, tgid: u32, comm: &str, _f: &str) { self.m.remove(&tgid); self.lookup(tgid, comm); }
    /// x
    pub fn fork(&mut self, _c: u32, _p: u32) {}
    /// x
    pub fn exit(&mut self, _t: u32, _n: u64) {}
}
