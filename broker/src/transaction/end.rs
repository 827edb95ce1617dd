//! The end of a transaction, said by its producer (4.9's `EndTransactionProcessor`), and a given up one that is taken up again.
//!
//! May not send anything to producers.

use std::sync::atomic::Ordering;

use rocketmq_remoting::ResponseCode;
use rocketmq_remoting::header::message::EndTransactionRequest;
use rocketmq_store::{StoreError, decode_message, parse_message_id};

use super::half_message::HalfMessage;
use super::{Decision, Owed, create_topics, op_message};
use crate::broker::Broker;
use crate::clock;
use crate::refusal::Refusal;
use crate::topics::{TRANS_CHECK_MAX_TIME_TOPIC, TRANS_HALF_TOPIC};
use crate::waiting::Waiting;

fn refuse(remark: impl Into<String>) -> Refusal {
    Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
}

/// Commits the transaction or rolls it back.
///
/// # Errors
/// It is not the transaction that the producer means, it has ended the other way, or something could not be stored: then it
/// stays open.
pub(crate) fn end(broker: &Broker, request: &EndTransactionRequest, commits: bool) -> Result<(), Refusal> {
    let not_found = || refuse("Find prepared transaction message failed");
    let unit = u64::try_from(request.commit_log_offset).ok().and_then(|offset| broker.store.message_at(offset));
    let unit = unit.ok_or_else(not_found)?;
    // Java takes any message for a half one: a committed message could be committed again and again.
    let half = HalfMessage::read(&broker.store, &unit).ok().filter(|half| half.view.topic == TRANS_HALF_TOPIC);
    let half = half.ok_or_else(not_found)?;
    if half.group != &*request.producer_group {
        return Err(refuse("The producer group wrong"));
    }
    if half.offset() != request.tran_state_table_offset {
        return Err(refuse("The transaction state table offset wrong"));
    }
    if half.view.physical_offset as i64 != request.commit_log_offset {
        return Err(refuse("The commit log offset wrong"));
    }

    let transactions = &broker.transactions;
    let _turn = transactions.turn(half.root);
    let known = {
        let ledger = transactions.ledger.lock();
        ledger.decision(half.offset()).or_else(|| ledger.decision(half.root))
    };
    match (known, commits) {
        (None, _) => {}
        (Some(Decision::RolledBack), true) => return Err(refuse("The transaction has been rolled back already")),
        (Some(Decision::Committed), false) => return Err(refuse("The transaction has been committed already")),
        (Some(_), _) => return Ok(()),
    }
    if commits { commit(broker, &half) } else { roll_back(broker, &half) }
}

/// The message goes first: between the two the transaction is still open for all who read the queues.
fn commit(broker: &Broker, half: &HalfMessage<'_>) -> Result<(), Refusal> {
    let (transactions, config) = (&broker.transactions, broker.config());
    let text = half.committed_properties();
    let message = half.committed(broker, &text);
    Waiting::of(&text, &config, clock::now_millis())?.append(broker, &message)?;
    broker.stats.put(half.real_topic, half.real_queue, 1, half.view.body.len() as u64);
    transactions.committed.fetch_add(1, Ordering::Relaxed);
    let keys = keys(half);
    transactions.ledger.lock().ended(&keys, Decision::Committed);
    if let Err(error) = write_end(broker, half, Decision::Committed) {
        tracing::warn!(offset = half.offset(), %error, "a commit waits to be written down: its message is stored");
        transactions.owed.lock().push(Owed { half_offset: half.offset(), keys, decision: Decision::Committed });
    }
    Ok(())
}

/// Nothing was delivered, so an end that cannot be written leaves the transaction open; in Java, it is lost.
fn roll_back(broker: &Broker, half: &HalfMessage<'_>) -> Result<(), Refusal> {
    write_end(broker, half, Decision::RolledBack)?;
    broker.transactions.rolled_back.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Writes that the half message is done with. The caller has its turn.
pub(super) fn write_end(broker: &Broker, half: &HalfMessage<'_>, decision: Decision) -> Result<(), StoreError> {
    let appended = op_message::append(broker, half.offset())?;
    broker.transactions.ledger.lock().written(appended.queue_offset, &keys(half), decision);
    Ok(())
}

fn keys(half: &HalfMessage<'_>) -> Vec<i64> {
    if half.root == half.offset() { vec![half.root] } else { vec![half.offset(), half.root] }
}

/// Puts a half message that waits, or that was given up, to the end of the queue, as if nobody had been asked about it yet
/// (`RESUME_CHECK_HALF_MESSAGE`); `id` is its offset id.
pub(crate) fn resume(broker: &Broker, id: &str) -> Result<(), Refusal> {
    let illegal = || refuse("Exception was thrown when putting message back to RMQ_SYS_TRANS_HALF_TOPIC.");
    let unit = parse_message_id(id).and_then(|(_, offset)| broker.store.message_at(offset)).ok_or_else(illegal)?;
    let topic = decode_message(&unit).map_or("", |view| view.topic);
    if topic != TRANS_HALF_TOPIC && topic != TRANS_CHECK_MAX_TIME_TOPIC {
        return Err(refuse(format!("the message {id} is no half message")));
    }
    let half =
        HalfMessage::read(&broker.store, &unit).map_err(|reason| refuse(format!("the message {id}: {reason}")))?;
    create_topics(broker).map_err(|error| refuse(format!("{error:#}")))?;
    let _turn = broker.transactions.turn(half.root);
    let appended = half.resume(broker).map_err(|error| {
        tracing::error!(id, %error, "a half message could not be taken up again");
        refuse("Put message back to RMQ_SYS_TRANS_HALF_TOPIC failed.")
    })?;
    broker.transactions.ledger.lock().renewed(appended.queue_offset);
    tracing::info!(id, topic = half.real_topic, "a half message is taken up again");
    Ok(())
}
