//! One program of all tests, since each program links the whole host; a chapter is a module:
//! `cargo test -p rwkv-tests --test all media::`.

mod agents;
mod bisect;
mod boards;
mod cards;
mod checks;
mod containers;
#[cfg(feature = "cuda")]
mod cuda_check;
mod damage;
mod devices;
mod export;
mod fast;
mod faults;
mod firmware;
mod fit;
mod handover;
mod media;
mod models;
mod placed;
mod quantised;
mod sampling;
mod sequences;
mod snapshots;
mod starts;
mod states;
mod streams;
mod tunes;
