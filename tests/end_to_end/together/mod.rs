//! Tests that share one daemon.

mod addresses;
mod bytes;
mod connects;
mod contract;
mod ends;
mod handshakes;
mod health;
mod network;
mod owners;
mod programs;
mod protocols;
mod turns;
