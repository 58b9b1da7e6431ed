//! Tests that start and stop daemons themselves.

mod accounted;
mod capture;
mod certificates;
mod children;
mod collector;
mod debugging;
mod drills;
mod environment;
mod eventstore;
mod exporters;
mod gcs;
mod lifecycle;
mod metrics;
mod names;
mod neighbours;
mod objects;
mod older;
mod overload;
mod privileges;
mod queue;
mod receivers;
mod recording;
mod reload;
mod settings;
mod transactions;
mod two_taps;
