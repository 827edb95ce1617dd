//! What is between the two nodes: connections whose bytes go some way at a time, are late, or are lost.
//!
//! Plays what `master.rs` and `slave.rs` do with sockets. May not: decide what is sent, compared or believed.

use std::net::SocketAddr;

use bytes::{BufMut as _, BytesMut};
use rand::RngExt as _;
use rocketmq_store::MessageStore;

use super::Pair;
use crate::ha::receiver::{Common, Diverged, Receiver};
use crate::ha::sender::Sender;
use crate::ha::wire::Report;

/// A connection: what each end knows, and what is between them.
pub(super) struct Link {
    pub(super) remote: SocketAddr,
    pub(super) sender: Sender,
    /// `None` when the slave has left: what it said may arrive all the same.
    pub(super) receiver: Option<Receiver>,
    to_slave: BytesMut,
    arrived_at_slave: BytesMut,
    to_master: BytesMut,
    arrived_at_master: BytesMut,
}

impl Pair {
    pub(super) fn connect(&mut self) {
        if let Some(newest) = self.links.last_mut() {
            // The slave left; what it said is on its way still, and the master has not noticed.
            newest.receiver = None;
        }
        if self.links.len() > 2 {
            self.forget_link(0);
        }
        self.arrive();
    }

    fn arrive(&mut self) {
        let back = 300_u64.saturating_mul(4_u64.saturating_pow(self.depth));
        let master = self.master.open();
        let known = self.asks.then(|| (master.min_physical_offset(), master.max_physical_offset()));
        let receiver = match Receiver::new(self.slave.open(), back, known) {
            Ok(receiver) => receiver,
            Err(diverged) => {
                self.diverged = Some(diverged);
                return;
            }
        };
        let remote = ([10, 0, 0, 2], self.next_port).into();
        self.next_port += 1;
        let mut link = Link {
            remote,
            sender: Sender::default(),
            receiver: Some(receiver),
            to_slave: BytesMut::new(),
            arrived_at_slave: BytesMut::new(),
            to_master: BytesMut::new(),
            arrived_at_master: BytesMut::new(),
        };
        link.report(self.slave.open(), None);
        self.links.push(link);
    }

    fn forget_link(&mut self, at: usize) {
        let link = self.links.remove(at);
        if !self.asks && link.receiver.as_ref().is_some_and(Receiver::begins_too_late) {
            self.depth += 1;
        }
        self.followers.left(link.remote);
    }

    /// What is between the two is lost.
    pub(super) fn break_newest(&mut self) {
        if !self.links.is_empty() {
            self.forget_link(self.links.len() - 1);
        }
    }

    /// Some bytes go some way.
    pub(super) fn network(&mut self) {
        if self.links.is_empty() {
            return;
        }
        for _ in 0..4 {
            // Mostly the newest; what older ones were told arrives late.
            let newest = self.links.len().saturating_sub(1);
            let at = if self.rng.random_bool(0.8) { newest } else { self.rng.random_range(0..newest + 1) };
            if at >= self.links.len() {
                return;
            }
            let size = [1, 8, 13, 200, 5000, 5000][self.rng.random_range(0..6_usize)];
            match self.rng.random_range(0..3) {
                0 => self.send(at, size),
                1 => self.deliver_to_slave(at, size),
                _ => self.deliver_to_master(at, size),
            }
        }
    }

    /// The master writes.
    pub(super) fn send(&mut self, at: usize, size: usize) {
        let batch = self.rng.random_range(1..3000);
        let store = self.master.open();
        let link = &mut self.links[at];
        if let Err(refused) = link.sender.load(store, batch) {
            self.followers.refused(link.remote, &refused);
            self.forget_link(at);
            return;
        }
        let Some(frame) = link.sender.frame() else { return };
        let (header, body) = frame.rest();
        let bytes: Vec<u8> = header.iter().chain(body).copied().take(size).collect();
        link.to_slave.extend_from_slice(&bytes);
        link.sender.written(bytes.len());
    }

    /// The slave reads, compares, appends and reports.
    pub(super) fn deliver_to_slave(&mut self, at: usize, size: usize) {
        let store = self.slave.store.store().expect("open").clone();
        let link = &mut self.links[at];
        let Some(receiver) = &mut link.receiver else { return };
        let arrived = link.to_slave.split_to(size.min(link.to_slave.len()));
        link.arrived_at_slave.extend_from_slice(&arrived);
        let mut outcome = Ok(());
        let mut introduction = None;
        let mut any = false;
        loop {
            match receiver.take(&mut link.arrived_at_slave, &store) {
                Ok(true) => {
                    any = true;
                    introduction = introduction.or(receiver.introduction(1));
                }
                Ok(false) => break,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        if let (Ok(()), Some(ahead)) = (&outcome, receiver.ahead(&store)) {
            outcome = Err(ahead.into());
        }
        if receiver.has_received() && receiver.position() >= Some(store.max_physical_offset()) {
            (self.diverged, self.depth, self.strangers) = (None, 0, false);
        }
        match outcome {
            Ok(()) if any => link.report(&store, introduction),
            Ok(()) => {}
            Err(error) => self.slave_stops(at, &error),
        }
    }

    fn slave_stops(&mut self, at: usize, error: &anyhow::Error) {
        self.tell(|| format!("the slave stops: {error:#}"));
        let store = self.slave.store.store().expect("open").clone();
        let link = &mut self.links[at];
        let Some(receiver) = link.receiver.take() else { return };
        let Some(diverged) = error.downcast_ref::<Diverged>() else { return };
        link.to_master.put_i64(Report::Diverged(diverged.at()).encode());
        self.diverged = Some(diverged.clone());
        let Diverged::Bytes { at, .. } = *diverged else { return };
        match receiver.common(&store, at) {
            Common::Further => self.depth += 1,
            Common::Nothing => (self.depth, self.strangers) = (0, true),
            Common::Until(cut) => {
                self.depth = 0;
                if self.truncates {
                    self.cut(cut);
                }
            }
        }
    }

    /// The master hears reports: none of them may be more than the slave has.
    pub(super) fn deliver_to_master(&mut self, at: usize, size: usize) {
        let link = &mut self.links[at];
        let arrived = link.to_master.split_to(size.min(link.to_master.len()));
        link.arrived_at_master.extend_from_slice(&arrived);
        while let Some(report) = Report::take(&mut self.links[at].arrived_at_master) {
            let link = &mut self.links[at];
            let (remote, store) = (link.remote, self.master.open());
            let suspect = |position| self.followers.suspect(remote.ip(), position);
            match link.sender.told(report, store, suspect) {
                Ok(told) => self.followers.told(remote, told, store.max_physical_offset(), 0),
                Err(refused) => {
                    self.tell(|| format!("the master refuses: {refused}"));
                    self.followers.refused(remote, &refused);
                    self.forget_link(at);
                    break;
                }
            }
        }
        self.check_acknowledged();
    }
}

impl Link {
    pub(super) fn report(&mut self, store: &MessageStore, before: Option<Report>) {
        let Some(receiver) = &self.receiver else { return };
        for report in before.into_iter().chain([receiver.report(store)]) {
            self.to_master.put_i64(report.encode());
        }
    }
}
