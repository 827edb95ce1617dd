//! The end of a transaction, and half messages that are taken up again.

use std::sync::Arc;

use rocketmq_remoting::header::message::EndTransactionRequest;
use rocketmq_remoting::{Answer, Command, Header, Peer, ResponseCode};
use rocketmq_store::sys_flag;

use super::field;
use crate::broker::Broker;
use crate::config::BrokerRole;
use crate::refusal::Refusal;
use crate::transaction;

/// `END_TRANSACTION`. A producer that does not know yet gets no answer, as in Java: it is asked later.
pub(crate) fn end(broker: &Broker, peer: &Arc<Peer>, request: &Command) -> Result<Answer, Refusal> {
    let header = EndTransactionRequest::decode(&request.ext_fields)?;
    check_role(broker)?;
    let commits = match header.commit_or_rollback {
        sys_flag::TRANSACTION_COMMIT => true,
        sys_flag::TRANSACTION_ROLLBACK => false,
        0 => return Ok(Answer::None),
        _ => return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "commitOrRollback field wrong")),
    };
    transaction::end(broker, &header, commits).inspect_err(|refusal| {
        // Most requests are one-way: nobody else hears of it.
        let (offset, peer, group) = (header.commit_log_offset, peer.remote(), &*header.producer_group);
        tracing::warn!(offset, %peer, group, commits, "a transaction is not ended: {refusal}");
    })?;
    Ok(Answer::Now(Command::ok()))
}

/// `RESUME_CHECK_HALF_MESSAGE`.
pub(crate) fn resume(broker: &Broker, request: &Command) -> Result<Command, Refusal> {
    let id = field(request, "msgId")?;
    check_role(broker)?;
    transaction::resume(broker, id)?;
    Ok(Command::ok())
}

fn check_role(broker: &Broker) -> Result<(), Refusal> {
    if broker.config().broker_role != BrokerRole::Slave {
        return Ok(());
    }
    let remark = "the broker is a slave: transactions are ended on the master";
    Err(Refusal::new(ResponseCode::SLAVE_NOT_AVAILABLE, remark))
}
