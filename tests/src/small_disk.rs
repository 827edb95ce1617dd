//! A small ext4 file system of its own, to be filled or broken: an image, mounted through a loop device in a mount namespace that
//! lives as long as a helper process. Nobody else sees the mount, and the kernel undoes it when the last process inside is gone, however the
//! test ends. Needs root with the right to mount.

use std::{
    fs::File,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::process::{Process, scratch_dir};

const QUICK: Duration = Duration::from_secs(20);

/// The foreign file that takes room from a store.
const FOREIGN: &str = "foreign";

/// See the module.
#[derive(Debug)]
pub struct SmallDisk {
    helper: Process,
    image: PathBuf,
    at: PathBuf,
    /// The loop device, without `/dev/`.
    device: String,
    _dir: tempfile::TempDir,
}

impl SmallDisk {
    /// Makes one of `mib` MiB and mounts it at the existing directory `at`.
    pub fn mount(mib: u64, at: &Path) -> Result<Self> {
        let dir = scratch_dir()?;
        let image = dir.path().join("image");
        File::create(&image)?.set_len(mib << 20)?;
        // No blocks are kept back for root, which the tests are.
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).output();
        let made = made.context("mkfs.ext4 is needed (e2fsprogs)")?;
        ensure!(made.status.success(), "mkfs.ext4: {}", String::from_utf8_lossy(&made.stderr));
        let mut unshare = Command::new("unshare");
        let script = "mount -o loop,errors=remount-ro \"$0\" \"$1\" && findmnt -no SOURCE \"$1\" && exec cat";
        unshare.args(["--mount", "sh", "-c", script]).arg(&image).arg(at);
        let helper = Process::spawn("small disk", unshare, &dir.path().join("log"))?;
        let line = helper.wait_for_line(QUICK, |line| line.starts_with("/dev/")).context(
            "no loop mount in a mount namespace: these tests need root with CAP_SYS_ADMIN and /dev/loop-control",
        )?;
        let device = line.trim_start_matches("/dev/").to_owned();
        Ok(Self { helper, image, at: at.to_owned(), device, _dir: dir })
    }

    /// The process whose mount namespace it is.
    pub fn namespace(&self) -> u32 {
        self.helper.pid()
    }

    /// The mounted directory, as it is seen from outside.
    pub fn path(&self) -> PathBuf {
        outside(self.namespace(), &self.at)
    }

    /// Bytes that can still be written.
    pub fn available(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(self.path())?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Takes all room but `left` bytes with a foreign file.
    pub fn fill(&self, left: u64) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(self.path().join(FOREIGN))?;
        let block = vec![0x5A; 64 << 10];
        loop {
            let room = self.available()?.saturating_sub(left);
            let count = block.len().min(usize::try_from(room).unwrap_or(block.len())).max(usize::from(left == 0));
            if count == 0 {
                return Ok(());
            }
            match file.write_all(&block[..count]).and_then(|()| file.sync_data()) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("the foreign file"),
            }
        }
    }

    /// Removes the foreign file.
    pub fn free(&self) -> Result<()> {
        std::fs::remove_file(self.path().join(FOREIGN)).context("the foreign file")
    }

    /// An error as the kernel meets it on a bad disk: it makes the file system read-only at once, whoever writes.
    pub fn turn_read_only(&self) -> Result<()> {
        let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", self.device);
        std::fs::write(&trigger, "1").with_context(|| format!("{trigger}: a kernel's own way to break ext4"))
    }

    /// Unmounts it and mounts it again, writable. Nobody may use it.
    pub fn mount_again(&mut self) -> Result<()> {
        let mut command = Command::new("sh");
        let script = "umount \"$1\" && mount -o loop,errors=remount-ro \"$0\" \"$1\" && findmnt -no SOURCE \"$1\"";
        command.args(["-c", script]).arg(&self.image).arg(&self.at);
        let output = entered(self.namespace(), &command).output()?;
        ensure!(output.status.success(), "mounting again: {}", String::from_utf8_lossy(&output.stderr));
        let device = String::from_utf8(output.stdout)?;
        device.trim().trim_start_matches("/dev/").clone_into(&mut self.device);
        Ok(())
    }
}

/// `path` of the mount namespace of process `namespace`, as it is seen from outside.
pub(crate) fn outside(namespace: u32, path: &Path) -> PathBuf {
    let inside = path.strip_prefix("/").unwrap_or(path);
    Path::new("/proc").join(namespace.to_string()).join("root").join(inside)
}

/// `command`, run in the mount namespace of process `namespace`.
pub(crate) fn entered(namespace: u32, command: &Command) -> Command {
    let mut entered = Command::new("nsenter");
    entered
        .arg(format!("--mount=/proc/{namespace}/ns/mnt"))
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => entered.env(name, value),
            None => entered.env_remove(name),
        };
    }
    entered
}
