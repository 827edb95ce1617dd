//! Certificates for a test, written by OpenSSL: an authority, and what it issues.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::process::scratch_dir;

/// The password of the encrypted keys.
pub const PASSWORD: &str = "rocketmq";

/// An authority and the directory of its files: `ca.pem`, and what [`issue`](Self::issue) wrote.
#[derive(Debug)]
pub struct Authority {
    dir: TempDir,
}

impl Authority {
    /// A new one, which nobody else believes.
    pub fn new() -> Result<Self> {
        let authority = Self { dir: scratch_dir()? };
        authority
            .openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=authority")?;
        std::fs::write(authority.dir.path().join("v3.ext"), "basicConstraints=CA:FALSE\n")?;
        Ok(authority)
    }

    /// Writes `name.pem`, `name.key` (PKCS#8) and `name.encrypted.key` (the same with [`PASSWORD`]).
    pub fn issue(&self, name: &str) -> Result<()> {
        self.openssl(&format!("req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"))?;
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 30 -extfile v3.ext"
        ))?;
        self.openssl(&format!("pkcs8 -topk8 -in {name}.key -out {name}.encrypted.key -passout pass:{PASSWORD}"))
    }

    /// The path of one of its files.
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn openssl(&self, line: &str) -> Result<()> {
        let output = Command::new("openssl").args(line.split(' ')).current_dir(self.dir.path()).output();
        let output = output.context("openssl is needed")?;
        ensure!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}
