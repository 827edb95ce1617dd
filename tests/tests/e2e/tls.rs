//! A cluster that serves TLS alone, from a Secret.

use anyhow::{Context as _, Result, ensure};
use rocketmq_tests::{
    certificates::Authority,
    client::Sent,
    history::History,
    java::Version,
    kubernetes::{Kubernetes, Namespace, PATIENCE, eventually},
};
use serde_json::json;

use crate::{brokers, names, small};

/// Of Java's clients.
const TLS: &str = "-Dtls.enable=true";

pub(crate) fn tls_is_all_that_is_served(_: &Kubernetes, namespace: &Namespace<'_>) -> Result<()> {
    let authority = Authority::new()?;
    authority.issue("server")?;
    let files = [("tls.crt", "server.pem"), ("tls.key", "server.key"), ("ca.crt", "ca.pem")];
    let data = files
        .iter()
        .map(|(key, file)| Ok(((*key).to_owned(), json!(std::fs::read_to_string(authority.path(file))?))))
        .collect::<Result<serde_json::Map<_, _>>>()?;
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": { "name": "certificates" },
        "stringData": data,
    }))?;
    let mut spec = small(1, 1);
    spec["tls"] = json!({ "secretName": "certificates", "mode": "Enforcing", "verify": true });
    namespace.start_cluster("secret", &spec)?;
    let address = namespace.namesrv("secret");

    let produce = |properties: &[&str], run: &str| {
        let arguments = ["produce", "--topic", "orders", "--run", run, "--count", "32", "--retries", "0"];
        let arguments = [&arguments[..], &["--timeout", crate::SEND_TIMEOUT, "--namesrv", &address]].concat();
        namespace.java_with(Version::V5_5_0, properties, &arguments)
    };
    let mut sent = produce(&[TLS], "one")?.sent;
    ensure!(sent.len() == 32 && sent.iter().all(Sent::is_ok), "{sent:?}");
    // A client without TLS is closed out by every name server and every broker.
    let plain = produce(&[], "plain").map(|messages| messages.sent).unwrap_or_default();
    ensure!(!plain.iter().any(Sent::is_ok), "plain connections are served: {plain:?}");

    // The operator has to talk to brokers for this: topics are copied to the new group.
    namespace.kubectl(&["scale", "rocketmqcluster/secret", "--replicas=2"])?;
    eventually(PATIENCE, || Ok(namespace.object("rocketmqcluster", "secret")?["status"]["readyReplicas"] == 2))
        .context("a second group does not serve")?;
    eventually(PATIENCE, || {
        let more = produce(&[TLS], &format!("two-{}", sent.len()))?.sent;
        let both = brokers(&more) == names(["broker-0", "broker-1"]);
        sent.extend(more);
        Ok(both)
    })
    .context("the second group gets no message")?;
    let read = ["read", "--topic", "orders", "--namesrv", &address];
    let mut history = History::default();
    history.sent(sent).received(namespace.java_with(Version::V4_9_7, &[TLS], &read)?.received).check_without_gaps()
}
