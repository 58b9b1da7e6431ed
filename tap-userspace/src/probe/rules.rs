//! The kernel side's rules on connections, which can change while its programs run. Comes in: what a
//! configuration wants; goes out: the maps `ADMISSION`, `PORTS` and `PREFIXES` filled accordingly.
//! Connections that are open keep what was decided of them.

use std::collections::HashMap as Table;

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, MapData, lpm_trie::Key},
};
use tap_common::settings::Admission;

use super::load::{LoadError, Plain, Wanted};

/// Owns the maps.
pub struct Rules {
    admission: Array<MapData, Plain<Admission>>,
    ports: HashMap<MapData, u16, u8>,
    prefixes: LpmTrie<MapData, [u8; 16], u8>,
}

impl Rules {
    /// Takes the maps of the object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, LoadError> {
        let mut map = |name| object.take_map(name).ok_or(LoadError::NoMap(name));
        let failed = |name| move |error| LoadError::Fill(name, error);
        Ok(Self {
            admission: map("ADMISSION")?.try_into().map_err(failed("ADMISSION"))?,
            ports: map("PORTS")?.try_into().map_err(failed("PORTS"))?,
            prefixes: map("PREFIXES")?.try_into().map_err(failed("PREFIXES"))?,
        })
    }

    /// Brings rules into force. What a connection meets that opens meanwhile is a mixture of both, as
    /// the kernel changes one entry at a time: new rules are there before they are asked, old ones
    /// until they no longer are.
    pub fn apply(&mut self, wanted: &Wanted) -> Result<(), LoadError> {
        let failed = |name| move |error| LoadError::Fill(name, error);
        let ports: Table<u16, u8> = wanted.ports.iter().copied().collect();
        let prefixes: Table<(u32, [u8; 16]), u8> =
            wanted.prefixes.iter().map(|(it, says)| ((it.len, it.address), *says)).collect();
        let old_ports: Vec<u16> =
            self.ports.keys().collect::<Result<_, _>>().map_err(failed("PORTS"))?;
        let old_prefixes: Vec<Key<[u8; 16]>> =
            self.prefixes.keys().collect::<Result<_, _>>().map_err(failed("PREFIXES"))?;
        // Room first: the tables may be full of what goes.
        let full = old_ports.len() + ports.len() > tap_common::limits::ADMISSION_ENTRIES as usize
            || old_prefixes.len() + prefixes.len() > tap_common::limits::ADMISSION_ENTRIES as usize;
        if full {
            self.remove(&old_ports, &ports, &old_prefixes, &prefixes)?;
        }
        for (port, says) in &ports {
            self.ports.insert(port, says, 0).map_err(failed("PORTS"))?;
        }
        for ((len, address), says) in &prefixes {
            let key = Key::new(*len, *address);
            self.prefixes.insert(&key, says, 0).map_err(failed("PREFIXES"))?;
        }
        self.admission.set(0, Plain(wanted.admission), 0).map_err(failed("ADMISSION"))?;
        if !full {
            self.remove(&old_ports, &ports, &old_prefixes, &prefixes)?;
        }
        Ok(())
    }

    /// Takes out what is not wanted any more.
    fn remove(
        &mut self,
        old_ports: &[u16],
        ports: &Table<u16, u8>,
        old_prefixes: &[Key<[u8; 16]>],
        prefixes: &Table<(u32, [u8; 16]), u8>,
    ) -> Result<(), LoadError> {
        let failed = |name| move |error| LoadError::Fill(name, error);
        for port in old_ports.iter().filter(|port| !ports.contains_key(port)) {
            self.ports.remove(port).map_err(failed("PORTS"))?;
        }
        for key in old_prefixes {
            if !prefixes.contains_key(&(key.prefix_len(), key.data())) {
                self.prefixes.remove(key).map_err(failed("PREFIXES"))?;
            }
        }
        Ok(())
    }
}
