//! A background thread of the store that can be woken and stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::StoreError;

/// Stops a worker, at the latest when dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    thread: Thread,
    stop: Arc<AtomicBool>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

/// The worker's own side.
#[derive(Debug)]
pub(crate) struct Signal {
    stop: Arc<AtomicBool>,
}

impl Signal {
    /// One that never stops: for work done without a thread.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn never() -> Self {
        Self { stop: Arc::default() }
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Sleeps until woken, stopped or `timeout`; may wake without reason.
    #[expect(clippy::unused_self, reason = "only a worker may wait like this")]
    pub(crate) fn wait(&self, timeout: Duration) {
        thread::park_timeout(timeout);
    }

    /// Sleeps until stopped or `timeout`.
    pub(crate) fn pause(&self, timeout: Duration) {
        let until = std::time::Instant::now() + timeout;
        while !self.stopped() {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }
}

impl Worker {
    pub(crate) fn spawn(name: &'static str, run: impl FnOnce(Signal) + Send + 'static) -> Result<Self, StoreError> {
        let stop = Arc::new(AtomicBool::new(false));
        let signal = Signal { stop: Arc::clone(&stop) };
        let handle = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(signal))
            .map_err(|e| StoreError::io("start thread", name.as_ref(), e))?;
        Ok(Self { thread: handle.thread().clone(), stop, handle: Mutex::new(Some(handle)) })
    }

    /// For waking: waking a thread that is awake costs one atomic swap and is not lost.
    pub(crate) fn thread(&self) -> Thread {
        self.thread.clone()
    }

    /// Stops the thread and waits for it; idempotent. Called on the worker's own thread it does not wait.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.thread.unpark();
        let handle = self.handle.lock().take();
        if let Some(handle) = handle
            && handle.thread().id() != thread::current().id()
            && handle.join().is_err()
        {
            tracing::error!("a thread of the store panicked");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}
