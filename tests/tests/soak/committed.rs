//! A watcher that asks brokers again and again how far groups have come.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Result, anyhow};
use rocketmq_tests::{deliveries::Committed, reader::Reader};

use crate::QUEUES;

/// Between two rounds over all queues.
const PAUSE: Duration = Duration::from_millis(300);

/// What was answered, by group.
pub(crate) type Samples = BTreeMap<&'static str, Vec<Committed>>;

/// A broker to ask.
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) addr: SocketAddr,
    /// Odd while it runs.
    pub(crate) life: Arc<AtomicU32>,
}

/// The running watcher.
pub(crate) struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Samples>,
}

impl Watcher {
    /// Watches the topics of these groups (group, topic).
    pub(crate) fn start(brokers: Vec<Asked>, groups: Vec<(&'static str, &'static str)>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut samples = Samples::new();
            while !stopped.load(Ordering::Relaxed) {
                for broker in &brokers {
                    // A broker that ends in the middle of it is asked again in its next life.
                    let _ = broker.ask(&groups, &mut samples);
                }
                std::thread::sleep(PAUSE);
            }
            samples
        });
        Self { stop, thread }
    }

    /// Stops, and tells what was seen.
    pub(crate) fn finish(self) -> Result<Samples> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the watcher panicked"))
    }
}

impl Asked {
    fn ask(&self, groups: &[(&'static str, &'static str)], samples: &mut Samples) -> Result<()> {
        let life = self.life.load(Ordering::SeqCst);
        if life.is_multiple_of(2) {
            return Ok(());
        }
        let mut reader = Reader::connect(self.addr)?;
        for (group, topic) in groups {
            for queue_id in 0..QUEUES {
                let Some(offset) = reader.consumer_offset(group, topic, queue_id)? else { continue };
                if self.life.load(Ordering::SeqCst) != life {
                    return Ok(());
                }
                let sample = Committed { broker: self.name.clone(), life, queue_id, offset };
                samples.entry(group).or_default().push(sample);
            }
        }
        Ok(())
    }
}
