//! The positions by which a writer and readers share a file without a lock, in every order that loom can think of.
//!
//! A byte here is one that loom hands out as it was before, too, unless the read is ordered behind the write: on any
//! machine, not only where the processor happens to reorder.

#[path = "../src/published.rs"]
mod published;

#[path = "../src/turn.rs"]
mod turn;

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
}

use loom::sync::Arc;
use loom::sync::atomic::{
    AtomicU8, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use loom::thread;
use published::Published;
use turn::Turn;

/// A file: bytes, and up to where they are written.
struct File {
    bytes: Vec<AtomicU8>,
    published: Published,
}

impl File {
    fn new(len: usize) -> Arc<Self> {
        let bytes = (0..len).map(|_| AtomicU8::new(0)).collect();
        Arc::new(Self { bytes, published: Published::new(0) })
    }

    /// As `MappedWriter::append`: the bytes, then the position.
    fn append(&self, bytes: &[u8]) {
        let at = self.published.position();
        for (cell, byte) in self.bytes[at..].iter().zip(bytes) {
            cell.store(*byte, Relaxed);
        }
        self.published.publish(at + bytes.len());
    }

    /// As `MappedFile::slice` of all there is.
    fn read(&self) -> Vec<u8> {
        self.bytes[..self.published.position()].iter().map(|cell| cell.load(Relaxed)).collect()
    }
}

#[test]
fn who_sees_a_position_sees_the_bytes_before_it() {
    loom::model(|| {
        let file = File::new(4);
        let reader = {
            let file = Arc::clone(&file);
            thread::spawn(move || {
                let first = file.read();
                assert!([1, 2, 3, 4].starts_with(&first) && first.len() != 1, "{first:?}");
                let second = file.read();
                assert!(second.starts_with(&first), "{second:?} after {first:?}");
            })
        };
        assert!(file.published.take_writer());
        file.append(&[1, 2]);
        file.append(&[3, 4]);
        file.published.give_writer_back();
        reader.join().unwrap();
    });
}

#[test]
fn one_writes_at_a_time_and_the_next_goes_on_where_that_one_stopped() {
    loom::model(|| {
        let file = File::new(4);
        let writers: Vec<_> = [1, 2]
            .map(|byte| {
                let file = Arc::clone(&file);
                thread::spawn(move || {
                    if !file.published.take_writer() {
                        return false;
                    }
                    assert!(!file.published.take_writer(), "two writers");
                    let before = file.read();
                    file.append(&[byte, byte]);
                    let after = file.read();
                    assert!(after.starts_with(&before) && after.ends_with(&[byte, byte]), "{before:?} {after:?}");
                    file.published.give_writer_back();
                    true
                })
            })
            .into();
        let wrote: Vec<bool> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        let count = wrote.iter().filter(|wrote| **wrote).count();
        assert!(count > 0, "both refused");
        assert_eq!(file.read().len(), 2 * count);
    });
}

#[test]
fn who_sees_the_logs_end_finds_it_in_the_files() {
    // As the commit log and the consume queues publish: the file's position, then the end of the whole.
    loom::model(|| {
        let files = [File::new(2), File::new(2)];
        let end = Arc::new(Published::new(0));
        let reader = {
            let (files, end) = (files.clone(), Arc::clone(&end));
            thread::spawn(move || {
                let end = end.position();
                for (file, start) in files.iter().zip([0, 2]) {
                    let below = end.saturating_sub(start).min(2);
                    assert!(file.read().len() >= below, "the file from {start} lacks what is below {end}");
                }
            })
        };
        files[0].append(&[1, 2]);
        end.publish(2);
        files[1].append(&[3]);
        end.publish(3);
        reader.join().unwrap();
    });
}

#[test]
fn a_time_read_before_the_end_is_of_a_message_below_it() {
    // As the flusher notes the checkpoint: all messages of that time must be below what it flushes.
    loom::model(|| {
        let (end, time) = (Arc::new(Published::new(0)), Arc::new(Published::new(0)));
        let flusher = {
            let (end, time) = (Arc::clone(&end), Arc::clone(&time));
            thread::spawn(move || {
                let time = time.position();
                assert!(end.position() >= time, "flushed up to {}, noted {time}", end.position());
            })
        };
        for message in 1..3 {
            end.publish(message);
            time.publish(message);
        }
        flusher.join().unwrap();
    });
}

/// As appends and the dispatcher: each publishes one piece of work, and whoever has the turn does all that there is.
#[test]
fn what_is_published_before_the_turn_is_asked_for_is_done_by_one_or_the_other() {
    loom::model(|| {
        let (published, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (turn, alone) = (Arc::new(Turn::default()), Arc::new(AtomicU8::new(0)));
        let publish = move |published: &AtomicUsize, done: &AtomicUsize, turn: &Turn, alone: &AtomicU8| {
            published.fetch_add(1, Release);
            let work = || {
                assert_eq!(alone.fetch_add(1, Relaxed), 0, "two have the turn");
                done.store(published.load(Acquire), Release);
                alone.fetch_sub(1, Relaxed);
            };
            turn.run(work);
        };
        let other = {
            let (published, done, turn, alone) =
                (Arc::clone(&published), Arc::clone(&done), Arc::clone(&turn), Arc::clone(&alone));
            thread::spawn(move || publish(&published, &done, &turn, &alone))
        };
        publish(&published, &done, &turn, &alone);
        other.join().unwrap();
        assert_eq!(done.load(Acquire), 2);
    });
}

#[test]
fn a_panic_gives_the_turn_back() {
    loom::model(|| {
        let turn = Turn::default();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| turn.run(|| panic!("on purpose"))));
        assert!(panicked.is_err());
        assert_eq!(turn.run(|| 5), Some(5));
    });
}
