//! The handlers of the request codes, one file a family; the router stands in `requests`.

pub(crate) mod brokers;
pub(crate) mod configuration;
pub(crate) mod kv;
pub(crate) mod routes;
pub(crate) mod topics;
