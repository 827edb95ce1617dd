//! A Kubernetes cluster with our operator in it, driven by `kubectl` and `helm` as a user would.
//!
//! Owns the cluster, the images in it, the operator's release and namespaces for scenarios. Knows nothing of what a scenario
//! asserts. The cluster is that of `RMQ_E2E_KUBECONFIG`, else the one `tests/cluster/cluster` has up, else one that it makes
//! and that ends with this program.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    binaries::workspace,
    client::{Received, Sent},
    java::Version,
    process::wait_until,
};

/// Where the operator runs.
pub const OPERATOR_NAMESPACE: &str = "rmq-e2e-operator";
/// The release and so the deployment of the operator.
pub const RELEASE: &str = "rocketmq-operator";
/// The image with `mqadmin` in it.
pub const BROKER_IMAGE: &str = "localhost/rocketmq-rs/broker:dev";
/// An image with a shell, which ours have not.
pub const SHELL_IMAGE: &str = "localhost/busybox:1";

const DEFINITION: &str = "rocketmqclusters.rocketmq.rs";
const CLIENT_IMAGE: &str = "localhost/rocketmq-rs/java-client:dev";
/// On every namespace a scenario made, so that those of a killed run are found.
const LABEL: &str = "rocketmq.rs/e2e";
/// The images' user; the volumes' files are theirs.
const USER: u32 = 3000;
/// Long enough for anything to become ready on a machine that is busy with others.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// Between two looks at the same thing.
const POLL: Duration = Duration::from_millis(500);

/// Numbers what one run names.
static NAMES: AtomicU32 = AtomicU32::new(0);

/// A cluster in which the operator runs.
#[derive(Debug)]
pub struct Kubernetes {
    kubeconfig: String,
    path: String,
    /// We called for it, so it ends with us.
    raised: bool,
    /// It is the caller's and lives on, whoever called for it.
    foreign: bool,
    /// The definition of our resource goes with us because it came with us.
    defined: bool,
}

impl Kubernetes {
    /// Finds or makes the cluster, builds and loads the images, installs the chart.
    pub fn prepare() -> Result<Self> {
        let mut cluster = Self::find()?;
        if let Err(fault) = cluster.install() {
            cluster.end();
            return Err(fault);
        }
        Ok(cluster)
    }

    fn find() -> Result<Self> {
        let up = script("cluster").arg("env").stderr(Stdio::null()).stdout(Stdio::null()).status()?.success();
        if !up {
            // Where this process is killed, the next run finds the cluster without its holder and ends it.
            let mut command = script("cluster");
            command.arg("up").env("KUBELAB_HOLDER", std::process::id().to_string());
            follow(&mut command)?;
        }
        let environment =
            format!("eval \"$({} env)\"; echo \"$KUBECONFIG\"; echo \"$PATH\"", cluster_script().display());
        let mut command = given(Command::new("bash"));
        let text = run(command.args(["-c", &environment]), None)?;
        let (kubeconfig, path) = text.trim().split_once('\n').context("cluster env says too little")?;
        let foreign = run(script("cluster").arg("kind"), None)?.trim() == "given";
        Ok(Self { kubeconfig: kubeconfig.to_owned(), path: path.to_owned(), raised: !up, foreign, defined: false })
    }

    fn install(&mut self) -> Result<()> {
        let images = tempfile::tempdir()?;
        let shell = images.path().join("shell.tar");
        let client = images.path().join("client.tar");
        let mut build = Command::new(workspace().join("scripts/image"));
        if std::env::var_os("RMQ_E2E_NO_COMPILE").is_some() {
            build.arg("--no-compile");
        }
        follow(&mut build)?;
        let scripts = workspace().join("tests/cluster/scripts");
        run(Command::new(scripts.join("busybox-image")).arg(&shell), None)?;
        run(Command::new(scripts.join("client-image")).arg(&client), None)?;
        let dist = workspace().join("dist");
        let ours = ["namesrv.tar", "broker.tar", "operator.tar"].map(|name| dist.join(name));
        run(script("cluster").arg("load").args(ours).args([shell, client]), None)?;

        self.kubectl(&["delete", "namespace", "--ignore-not-found", "--wait=true", "-l", LABEL])?;
        self.make_namespace(OPERATOR_NAMESPACE)?;
        let chart = workspace().join("charts/rocketmq-operator");
        // Helm installs the definition, but leaves one that is there already as it is.
        self.defined = self.kubectl(&["get", "crd", "--ignore-not-found", DEFINITION])?.is_empty();
        if !self.defined {
            let definitions = chart.join("crds");
            self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &definitions.to_string_lossy()])?;
        }
        let chart = chart.to_string_lossy();
        let mut arguments = vec!["upgrade", "--install", RELEASE, &chart, "-n", OPERATOR_NAMESPACE, "--wait"];
        arguments.extend(["--timeout", "3m", "--set", "logLevel=info\\,rocketmq_operator=debug"]);
        let settings = ["image", "namesrv.image", "broker.image"].map(|key| {
            let name = key.trim_end_matches(".image").replace("image", "operator");
            format!("{key}.repository=localhost/rocketmq-rs/{name},{key}.tag=dev")
        });
        for setting in &settings {
            arguments.extend(["--set", setting]);
        }
        self.helm(&arguments).with_context(|| self.try_kubectl(&["-n", OPERATOR_NAMESPACE, "get", "pods,events"]))?;
        Ok(())
    }

    /// Takes away what this program put there: the whole cluster where it made it, else namespaces and the release.
    pub fn end(&self) {
        if std::env::var_os("RMQ_KEEP").is_some() {
            return;
        }
        let lives_on = self.foreign || !self.raised;
        let uninstalled = if lives_on { self.uninstall() } else { Ok(()) };
        let ended = if self.raised { run(script("cluster").arg("down"), None).map(drop) } else { Ok(()) };
        for fault in [uninstalled, ended].into_iter().filter_map(Result::err) {
            eprintln!("cleaning up: {fault:?}");
        }
    }

    fn uninstall(&self) -> Result<()> {
        self.helm(&["uninstall", RELEASE, "-n", OPERATOR_NAMESPACE, "--ignore-not-found"])?;
        self.kubectl(&["delete", "namespace", "--ignore-not-found", "--wait=true", "-l", LABEL])?;
        if self.defined {
            self.kubectl(&["delete", "crd", "--ignore-not-found", DEFINITION])?;
        }
        Ok(())
    }

    /// What `kubectl ARGUMENTS` prints on standard output.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(self.command("kubectl").args(arguments), None)
    }

    /// As [`kubectl`](Self::kubectl), or what went wrong: for reports.
    pub fn try_kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl(arguments).unwrap_or_else(|fault| format!("{fault:#}"))
    }

    /// What `helm ARGUMENTS` prints on standard output.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        run(self.command("helm").args(arguments), None)
    }

    fn command(&self, program: &str) -> Command {
        // `Command` looks programs up in the PATH it is given only where it is given before the lookup.
        let mut command = Command::new("env");
        command.arg(format!("PATH={}", self.path)).arg(program).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    fn make_namespace(&self, name: &str) -> Result<()> {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": name, "labels": { LABEL: "true", "pod-security.kubernetes.io/enforce": "restricted" } },
        });
        run(self.command("kubectl").args(["apply", "-f", "-"]), Some(&namespace.to_string()))?;
        Ok(())
    }

    /// A new namespace that admits only pods of the restricted standard.
    pub fn namespace(&self, scenario: &str) -> Result<Namespace<'_>> {
        let name = format!(
            "rmq-e2e-{}-{}-{}",
            scenario.replace('_', "-").chars().take(30).collect::<String>().trim_end_matches('-'),
            std::process::id(),
            NAMES.fetch_add(1, Ordering::Relaxed)
        );
        self.make_namespace(&name)?;
        Ok(Namespace { cluster: self, name })
    }
}

/// A namespace of one scenario. Dropping it deletes it and all that is in it.
#[derive(Debug)]
pub struct Namespace<'a> {
    cluster: &'a Kubernetes,
    name: String,
}

impl Namespace<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What `kubectl ARGUMENTS` prints, in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(&[&["-n", &self.name], arguments].concat())
    }

    /// `kubectl apply` of one object.
    pub fn apply(&self, object: &Value) -> Result<String> {
        let mut command = self.cluster.command("kubectl");
        run(command.args(["-n", &self.name, "apply", "-f", "-"]), Some(&object.to_string()))
    }

    /// The objects of a kind, by name.
    pub fn objects(&self, kind: &str, selector: &str) -> Result<BTreeMap<String, Value>> {
        let text = self.kubectl(&["get", kind, "-l", selector, "-o", "json"])?;
        let mut list: Value = serde_json::from_str(&text)?;
        let Value::Array(items) = list["items"].take() else { bail!("not a list: {text}") };
        Ok(items.into_iter().map(|item| (text_of(&item["metadata"]["name"]), item)).collect())
    }

    /// One object.
    pub fn object(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"])?)?)
    }

    /// Applies a `RocketMQCluster` and waits until it is ready.
    pub fn start_cluster(&self, name: &str, spec: &Value) -> Result<()> {
        self.apply(&rocketmq_cluster(name, spec))?;
        self.wait_ready(name)
    }

    /// `kubectl wait --for=condition=Ready`.
    pub fn wait_ready(&self, name: &str) -> Result<()> {
        let cluster = format!("rocketmqcluster/{name}");
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        self.kubectl(&["wait", "--for=condition=Ready", &cluster, &timeout])?;
        Ok(())
    }

    /// The name servers' address inside the cluster.
    pub fn namesrv(&self, cluster: &str) -> String {
        format!("{cluster}-namesrv.{}.svc:9876", self.name)
    }

    /// Runs the Java test client of that version in a pod and returns the messages it printed.
    pub fn java(&self, version: Version, arguments: &[&str]) -> Result<Messages> {
        self.java_with(version, &[], arguments)
    }

    /// The same, with system properties in the form `-Dname=value`.
    pub fn java_with(&self, version: Version, properties: &[&str], arguments: &[&str]) -> Result<Messages> {
        let home = format!("/client-{version}");
        let class_path = format!("{home}/classes:{home}/jars/*");
        let opened = ["java.nio", "sun.nio.ch", "jdk.internal.ref", "java.lang", "java.util"]
            .map(|package| format!("--add-opens=java.base/{package}=ALL-UNNAMED"));
        let mut all = vec!["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];
        all.extend(opened.iter().map(String::as_str));
        all.extend(properties);
        all.extend(["-cp", &class_path, "TestClient"]);
        all.extend(arguments);
        let text = self.run_pod(&Pod { image: CLIENT_IMAGE, arguments: &all, ..Pod::default() })?;
        Messages::parse(&text)
    }

    /// What our `mqadmin ARGUMENTS` prints, in a pod.
    pub fn mqadmin(&self, arguments: &[&str]) -> Result<String> {
        self.run_pod(&Pod { image: BROKER_IMAGE, command: Some("/usr/bin/mqadmin"), arguments, ..Pod::default() })
    }

    /// Runs a pod to its end and returns its log; an error where it fails.
    pub fn run_pod(&self, pod: &Pod<'_>) -> Result<String> {
        let name = format!("run-{}", NAMES.fetch_add(1, Ordering::Relaxed));
        self.apply(&pod.object(&name))?;
        let mut phase = String::new();
        let ended = eventually(PATIENCE, || {
            phase = self.kubectl(&["get", "pod", &name, "-o", "jsonpath={.status.phase}"])?;
            Ok(phase == "Succeeded" || phase == "Failed")
        });
        let log = self.kubectl(&["logs", &name])?;
        ended.with_context(|| format!("{:?} is {phase}:\n{log}", pod.arguments))?;
        ensure!(phase == "Succeeded", "{:?}: {phase}\n{log}", pod.arguments);
        self.kubectl(&["delete", "pod", &name, "--wait=false"])?;
        Ok(log)
    }

    /// What there is to see when a scenario has failed.
    pub fn report(&self) -> String {
        let see = |arguments: &[&str]| self.cluster.try_kubectl(&[&["-n", &self.name], arguments].concat());
        let operator = format!("deployment/{RELEASE}");
        [
            see(&["get", "rocketmqclusters", "-o", "yaml"]),
            see(&["get", "statefulsets,pods,persistentvolumeclaims", "-o", "wide"]),
            see(&["get", "events", "--sort-by=.lastTimestamp"]),
            see(&["logs", "--prefix", "--tail=30", "-l", "app.kubernetes.io/name=rocketmq", "--max-log-requests=20"]),
            self.cluster.try_kubectl(&["-n", OPERATOR_NAMESPACE, "logs", "--tail=60", &operator]),
        ]
        .join("\n--\n")
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        if std::env::var_os("RMQ_KEEP").is_none() {
            self.cluster.try_kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
        }
    }
}

/// A pod that ends, within the restricted standard.
#[derive(Debug, Default)]
pub struct Pod<'a> {
    /// Its image.
    pub image: &'a str,
    /// What is run instead of the image's entry point.
    pub command: Option<&'a str>,
    /// Its arguments.
    pub arguments: &'a [&'a str],
    /// The node it must run on.
    pub node: Option<&'a str>,
    /// Claims, each mounted read-only at `/volumes/NAME`.
    pub claims: &'a [&'a str],
}

impl Pod<'_> {
    fn object(&self, name: &str) -> Value {
        let mut mounts = vec![json!({ "name": "tmp", "mountPath": "/tmp" })];
        let mut volumes = vec![json!({ "name": "tmp", "emptyDir": {} })];
        for (index, claim) in self.claims.iter().enumerate() {
            let volume = format!("volume-{index}");
            mounts.push(json!({ "name": volume, "mountPath": format!("/volumes/{claim}"), "readOnly": true }));
            volumes.push(json!({ "name": volume, "persistentVolumeClaim": { "claimName": claim } }));
        }
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": {
                "restartPolicy": "Never",
                "nodeName": self.node,
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "seccompProfile": { "type": "RuntimeDefault" },
                },
                "containers": [{
                    "name": "main", "image": self.image, "imagePullPolicy": "IfNotPresent",
                    "command": self.command.map(|command| vec![command]), "args": self.arguments,
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
                    },
                    "volumeMounts": mounts,
                }],
                "volumes": volumes,
            },
        })
    }
}

/// What a Java client said about messages.
#[derive(Debug, Default)]
pub struct Messages {
    /// Those it sent.
    pub sent: Vec<Sent>,
    /// Those it received.
    pub received: Vec<Received>,
}

impl Messages {
    fn parse(text: &str) -> Result<Self> {
        let mut messages = Self::default();
        for line in text.lines().filter(|line| line.starts_with('{')) {
            let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            if value.get("status").is_some() && value.get("seq").is_some() {
                messages.sent.push(serde_json::from_value(value)?);
            } else if value.get("msgId").is_some() {
                messages.received.push(serde_json::from_value(value)?);
            }
        }
        Ok(messages)
    }
}

/// A `RocketMQCluster`.
pub fn rocketmq_cluster(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "rocketmq.rs/v1alpha1", "kind": "RocketMQCluster", "metadata": { "name": name }, "spec": spec })
}

/// A JSON string's text, or the JSON itself.
pub fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn cluster_script() -> PathBuf {
    workspace().join("tests/cluster/cluster")
}

fn script(name: &str) -> Command {
    given(Command::new(workspace().join("tests/cluster").join(name)))
}

/// With the caller's own cluster, where there is one.
fn given(mut command: Command) -> Command {
    if let Some(kubeconfig) = std::env::var_os("RMQ_E2E_KUBECONFIG") {
        command.env("KUBECONFIG", kubeconfig).env("CLUSTER_KIND", "given");
    }
    command
}

/// Runs a command that works for minutes: what it says of its progress goes to our standard error.
fn follow(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// Runs a command and returns its standard output.
fn run(command: &mut Command, input: Option<&str>) -> Result<String> {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| format!("{command:?}"))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input.as_bytes()).with_context(|| format!("{command:?}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Asks again, with a pause that a `kubectl` call deserves, until `done`.
pub fn eventually(timeout: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_until(timeout, || {
        let result = done();
        if !matches!(result, Ok(true)) {
            std::thread::sleep(POLL);
        }
        result
    })
}
