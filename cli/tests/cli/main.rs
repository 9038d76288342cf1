//! The command line, run as its users run it.
//!
//! Where the tests run through a launcher (the fetched software adapter), so does the command line: see `support.rs`.

mod answers;
mod bench;
mod biases;
mod compare;
mod decode;
mod demo;
mod faults;
mod features;
mod files;
mod generate;
mod gpu_script;
mod linear;
mod lsh;
mod ops;
mod packed;
mod ranks;
mod report;
mod run;
mod scores;
mod support;
mod tune;
mod verdicts;
mod verify;
mod weights;
