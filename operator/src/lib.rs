//! The operator of RocketMQ clusters.
//!
//! A [`crd::RocketMQCluster`] is turned into name servers, master brokers and slave brokers. The way of one pass is
//! always observe (I/O in) → [`validate`] → [`plan`] (pure) → apply (I/O out) → status. Two hosts walk it:
//! [`controller`] on Kubernetes, and [`local`] on one machine, where every planned pod is a process.
//!
//! Layout: `crd` and `schema` are the resource and what it accepts; `build` makes objects; `plan` decides; `observe`,
//! `apply` and `broker_admin` are the only modules that talk to anything.

pub mod apply;
pub mod backlog;
pub mod broker_admin;
pub mod build;
pub mod conditions;
pub mod controller;
pub mod crd;
pub mod events;
pub mod health;
pub mod lease;
pub mod local;
pub mod manifest;
pub mod observe;
pub mod plan;
pub mod schema;
pub mod topics;
pub mod validate;
