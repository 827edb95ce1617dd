//! `LOCK_BATCH_MQ` and `UNLOCK_BATCH_MQ`, for consumers in order.

use rocketmq_remoting::bodies::{LockBatchRequest, LockBatchResponse};
use rocketmq_remoting::{Command, fastjson};

use super::{heartbeat, json};
use crate::broker::Broker;
use crate::clock;
use crate::refusal::Refusal;

/// Locks queues for a member of a group; the answer names those that are its own now.
pub(crate) fn lock(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let body: LockBatchRequest = fastjson::from_slice(&request.body.bytes())?;
    heartbeat::check_kept(&body.consumer_group)?;
    let lock_ok_mq_set =
        broker.queue_locks.lock(&body.consumer_group, &body.client_id, body.mq_set, clock::now_millis());
    Ok(json(&LockBatchResponse { lock_ok_mq_set }))
}

/// Gives up the locks of a member of a group.
pub(crate) fn unlock(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let body: LockBatchRequest = fastjson::from_slice(&request.body.bytes())?;
    broker.queue_locks.unlock(&body.consumer_group, &body.client_id, &body.mq_set);
    Ok(Command::ok())
}
