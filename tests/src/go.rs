//! The Go client of RocketMQ as a peer: how its test client (`tests/go/client`) is built, and started.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// The release of `rocketmq-client-go/v2` that `tests/go/client/go.mod` names; a test holds the two together.
pub const VERSION: &str = "2.1.2";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("go")
}

/// A command for the test client, built now if it is not cached yet; `home` becomes its home, where the client keeps the offsets of
/// broadcasting.
pub fn client_command(home: &Path) -> Result<Command> {
    let output = Command::new(directory().join("build-client"))
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("tests/go/build-client")?;
    ensure!(output.status.success(), "the Go test client does not build: {}", output.status);
    let mut command = Command::new(String::from_utf8(output.stdout)?.trim());
    command.env("HOME", home).env_remove("NAMESRV_ADDR").current_dir(home);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_module_file() {
        let file = std::fs::read_to_string(directory().join("client/go.mod")).unwrap_or_default();
        assert!(file.contains(&format!("github.com/apache/rocketmq-client-go/v2 v{VERSION}\n")), "{file}");
    }
}
