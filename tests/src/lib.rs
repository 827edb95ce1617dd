//! What the tests of more than one crate stand on: child processes that cannot outlive their test, our servers and Java's
//! behind one handle, the Java and the Go client as one typed thing, and the checks of what it saw.
//!
//! Nothing here is a test of its own; those are in `tests/`. Environment: `RMQ_BIN_DIR` (where our programs are; otherwise they are
//! built), `RMQ_JAVA_CACHE` and `RMQ_GO_CACHE` (where the Java peers and
//! the Go client are; otherwise the user's cache directory), `RMQ_KEEP` (keep scratch directories).

pub mod binaries;
pub mod certificates;
pub mod client;
pub mod cluster;
pub mod commits;
pub mod deliveries;
pub mod go;
pub mod history;
pub mod java;
pub mod kubernetes;
pub mod ledger;
pub mod load;
pub mod mqadmin;
pub mod ports;
pub mod process;
pub mod reader;
pub mod recorder;
pub mod session;
pub mod small_disk;
pub mod stored_message;
pub mod wire;
