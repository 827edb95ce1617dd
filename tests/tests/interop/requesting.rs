//! Scenarios of request and reply: a producer that waits for a consumer's word.

use std::time::Duration;

use anyhow::{Result, ensure};
use rocketmq_tests::{process::wait_until, wire::Wire};

use crate::{
    Scenario,
    peer::{Peer, Session},
};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("request_reply", request_reply),
    ("request_without_reply", request_without_reply),
    ("reply_to_a_requester_that_is_gone", reply_to_a_requester_that_is_gone),
];

const LONG: Duration = Duration::from_mins(2);

fn request_reply(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("RequestReply", 4)?;
        let replier =
            session.client.consume(&topic, &format!("g_{topic}")).flag("reply").flag("until-stdin-closes").start()?;
        replier.wait_for_event("assigned", LONG, |_| true)?;
        for (mode, count) in [("request", 20), ("request-async", 100)] {
            let asked = session
                .client
                .produce(&topic)
                .arg("group", format!("p_{topic}_{mode}"))
                .arg("mode", mode)
                .arg("count", count)
                .arg("timeout", 30_000)
                .run(LONG)?;
            let bad: Vec<_> = asked.sent.iter().filter(|sent| sent.status != "REPLIED").take(3).collect();
            ensure!(asked.sent.len() == count && bad.is_empty(), "{mode}: {} asked; {bad:?}", asked.sent.len());
        }
        let replied = replier.stop(LONG)?;
        // A redelivered request would be answered twice.
        let replies: Vec<_> = replied.events_named("reply").collect();
        ensure!(
            replies.len() == 120 && replies.iter().all(|reply| reply["result"] == "SEND_OK"),
            "{} replies; not OK: {:?}",
            replies.len(),
            replies.iter().find(|reply| reply["result"] != "SEND_OK")
        );
        Ok(())
    })
}

fn request_without_reply(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("RequestOnly", 2)?;
        for mode in ["request", "request-async"] {
            let asked =
                session.client.produce(&topic).arg("mode", mode).arg("count", 1).arg("timeout", 3_000).run(LONG)?;
            ensure!(asked.sent.iter().all(|sent| sent.status == "TIMEOUT"), "{mode}: {:?}", asked.sent);
            ensure!(asked.sent.len() == 1, "{mode}: {} answers", asked.sent.len());
        }
        // The requests themselves are ordinary messages.
        let there = session.client.consume(&topic, &format!("g_{topic}")).arg("expect", 2).run(LONG)?;
        ensure!(there.received.len() == 2, "{:?}", there.received);
        Ok(())
    })
}

fn reply_to_a_requester_that_is_gone(peer: &Peer) -> Result<()> {
    peer.shared(|session| {
        let topic = session.topic("RequesterGone", 1)?;
        let replier = session
            .client
            .consume(&topic, &format!("g_{topic}"))
            .flag("reply-at-end")
            .flag("until-stdin-closes")
            .start()?;
        replier.wait_for_event("assigned", LONG, |_| true)?;
        let group = format!("p_{topic}");
        let requester = session
            .client
            .produce(&topic)
            .arg("group", &group)
            .arg("mode", "request")
            .arg("timeout", 120_000)
            .start()?;
        let asked = replier.wait_for_event("asked", LONG, |_| true)?;
        requester.kill()?;
        wait_until_gone(session, &group)?;
        let replied = replier.stop(LONG)?;
        let replies: Vec<_> = replied.events_named("reply").collect();
        let wanted =
            format!("push reply message fail, channel of <{}> not found.", asked["by"].as_str().unwrap_or("?"));
        ensure!(
            replies.len() == 1
                && replies[0]["error"]
                    .as_str()
                    .is_some_and(|error| error.contains("CODE: 1") && error.contains(&wanted)),
            "{replies:?}, wanted {wanted}"
        );
        Ok(())
    })
}

/// Waits until no broker knows a producer of that group.
fn wait_until_gone(session: &Session<'_>, group: &str) -> Result<()> {
    for broker in &session.cluster.brokers {
        let mut wire = Wire::connect(broker.socket(), Duration::from_secs(20))?;
        wait_until(LONG, || {
            let members = wire.call(204, &[("producerGroup", group)], &[])?;
            // Java keeps the group when its last member is gone.
            Ok(members.code != 0 || !String::from_utf8_lossy(&members.body).contains("clientId"))
        })?;
    }
    Ok(())
}
