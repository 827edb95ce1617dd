//! What the hot functions cost: instructions of one operation each, counted by valgrind and held against the limits in
//! `tests/goldens/instructions.<architecture>.txt`. Unlike times, these are the same on a busy machine.
//!
//! The operations are tests of `rocketmq-broker` and `rocketmq-namesrv` (`src/instructions.rs`), built statically with the flags of
//! the images. Only what happens inside of their `counted_*` functions is counted, so neither start nor other threads matter. What
//! a processor can do still chooses between variants of a few functions (copies in libc, CRC-32), and so do the seeds of hash tables
//! and versions of the compiler: a limit is [`TOLERANCE_PERCENT`] above what was measured when it was set. libc is kept from
//! choosing by `GLIBC_TUNABLES`.
//!
//! `RMQ_BLESS=1` sets the limits anew.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use rocketmq_tests::{binaries::workspace, process::scratch_dir};
use serde_json::Value;

/// Package and test.
const OPERATIONS: [(&str, &str); 5] = [
    ("rocketmq-broker", "send"),
    ("rocketmq-broker", "pull"),
    ("rocketmq-broker", "tag_filter"),
    ("rocketmq-broker", "sql_filter"),
    ("rocketmq-namesrv", "route"),
];
/// How often one run does the operation: `TIMES` of the tests.
const TIMES: u64 = 2_000;
const TOLERANCE_PERCENT: u64 = 10;
/// So that every x86-64 processor copies by the same instructions.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX,-ERMS,-FSRM";

#[test]
fn hot_functions_cost_no_more_than_they_did() -> Result<()> {
    let programs = build()?;
    let mut measured = BTreeMap::new();
    for (package, name) in OPERATIONS {
        let program = programs.get(package).with_context(|| format!("{package} has no test program"))?;
        measured.insert(name, count(program, name).with_context(|| format!("{package}: {name}"))?);
    }
    let path = workspace().join(format!("tests/goldens/instructions.{}.txt", std::env::consts::ARCH));
    if std::env::var_os("RMQ_BLESS").is_some() {
        return std::fs::write(&path, limits_of(&measured)).with_context(|| path.display().to_string());
    }
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!("no limits for this architecture; RMQ_BLESS=1 scripts/test instructions makes {}", path.display())
    })?;
    let table = compared(&measured, &parse(&text)?)?;
    eprintln!("{table}");
    ensure!(
        !table.contains(OVER),
        "more instructions than allowed:\n{table}\nIf that is meant: RMQ_BLESS=1 scripts/test instructions, and say why in the commit."
    );
    Ok(())
}

/// Builds the test programs as the images' programs are built, so that what both stand on is built once; returns them by package.
fn build() -> Result<BTreeMap<String, PathBuf>> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(3).with_context(|| format!("{} has no target directory", exe.display()))?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["test", "--no-run", "--locked", "--release", "--lib", "--message-format=json", "--target", &triple])
        .arg("--target-dir")
        .arg(target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
        .current_dir(workspace());
    for package in OPERATIONS.map(|(package, _)| package).iter().collect::<std::collections::BTreeSet<_>>() {
        command.args(["-p", package]);
    }
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    let mut programs = BTreeMap::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let message: Value = serde_json::from_str(line)?;
        if let Some(program) = message["executable"].as_str() {
            let name = message["target"]["name"].as_str().context("a program without a name")?;
            programs.insert(name.replace('_', "-"), PathBuf::from(program));
        }
    }
    Ok(programs)
}

/// Instructions of one operation.
fn count(program: &PathBuf, name: &str) -> Result<u64> {
    let dir = scratch_dir()?;
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=*::counted_*")
        .arg(program)
        .args(["--exact", &format!("instructions::{name}"), "--test-threads=1"])
        .env("GLIBC_TUNABLES", TUNABLES)
        .env("TMPDIR", dir.path());
    let output = command.output().context("valgrind does not start; scripts/setup installs it")?;
    let log = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("1 passed"), "{command:?}: {}\n{said}\n{log}", output.status);
    let collected = log.lines().find_map(|line| line.split_once("Collected : ")).context("valgrind counted nothing")?;
    let collected: u64 = collected.1.trim().parse()?;
    ensure!(collected >= TIMES, "nothing was counted");
    Ok(collected / TIMES)
}

fn limits_of(measured: &BTreeMap<&str, u64>) -> String {
    let mut text = format!(
        "# Instructions of one operation at most: {TOLERANCE_PERCENT} % above what was measured. See tests/tests/instructions.rs.\n"
    );
    for (name, count) in measured {
        // A string takes no errors.
        let _ = writeln!(text, "{name} {}", count + (count * TOLERANCE_PERCENT).div_ceil(100));
    }
    text
}

fn parse(text: &str) -> Result<BTreeMap<&str, u64>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, limit) = line.split_once(' ').with_context(|| format!("{line:?} is no limit"))?;
            Ok((name, limit.parse()?))
        })
        .collect()
}

const OVER: &str = "over";

/// A line for each operation: measured, limit, and whether it is over.
fn compared(measured: &BTreeMap<&str, u64>, limits: &BTreeMap<&str, u64>) -> Result<String> {
    let mut table = format!("{:<12} {:>10} {:>10}\n", "operation", "measured", "limit");
    for (name, count) in measured {
        let Some(limit) = limits.get(name) else { bail!("{name} has no limit; RMQ_BLESS=1 gives it one") };
        let verdict = if count > limit { OVER } else { "" };
        writeln!(table, "{name:<12} {count:>10} {limit:>10} {verdict}")?;
    }
    Ok(table)
}

#[test]
fn what_costs_more_than_its_limit_is_named() {
    let measured = BTreeMap::from([("pull", 1_100), ("send", 1_111)]);
    let text = limits_of(&BTreeMap::from([("pull", 1_000), ("send", 1_009)]));
    let limits = parse(&text).expect("limits");
    assert_eq!(limits, BTreeMap::from([("pull", 1_100), ("send", 1_110)]));
    let table = compared(&measured, &limits).expect("a table");
    assert!(table.lines().any(|line| line.starts_with("send") && line.ends_with(OVER)), "{table}");
    assert!(table.lines().any(|line| line.starts_with("pull") && !line.ends_with(OVER)), "{table}");
    assert!(compared(&BTreeMap::from([("other", 1)]), &limits).is_err());
}
