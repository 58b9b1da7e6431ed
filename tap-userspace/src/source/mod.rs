//! Bytes of the kernel side → records. The rings ([`ring`]) and recordings ([`file`]) are both
//! sources; [`decode`] is the one door through which their bytes come in.

pub mod capture;
pub mod decode;
pub mod file;
pub mod ring;
