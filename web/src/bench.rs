//! The command line's benchmark, but for what is of the terminal.
#![allow(dead_code, reason = "the command line uses more of it")]

#[path = "../../cli/src/bench/cases.rs"]
pub(crate) mod cases;
#[path = "../../cli/src/bench/ceilings/mod.rs"]
pub(crate) mod ceilings;
#[path = "../../cli/src/bench/clock.rs"]
pub(crate) mod clock;
#[path = "../../cli/src/bench/describe.rs"]
pub(crate) mod describe;
#[path = "../../cli/src/bench/measure.rs"]
pub(crate) mod measure;
#[path = "../../cli/src/bench/rates.rs"]
pub(crate) mod rates;
#[path = "../../cli/src/bench/record.rs"]
pub(crate) mod record;
#[path = "../../cli/src/bench/stats.rs"]
pub(crate) mod stats;
#[path = "../../cli/src/bench/subject/mod.rs"]
pub(crate) mod subject;
#[path = "../../cli/src/bench/suites.rs"]
pub(crate) mod suites;
#[path = "../../cli/src/bench/timestamps.rs"]
pub(crate) mod timestamps;
