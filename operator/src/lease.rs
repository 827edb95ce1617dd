//! Leader election by a Lease: of several operators one acts, the others wait.
//!
//! Whether a holder is alive is told by watching its renewals change on our own monotonic clock, never by comparing its
//! wall clock with ours. Every write carries the resource version that was read, so of two that try at once one fails.
//! Losing the lease ends the process: work under way must not go on beside the new leader's.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};

/// How long a lease stands after its last renewal.
const TTL: Duration = Duration::from_secs(15);
/// How often it is renewed, and how often it is looked at by those that wait.
const PERIOD: Duration = Duration::from_secs(5);
/// How long renewal may fail before the holder gives up; shorter than [`TTL`], so that it does so before another begins.
const PATIENCE: Duration = Duration::from_secs(10);

/// A lease that this process holds.
#[derive(Debug)]
pub struct Held {
    api: Api<Lease>,
    lease: Lease,
    identity: String,
}

/// What was last seen of the lease, and since when it has looked so.
#[derive(Debug)]
struct Sighting {
    mark: (Option<String>, Option<MicroTime>),
    since: Instant,
}

/// Waits until the lease `name` in the client's own namespace is ours.
pub async fn acquire(client: &Client, name: &str) -> Result<Held> {
    let api: Api<Lease> = Api::default_namespaced(client.clone());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let identity = format!("{host}_{}_{}", std::process::id(), Timestamp::now().as_nanosecond());
    let mut sighting: Option<Sighting> = None;
    loop {
        match attempt(&api, name, &identity, &mut sighting, Instant::now()).await {
            Ok(Some(lease)) => {
                tracing::info!(lease = name, identity, "leading");
                return Ok(Held { api, lease, identity });
            }
            Ok(None) => {}
            Err(fault) if is_conflict(&fault) => {}
            Err(fault) => tracing::warn!(lease = name, "cannot look at the lease: {fault}"),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Takes the lease if it is free; remembers in `sighting` what it looked like.
async fn attempt(
    api: &Api<Lease>,
    name: &str,
    identity: &str,
    sighting: &mut Option<Sighting>,
    now: Instant,
) -> Result<Option<Lease>, kube::Error> {
    let Some(current) = api.get_opt(name).await? else {
        let lease = Lease {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            spec: Some(taken(None, identity)),
        };
        return api.create(&PostParams::default(), &lease).await.map(Some);
    };
    if !is_free(&current, sighting, now) {
        return Ok(None);
    }
    let spec = taken(current.spec.as_ref(), identity);
    let lease = Lease { spec: Some(spec), ..current };
    api.replace(name, &PostParams::default(), &lease).await.map(Some)
}

/// Whether nobody holds the lease, or its holder has not renewed it for as long as we have watched, which is [`TTL`] or more.
fn is_free(current: &Lease, sighting: &mut Option<Sighting>, now: Instant) -> bool {
    let spec = current.spec.clone().unwrap_or_default();
    if spec.holder_identity.as_deref().unwrap_or_default().is_empty() {
        return true;
    }
    let mark = (spec.holder_identity, spec.renew_time);
    match sighting {
        Some(seen) if seen.mark == mark => now.duration_since(seen.since) >= TTL,
        _ => {
            *sighting = Some(Sighting { mark, since: now });
            false
        }
    }
}

fn taken(before: Option<&LeaseSpec>, identity: &str) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    let transitions = before.and_then(|spec| spec.lease_transitions);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(TTL.as_secs() as i32),
        acquire_time: Some(now.clone()),
        renew_time: Some(now),
        lease_transitions: Some(transitions.map_or(0, |count| count.saturating_add(1))),
        ..LeaseSpec::default()
    }
}

fn is_conflict(fault: &kube::Error) -> bool {
    matches!(fault, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists())
}

impl Held {
    /// Renews the lease for as long as that works, and returns why it does not any more.
    pub async fn keep(&mut self) -> anyhow::Error {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(PERIOD).await;
            match tokio::time::timeout(PERIOD, self.renew()).await {
                Ok(Ok(())) => renewed = Instant::now(),
                Ok(Err(fault)) if is_conflict(&fault) => {
                    return anyhow!("another has taken the lease of {}", self.identity);
                }
                Ok(Err(fault)) => tracing::warn!("cannot renew the lease: {fault}"),
                Err(_) => tracing::warn!("cannot renew the lease: no answer in time"),
            }
            if renewed.elapsed() >= PATIENCE {
                return anyhow!("the lease has not been renewed for {:?}", renewed.elapsed());
            }
        }
    }

    async fn renew(&mut self) -> Result<(), kube::Error> {
        if let Some(spec) = &mut self.lease.spec {
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        let name = self.lease.metadata.name.clone().unwrap_or_default();
        self.lease = self.api.replace(&name, &PostParams::default(), &self.lease).await?;
        Ok(())
    }

    /// Gives the lease up, so that the next one need not wait for it to run out.
    pub async fn release(mut self) -> Result<()> {
        if let Some(spec) = &mut self.lease.spec {
            spec.holder_identity = Some(String::new());
        }
        let name = self.lease.metadata.name.clone().unwrap_or_default();
        self.api.replace(&name, &PostParams::default(), &self.lease).await.context("cannot give up the lease")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, renewed: i64) -> Lease {
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    #[test]
    fn a_lease_is_free_only_after_it_has_stood_still_on_our_own_clock() {
        let start = Instant::now();
        let mut sighting = None;
        // Its wall clock says 1970; that proves nothing.
        assert!(!is_free(&lease("a", 0), &mut sighting, start));
        assert!(!is_free(&lease("a", 0), &mut sighting, start + TTL / 2));
        assert!(!is_free(&lease("a", 5), &mut sighting, start + TTL), "it was renewed");
        assert!(!is_free(&lease("b", 5), &mut sighting, start + TTL + TTL), "it has another holder");
        assert!(is_free(&lease("b", 5), &mut sighting, start + TTL + TTL + TTL));
    }

    #[test]
    fn a_lease_that_was_given_up_is_free_at_once() {
        assert!(is_free(&lease("", 0), &mut None, Instant::now()));
        assert!(is_free(&Lease::default(), &mut None, Instant::now()));
    }

    #[test]
    fn each_change_of_hands_is_counted() {
        let first = taken(None, "a");
        assert_eq!(first.lease_transitions, Some(0));
        assert_eq!(taken(Some(&first), "b").lease_transitions, Some(1));
    }
}
