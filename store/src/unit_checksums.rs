//! Checksums of a consume queue's files, kept up as units are added.
//!
//! RocketMQ's units carry none; the manifest notes these, so that a damaged unit is found when the store is opened
//! instead of hiding a message. May not: write.

use crc32fast::Hasher;

use crate::mapped_file_queue::MappedFileQueue;

/// See the module.
#[derive(Debug)]
pub(crate) struct UnitChecksums {
    /// Queue bytes at which the first file starts.
    pub(crate) first: u64,
    /// Queue bytes up to which units are summed.
    end: u64,
    full: Vec<u32>,
    /// Of the file that `end` lies inside, if it does.
    growing: Option<Hasher>,
}

impl UnitChecksums {
    pub(crate) fn starting_at(first: u64) -> Self {
        Self { first, end: first, full: Vec::new(), growing: None }
    }

    /// Goes on behind full files of `file_len` bytes with these checksums.
    pub(crate) fn of_full(first: u64, full: &[u32], file_len: usize) -> Self {
        Self { end: first + full.len() as u64 * file_len as u64, full: full.to_vec(), ..Self::starting_at(first) }
    }

    /// Adds the next units, all of one file of `file_len` bytes.
    pub(crate) fn add(&mut self, units: &[u8], file_len: usize) {
        let mut sum = self.growing.take().unwrap_or_default();
        sum.update(units);
        self.end += units.len() as u64;
        if (self.end - self.first).is_multiple_of(file_len as u64) {
            self.full.push(sum.finalize());
        } else {
            self.growing = Some(sum);
        }
    }

    /// Sums what was added up to queue byte `to`, and forgets files before `first`. `false` when a file is gone.
    pub(crate) fn follow(&mut self, files: &MappedFileQueue, first: u64, to: u64) -> bool {
        let gone = ((first - self.first) / files.file_size()) as usize;
        self.full.drain(..gone.min(self.full.len()));
        self.first = first;
        if self.end < first {
            *self = Self::starting_at(first);
        }
        while self.end < to {
            let Some(file) = files.find(self.end) else { return false };
            let (from, to) = ((self.end - file.start) as usize, (to.min(file.end()) - file.start) as usize);
            let Some(units) = file.slice(from, to) else { return false };
            self.add(&units, file.len());
        }
        true
    }

    /// The checksum of the file that starts at `start`, of `file_len` bytes, when all of them are summed.
    pub(crate) fn of_file(&self, start: u64, file_len: u64) -> Option<u32> {
        self.full.get(usize::try_from(start.checked_sub(self.first)? / file_len).ok()?).copied()
    }

    /// The file that starts at `start` has other units now: `units`, of `file_len` bytes when it is full.
    pub(crate) fn replace(&mut self, start: u64, units: &[u8], file_len: u64) {
        let Some(number) = start.checked_sub(self.first).map(|behind| (behind / file_len) as usize) else { return };
        if let Some(sum) = self.full.get_mut(number) {
            *sum = crc32fast::hash(units);
        } else if number == self.full.len() {
            // It is being written: summed anew.
            self.growing = None;
            self.end = start;
        }
    }

    /// The checksum of each file's units, oldest file first.
    pub(crate) fn of_files(&self) -> Vec<u32> {
        let growing = self.growing.as_ref().map(|sum| sum.clone().finalize());
        self.full.iter().copied().chain(growing).collect()
    }
}
