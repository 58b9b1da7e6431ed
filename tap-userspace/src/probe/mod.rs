//! The kernel programs, from outside: what there is ([`plan`]), loading and attaching it ([`load`]),
//! where ([`cgroup`]), which connections it looks at ([`admission`]), what the running kernel's
//! structures look like ([`kernel_btf`]), the walk over its socket storage ([`snapshot`]), and what
//! all of it takes ([`usage`]).

pub mod admission;
pub mod cgroup;
pub mod kernel_btf;
pub mod load;
pub mod neighbours;
pub mod plan;
pub mod privileges;
pub mod snapshot;
pub mod support;
pub mod sys;
pub mod usage;
