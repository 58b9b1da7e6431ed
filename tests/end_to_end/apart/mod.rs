//! Tests that start and stop daemons themselves.

mod capture;
mod children;
mod collector;
mod environment;
mod lifecycle;
mod names;
mod neighbours;
mod older;
mod overload;
mod privileges;
mod recording;
mod settings;
mod transactions;
mod two_taps;
