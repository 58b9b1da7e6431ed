//! Which connections are looked at. Comes in: block `capture` of the configuration. Goes out: what
//! the kernel side decides of it ([`Tables`], and what it shall think of an executable or a cgroup),
//! and the daemon's own judgement of a connection, which is the last word.
//!
//! The kernel side knows a rule as a bit, and a rule's part as a table that the bit stands in
//! (`tap_common::settings::Admission`). It refuses where that is certain. What it cannot tell (a
//! condition, the process behind an accepted connection, an executable or cgroup it has not met)
//! might fit; then it looks, and the daemon judges as soon as what is missing is known, at the latest
//! at the connection's end.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tap_common::{
    limits::{ADMISSION_ENTRIES, ADMISSION_RULES},
    settings::{Admission, Ends, Prefix, field},
};

use super::connection::Facts;
use crate::{
    config::capture::{Capture, Cidr, Direction, Ports, Rule, Way},
    connection::model::Role,
};

/// When something of a connection is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// From its open.
    Open,
    /// From its open, as soon as the cgroup's path is found out.
    Cgroup,
    /// Once its process is.
    Owner,
    /// Once its first bytes have told what is spoken.
    Protocol,
}

/// The rules of one generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    capture: Capture,
    /// Rules that share a bit, by bit. Those that ask for one and the same thing do.
    bits: Vec<Bit>,
    /// Bits of [`field`]: the tables that they need.
    fields: u8,
}

#[derive(Clone, Debug, PartialEq)]
struct Bit {
    include: bool,
    /// Positions in their list.
    rules: Vec<usize>,
    /// What alone they ask for, if it is one thing.
    only: Option<&'static str>,
}

/// The rules are more than the kernel side's tables hold.
#[derive(Debug, thiserror::Error)]
#[error("the rules name {count} {what}; the kernel side holds {max}: use {instead}")]
pub struct TooMany {
    /// Of what.
    what: &'static str,
    /// How many are named.
    count: usize,
    /// How many there may be.
    max: usize,
    /// The remedy.
    instead: &'static str,
}

/// What the kernel side's tables hold for one generation of rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Tables {
    /// The rules in short; [`Admission::generation`] is not set.
    pub admission: Admission,
    /// By port.
    pub ports: Vec<(u16, Ends)>,
    /// By prefix.
    pub prefixes: Vec<(Prefix, Ends)>,
    /// By user.
    pub users: Vec<(u32, u64)>,
}

/// Why a connection is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `capture.direction`.
    Direction,
    /// `capture.loopback`.
    Loopback,
    /// A rule under `capture.exclude` holds.
    Exclude,
    /// No rule under `capture.include` holds.
    Include,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Direction, Self::Loopback, Self::Exclude, Self::Include];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direction => "direction",
            Self::Loopback => "loopback",
            Self::Exclude => "exclude",
            Self::Include => "include",
        }
    }
}

/// What the rules say of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is looked at.
    Wanted,
    /// It is not: why, and by which rule of `exclude`, if by one.
    Refused(Reason, Option<usize>),
    /// Something is not known yet.
    Undecided,
}

/// Where a rule runs, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `include[0]`.
    pub name: String,
    /// The rule.
    pub rule: String,
    /// What of it the kernel decides at the open.
    pub kernel: Vec<&'static str>,
    /// What of it the daemon decides, and when.
    pub daemon: Vec<String>,
}

impl Rules {
    /// The rules of a block.
    pub fn new(capture: &Capture) -> Result<Self, TooMany> {
        let most = ADMISSION_ENTRIES as usize;
        let check = |what, count: usize, max: usize, instead| {
            if count > max { Err(TooMany { what, count, max, instead }) } else { Ok(()) }
        };
        let mut rules = Self { capture: capture.clone(), bits: Vec::new(), fields: 0 };
        for (include, list) in [(true, &capture.include), (false, &capture.exclude)] {
            for (at, rule) in list.iter().enumerate() {
                let only = only(rule);
                let same =
                    |bit: &&mut Bit| only.is_some() && bit.only == only && bit.include == include;
                match rules.bits.iter_mut().find(same) {
                    Some(bit) => bit.rules.push(at),
                    None => rules.bits.push(Bit { include, rules: vec![at], only }),
                }
                let kinds = rules.bits.len();
                check("rules of several keys", kinds, ADMISSION_RULES, "rules of one key each")?;
            }
        }
        // What is listed is bounded before it is.
        let count = |of: &dyn Fn(&Rule) -> usize| rules.all().map(|(_, rule)| of(rule)).sum();
        let prefixes = count(&|rule| {
            [rule.cidr, rule.local_cidr, rule.remote_cidr].into_iter().flatten().count()
        });
        check("prefixes", prefixes, most, "fewer, or shorter ones that hold several")?;
        let ports = count(&|rule| {
            let ports = [rule.port, rule.local_port, rule.remote_port].into_iter().flatten();
            ports.map(|ports| usize::from(ports.last - ports.first) + 1).sum()
        });
        check("ports", ports, most, "fewer or narrower ranges")?;
        check("users", count(&|rule| usize::from(rule.uid.is_some())), most, "fewer")?;
        rules.fields = rules.tables().admission.fields;
        Ok(rules)
    }

    /// Every rule with its bit.
    fn all(&self) -> impl Iterator<Item = (u64, &Rule)> {
        self.bits.iter().enumerate().flat_map(|(at, bit)| {
            let list = if bit.include { &self.capture.include } else { &self.capture.exclude };
            bit.rules.iter().map(move |rule| (1 << at, &list[*rule]))
        })
    }

    /// The bits of rules of which `of` is true.
    fn where_is(&self, of: impl Fn(&Rule) -> bool) -> u64 {
        self.all().filter(|(_, rule)| of(rule)).fold(0, |all, (bit, _)| all | bit)
    }

    /// What the kernel side shall hold.
    pub fn tables(&self) -> Tables {
        let capture = &self.capture;
        let list = |include: bool| {
            let bits = self.bits.iter().enumerate().filter(|(_, bit)| bit.include == include);
            bits.fold(0, |all, (at, _)| all | 1 << at)
        };
        let ends = |either: &dyn Fn(&Rule) -> bool,
                    local: &dyn Fn(&Rule) -> bool,
                    remote: &dyn Fn(&Rule) -> bool| Ends {
            either: !self.where_is(either),
            local: !self.where_is(local),
            remote: !self.where_is(remote),
        };
        let no_port =
            ends(&|rule| rule.port.is_some(), &|rule| rule.local_port.is_some(), &|rule| {
                rule.remote_port.is_some()
            });
        let no_prefix =
            ends(&|rule| rule.cidr.is_some(), &|rule| rule.local_cidr.is_some(), &|rule| {
                rule.remote_cidr.is_some()
            });
        let no_user = !self.where_is(|rule| rule.uid.is_some());
        let no_executable = !self.where_is(|rule| rule.exe.is_some());
        let no_cgroup = !self.where_is(asks_cgroup);
        let of_cgroups = self.all().any(|(_, rule)| {
            let stages = rule.condition.iter().flat_map(|condition| condition.stages());
            stages.into_iter().any(|stage| *stage == Stage::Cgroup)
        });
        let fields = [
            (no_port != Ends::ALL, field::PORT),
            (no_prefix != Ends::ALL, field::PREFIX),
            (no_user != u64::MAX, field::USER),
            (no_executable != u64::MAX, field::EXECUTABLE),
            (no_cgroup != u64::MAX || of_cgroups, field::CGROUP),
        ];
        let admission = Admission {
            generation: 0,
            egress: u8::from(capture.direction != Direction::Ingress),
            ingress: u8::from(capture.direction != Direction::Egress),
            loopback: u8::from(capture.loopback),
            fields: fields.iter().filter(|(used, _)| *used).fold(0, |all, (_, bit)| all | bit),
            include: list(true),
            exclude: list(false),
            partial: self.where_is(|rule| rule.condition.is_some()),
            of_ingress: !self.where_is(|rule| rule.direction == Some(Way::Egress)),
            of_egress: !self.where_is(|rule| rule.direction == Some(Way::Ingress)),
            no_port,
            no_prefix,
            no_user,
            no_executable,
            no_cgroup,
        };
        let mut users = BTreeMap::new();
        for (bit, uid) in self.all().filter_map(|(bit, rule)| Some((bit, rule.uid?))) {
            *users.entry(uid).or_insert(no_user) |= bit;
        }
        Tables {
            admission,
            ports: self.ports(no_port),
            prefixes: self.prefixes(no_prefix),
            users: users.into_iter().collect(),
        }
    }

    fn ports(&self, none: Ends) -> Vec<(u16, Ends)> {
        let mut said = BTreeMap::new();
        for (bit, rule) in self.all() {
            let mut add = |ports: Option<Ports>, end: fn(&mut Ends) -> &mut u64| {
                for port in ports.into_iter().flat_map(|ports| ports.first..=ports.last) {
                    *end(said.entry(port).or_insert(none)) |= bit;
                }
            };
            add(rule.port, |ends| &mut ends.either);
            add(rule.local_port, |ends| &mut ends.local);
            add(rule.remote_port, |ends| &mut ends.remote);
        }
        said.into_iter().collect()
    }

    /// Prefixes, each with what it and every prefix around it says: the kernel side finds the
    /// longest only. A short IPv6 prefix (`::/0`) is none around IPv4, though IPv4 is IPv4-mapped
    /// there: an entry that says nothing keeps it off.
    fn prefixes(&self, none: Ends) -> Vec<(Prefix, Ends)> {
        let nothing = Ends { either: 0, local: 0, remote: 0 };
        let mut cidrs: Vec<(Prefix, Ends)> = Vec::new();
        for (bit, rule) in self.all() {
            let mut add = |cidr: Option<Cidr>, said: Ends| {
                cidrs.extend(cidr.map(|cidr| (cidr.prefix(), said)));
            };
            add(rule.cidr, Ends { either: bit, ..nothing });
            add(rule.local_cidr, Ends { local: bit, ..nothing });
            add(rule.remote_cidr, Ends { remote: bit, ..nothing });
        }
        let around = |inner: &Prefix| {
            let says = cidrs.iter().filter(|(outer, _)| {
                contains(outer, inner) && contains(&IPV4, outer) == contains(&IPV4, inner)
            });
            says.fold(none, |all, (_, says)| Ends {
                either: all.either | says.either,
                local: all.local | says.local,
                remote: all.remote | says.remote,
            })
        };
        let hidden = cidrs.iter().any(|(outer, _)| outer.len < IPV4.len && contains(outer, &IPV4));
        let mut prefixes: Vec<Prefix> = cidrs.iter().map(|(prefix, _)| *prefix).collect();
        prefixes.extend(hidden.then_some(IPV4));
        prefixes.sort_unstable_by_key(|prefix| (prefix.address, prefix.len));
        prefixes.dedup();
        prefixes.into_iter().map(|prefix| (prefix, around(&prefix))).collect()
    }

    /// What an executable's path says: rules that ask for none, and those whose pattern fits.
    pub fn of_executable(&self, path: &str) -> u64 {
        let name = path.rsplit('/').next().unwrap_or(path);
        !self.where_is(|rule| rule.exe.is_some())
            | self.where_is(|rule| is_exe(rule, path, name) == Some(true))
    }

    /// What a cgroup's path says.
    pub fn of_cgroup(&self, path: &str) -> u64 {
        !self.where_is(asks_cgroup)
            | self.where_is(|rule| asks_cgroup(rule) && is_cgroup(rule, path))
    }

    /// Whether a rule asks for one of these, bits of [`field`].
    pub const fn asks(&self, of: u8) -> bool {
        self.fields & of != 0
    }

    /// Whether the daemon has to judge a connection: one that is older than tap, of which the kernel
    /// side knows little; or any, where a rule asks for more than its ends.
    pub fn need_daemon(&self, preexisting: bool) -> bool {
        let beyond = |rule: &Rule| {
            rule.uid.is_some()
                || rule.exe.is_some()
                || asks_cgroup(rule)
                || rule.condition.is_some()
        };
        if preexisting {
            let capture = &self.capture;
            return !self.bits.is_empty()
                || capture.direction != Direction::All
                || !capture.loopback;
        }
        self.all().any(|(_, rule)| beyond(rule))
    }

    /// What the rules say of a connection.
    pub fn judge(&self, facts: &Facts<'_>) -> Judgement {
        let capture = &self.capture;
        let unwanted = match facts.role {
            Role::Client => Direction::Ingress,
            Role::Server => Direction::Egress,
        };
        if capture.direction == unwanted {
            return Judgement::Refused(Reason::Direction, None);
        }
        if !capture.loopback && facts.peer.0.to_canonical().is_loopback() {
            return Judgement::Refused(Reason::Loopback, None);
        }
        let mut undecided = false;
        for (at, rule) in capture.exclude.iter().enumerate() {
            match holds(rule, facts) {
                Some(true) => return Judgement::Refused(Reason::Exclude, Some(at)),
                Some(false) => {}
                None => undecided = true,
            }
        }
        if !capture.include.is_empty() {
            let said = capture.include.iter().map(|rule| holds(rule, facts));
            // The strongest: one that holds, one that may, none.
            let best = said.max_by_key(|said| match said {
                Some(true) => 2,
                None => 1,
                Some(false) => 0,
            });
            match best.flatten() {
                Some(true) => {}
                Some(false) => return Judgement::Refused(Reason::Include, None),
                None => undecided = true,
            }
        }
        if undecided { Judgement::Undecided } else { Judgement::Wanted }
    }

    /// Where each rule runs.
    pub fn places(&self) -> Vec<Place> {
        let lists = [("include", &self.capture.include), ("exclude", &self.capture.exclude)];
        let named = lists.into_iter().flat_map(|(name, rules)| {
            rules.iter().enumerate().map(move |(at, rule)| (format!("{name}[{at}]"), rule))
        });
        named.map(|(name, rule)| place(name, rule)).collect()
    }
}

/// What a rule asks for, if that is one thing.
fn only(rule: &Rule) -> Option<&'static str> {
    let keys = [
        (rule.port.is_some(), "port"),
        (rule.local_port.is_some(), "local_port"),
        (rule.remote_port.is_some(), "remote_port"),
        (rule.cidr.is_some(), "cidr"),
        (rule.local_cidr.is_some(), "local_cidr"),
        (rule.remote_cidr.is_some(), "remote_cidr"),
        (rule.uid.is_some(), "uid"),
        (rule.exe.is_some(), "exe"),
        (rule.container.is_some(), "container"),
        (rule.cgroup.is_some(), "cgroup"),
        (rule.direction.is_some(), "direction"),
        (rule.condition.is_some(), "condition"),
    ];
    let mut there = keys.into_iter().filter(|(there, _)| *there).map(|(_, key)| key);
    // Two directions together are all; each has a bit of its own.
    let only = there.next().filter(|key| *key != "direction");
    if there.next().is_some() { None } else { only }
}

fn asks_cgroup(rule: &Rule) -> bool {
    rule.cgroup.is_some() || rule.container.is_some()
}

/// Whether a rule's pattern fits an executable; `None` where its path would tell and is not known.
fn is_exe(rule: &Rule, path: &str, name: &str) -> Option<bool> {
    let pattern = rule.exe.as_ref()?;
    if pattern.is_path() {
        return (!path.is_empty()).then(|| pattern.fits(path));
    }
    Some(pattern.fits(name))
}

/// Whether what a rule asks of the cgroup holds.
fn is_cgroup(rule: &Rule, path: &str) -> bool {
    let fits = rule.cgroup.as_ref().is_none_or(|pattern| {
        let above =
            path.match_indices('/').map(|(at, _)| &path[..at]).filter(|path| !path.is_empty());
        pattern.fits(path) || above.into_iter().any(|path| pattern.fits(path))
    });
    let id = || container_id(path).unwrap_or_default();
    fits && rule.container.as_ref().is_none_or(|prefix| id().starts_with(&*prefix.0))
}

/// The container that a cgroup is: the last 64 hexadecimal digits in a row of its path, as Docker,
/// containerd, CRI-O and Podman name their cgroups.
pub fn container_id(path: &str) -> Option<&str> {
    const LEN: usize = 64;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let parts = path.rsplit(|c: char| !c.is_ascii() || !is_hex(c as u8));
    parts.into_iter().find(|part| part.len() == LEN)
}

/// Whether a rule holds; `None` while that is not known.
fn holds(rule: &Rule, facts: &Facts<'_>) -> Option<bool> {
    let port = |ports: &Ports, port: u16| (ports.first..=ports.last).contains(&port);
    let prefix = |cidr: &Cidr, address: IpAddr| {
        let address = match address.to_canonical() {
            IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
            IpAddr::V6(six) => six.octets(),
        };
        let (outer, inner) = (cidr.prefix(), Prefix { len: 128, address });
        contains(&outer, &inner) && contains(&IPV4, &outer) == contains(&IPV4, &inner)
    };
    let (local, peer) = (facts.local, facts.peer);
    let of_ends = rule.port.as_ref().is_none_or(|it| port(it, local.1) || port(it, peer.1))
        && rule.local_port.as_ref().is_none_or(|it| port(it, local.1))
        && rule.remote_port.as_ref().is_none_or(|it| port(it, peer.1))
        && rule.cidr.as_ref().is_none_or(|it| prefix(it, local.0) || prefix(it, peer.0))
        && rule.local_cidr.as_ref().is_none_or(|it| prefix(it, local.0))
        && rule.remote_cidr.as_ref().is_none_or(|it| prefix(it, peer.0))
        && rule.direction.is_none_or(|way| (way == Way::Egress) == (facts.role == Role::Client));
    // What is not known, and never will be, does not fit.
    let unknown = if facts.last { Some(false) } else { None };
    let process = facts.process;
    let parts = [
        Some(of_ends),
        match (rule.uid, process) {
            (None, _) => Some(true),
            (Some(uid), Some(process)) => Some(process.uid == Some(uid)),
            (Some(_), None) => unknown,
        },
        match (&rule.exe, process) {
            (None, _) => Some(true),
            (Some(_), Some(process)) => {
                Some(is_exe(rule, &process.executable, &process.name).unwrap_or(false))
            }
            (Some(_), None) => unknown,
        },
        match (asks_cgroup(rule), facts.cgroup) {
            (false, _) => Some(true),
            (true, Some(path)) => Some(is_cgroup(rule, path)),
            (true, None) => unknown,
        },
    ];
    if parts.contains(&Some(false)) {
        return Some(false);
    }
    let condition = match &rule.condition {
        Some(condition) => condition.holds(facts),
        None => Some(true),
    };
    match condition {
        Some(false) => Some(false),
        _ if parts.contains(&None) => None,
        said => said,
    }
}

fn place(name: String, rule: &Rule) -> Place {
    let ends = [
        (rule.port.is_some(), "port"),
        (rule.local_port.is_some(), "local_port"),
        (rule.remote_port.is_some(), "remote_port"),
        (rule.cidr.is_some(), "cidr"),
        (rule.local_cidr.is_some(), "local_cidr"),
        (rule.remote_cidr.is_some(), "remote_cidr"),
        (rule.direction.is_some(), "direction"),
        (rule.container.is_some(), "container"),
        (rule.cgroup.is_some(), "cgroup"),
    ];
    let of_process = [(rule.uid.is_some(), "uid"), (rule.exe.is_some(), "exe")];
    let kernel = ends.iter().chain(&of_process).filter(|(there, _)| *there).map(|(_, key)| *key);
    // Who accepted a connection is known with its first use.
    let accepted = rule.direction != Some(Way::Egress);
    let daemon = of_process.iter().filter(|(there, _)| *there && accepted);
    let mut daemon: Vec<String> =
        daemon.map(|(_, key)| format!("{key} (of accepted connections, once read from)")).collect();
    if let Some(condition) = &rule.condition {
        let when = match condition.stages().last() {
            Some(Stage::Protocol) => "once its first bytes are seen",
            Some(Stage::Owner) => "once its process is known",
            Some(Stage::Open | Stage::Cgroup) | None => "at its open",
        };
        daemon.push(format!("condition ({when})"));
    }
    Place { name, rule: rule.to_string(), kernel: kernel.collect(), daemon }
}

/// All of IPv4, IPv4-mapped.
const IPV4: Prefix =
    Prefix { len: 96, address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0] };

fn contains(outer: &Prefix, inner: &Prefix) -> bool {
    let bits = u128::from_be_bytes(outer.address) ^ u128::from_be_bytes(inner.address);
    outer.len <= inner.len && bits.checked_shr(128 - outer.len).unwrap_or(0) == 0
}

/// The two generations of rules that connections may have been admitted under, as the kernel side
/// has them: shared by who changes them and who judges by them.
#[derive(Clone, Debug)]
pub struct Rulebook(Arc<Mutex<[Arc<Rules>; 2]>>);

impl Rulebook {
    /// With `rules` in both places.
    pub fn new(rules: Arc<Rules>) -> Self {
        Self(Arc::new(Mutex::new([rules.clone(), rules])))
    }

    /// The rules in a place, 0 or 1.
    pub fn of(&self, slot: usize) -> Arc<Rules> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[slot & 1].clone()
    }

    /// Puts rules there.
    pub fn put(&self, slot: usize, rules: Arc<Rules>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[slot & 1] = rules;
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
