//! Where our own programs are: in `RMQ_BIN_DIR`, or in the release directory of this build, built once when needed.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail, ensure};

static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// The path of one of our programs (`mqnamesrv`, `mqbroker`, `mqadmin`, `rocketmq-operator`).
pub fn binary(name: &str) -> Result<PathBuf> {
    let path = directory()?.join(name);
    ensure!(path.is_file(), "{} is not built", path.display());
    Ok(path)
}

/// The directory that holds all of our programs.
pub fn directory() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("RMQ_BIN_DIR") {
        return Ok(PathBuf::from(dir));
    }
    match BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))) {
        Ok(dir) => Ok(dir.clone()),
        Err(error) => bail!("building our programs: {error}"),
    }
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

fn build() -> Result<PathBuf> {
    // This program is TARGET/PROFILE/deps/NAME, whatever TARGET was set to.
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(3).with_context(|| format!("{} has no target directory", exe.display()))?;
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--bins", "--target-dir"])
        .arg(target)
        .current_dir(workspace())
        .status()?;
    ensure!(status.success(), "cargo build --release --bins: {status}");
    Ok(target.join("release"))
}
