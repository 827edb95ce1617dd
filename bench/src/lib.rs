//! A load generator for RocketMQ brokers, cheap enough to saturate one from a single core.
//!
//! [`load`] drives the [`connection`]s; [`send`], [`pull`] and [`route`] are what it can ask for, [`resting`] what asks for nothing; an
//! [`answer`] is read as far as it must be; [`process_cost`] tells what the broker paid, and
//! [`outcome`] what came of it. [`compare`] puts the Java broker and ours side by side. Speaks the
//! wire as any client does and knows nothing of how a broker is made; only [`store`] leaves the broker
//! out and measures the store itself.

pub mod answer;
pub mod compare;
pub mod connection;
pub mod load;
pub mod outcome;
pub mod patch;
pub mod process_cost;
pub mod pull;
pub mod resting;
pub mod route;
pub mod send;
pub mod store;
pub mod topic;
