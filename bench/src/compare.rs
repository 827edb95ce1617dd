//! The Java broker and ours, in turn, on one machine, under one client.
//!
//! A round is a visit to each; which of them goes first changes from round to round. Each visit
//! begins with an empty store and ends with it removed, so nothing is left over from the other.

use std::path::PathBuf;

use anyhow::Result;

use page::Round;
use scenario::Times;
use server::{Kind, Programs};

mod interruption;
pub mod machine;
pub mod many;
pub mod page;
pub mod scenario;
pub mod server;

/// Queues of each topic.
pub(crate) const QUEUES: u32 = 8;

/// What to compare and where.
#[derive(Debug)]
pub struct Comparison {
    /// How many rounds.
    pub rounds: u32,
    /// How long each part takes.
    pub times: Times,
    /// The directory of `mqnamesrv` and `mqbroker`.
    pub ours: PathBuf,
    /// The directory of the script that resolves the Java servers.
    pub java_scripts: PathBuf,
    /// A directory on a disk, for the stores; a few GiB per visit.
    pub data: PathBuf,
    /// The page that takes the tables, if any.
    pub page: Option<PathBuf>,
}

/// Runs the rounds, prints the tables, and writes them into the page.
///
/// # Errors
/// A broker does not start or refuses requests, or the page cannot be written.
pub fn run(comparison: &Comparison) -> Result<()> {
    let programs = Programs::find(&comparison.java_scripts, &comparison.ours)?;
    let data = tempfile::Builder::new().prefix("rocketmq-bench-").tempdir_in(&comparison.data)?;
    let facts = machine::facts(data.path())?;
    interruption::watch(data.path().to_owned())?;
    let mut rounds = Vec::new();
    for number in 1..=comparison.rounds {
        let visit = |kind: Kind| {
            eprintln!("== round {number} of {}: {kind}", comparison.rounds);
            let home = data.path().join("visit");
            let visit = scenario::visit(kind, &programs, &home, comparison.times)?;
            std::fs::remove_dir_all(&home)?;
            anyhow::Ok(visit)
        };
        rounds.push(if number % 2 == 1 {
            let java = visit(Kind::Java)?;
            Round { java, ours: visit(Kind::Ours)? }
        } else {
            let ours = visit(Kind::Ours)?;
            Round { java: visit(Kind::Java)?, ours }
        });
    }
    let tables = page::tables(&rounds);
    eprint!("{tables}");
    let Some(page) = &comparison.page else {
        return Ok(());
    };
    let how = format!(
        "{} rounds; each load runs for {} s after a warm-up, each broker idles for {} s first.",
        comparison.rounds,
        comparison.times.load.as_secs(),
        comparison.times.idle.as_secs()
    );
    page::write(page, &format!("{facts}- {how}\n\n{tables}"))
}
