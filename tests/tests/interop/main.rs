//! The real Java and Go clients and Java's tools against our servers, and against Java's own as a control: a scenario that fails there too
//! says something about the scenario.
//!
//! Every scenario is run for each version of the Java client, and those of `going` for the Go client. The clusters are shared by the scenarios and live as long as this
//! program. `cargo test --test interop -- NAME` chooses; a trial's name is `servers/client version/scenario`. `RMQ_SCENARIOS=a,b` keeps
//! only scenarios of these names.

mod admin;
mod consuming;
mod delaying;
mod going;
mod lifecycle;
mod pairs;
mod peer;
mod requesting;
mod sending;
mod tls;
mod tracing;
mod transacting;

use std::{
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Failed, Trial};
use peer::{Clusters, Peer};
use rocketmq_tests::{client::Library, cluster::Kind, java::Version};

type Scenario = fn(&Peer) -> anyhow::Result<()>;

/// Longer than the longest scenario on a machine that is busy with others.
const SLOW: Duration = Duration::from_mins(5);

fn main() {
    let mut args = Arguments::from_args();
    // Most of a scenario is waiting; three at a time fit on two cores, and leave a starting JVM enough of them.
    args.test_threads.get_or_insert(3);
    let clusters = Arc::new(Clusters::default());
    let mut trials = Vec::new();
    // The Java beside the Go client is the one that it was made for.
    let libraries = Version::ALL.map(|version| (Library::Java(version), version));
    for (library, client) in libraries.into_iter().chain([(Library::Go, Version::V4_9_7)]) {
        for servers in [Kind::Ours, Kind::Java(client)] {
            let control = servers != Kind::Ours;
            for (name, scenario) in scenarios(library) {
                // With Java in every role, these are the same as their counterparts.
                if control && (name.starts_with("our_") || name.starts_with("we_")) {
                    continue;
                }
                // Our own mqadmin has the layouts of 4.9 whatever the client.
                if name == "mqadmin_of_ours" && client != Version::V4_9_7 {
                    continue;
                }
                if client == Version::V4_9_7 && (delaying::OF_5.contains(&name) || admin::OF_5.contains(&name)) {
                    continue;
                }
                let clusters = Arc::clone(&clusters);
                let trial = move || {
                    let began = Instant::now();
                    let peer = Peer { library, client, servers, clusters };
                    let result = scenario(&peer).map_err(|error| Failed::from(format!("{error:#}")));
                    let took = began.elapsed();
                    if took > SLOW {
                        return Err(Failed::from(format!("took {took:?}")));
                    }
                    result
                };
                trials.push(Trial::test(format!("{servers}/{library}/{name}"), trial));
            }
        }
    }
    let conclusion = libtest_mimic::run(&args, trials);
    // `exit` runs no destructors, and the clusters' processes must not stay.
    drop(clusters);
    let _ = std::io::stdout().flush();
    conclusion.exit();
}

fn scenarios(library: Library) -> Vec<(&'static str, Scenario)> {
    let mut all = [
        sending::SCENARIOS,
        requesting::SCENARIOS,
        consuming::SCENARIOS,
        delaying::SCENARIOS,
        transacting::SCENARIOS,
        admin::SCENARIOS,
        lifecycle::SCENARIOS,
        pairs::SCENARIOS,
        tls::SCENARIOS,
        tracing::SCENARIOS,
    ]
    .concat();
    if library == Library::Go {
        all.retain(|(name, _)| going::AS_JAVA.contains(name));
        all.extend(going::SCENARIOS);
    }
    if let Ok(wanted) = std::env::var("RMQ_SCENARIOS") {
        all.retain(|(name, _)| wanted.split(',').any(|one| one == *name));
    }
    all
}
