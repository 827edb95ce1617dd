//! What tools ask a consumer through its broker, over the consumer's own connection.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use rocketmq_remoting::header::broker::ConsumerRunningInfoRequest;
use rocketmq_remoting::{Answer, Command, Header, RemotingError, RequestCode, ResponseCode};
use rocketmq_store::parse_message_id;

use super::field;
use crate::broker::Broker;
use crate::client_channel::ClientChannel;
use crate::refusal::Refusal;

/// How long a consumer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// `GET_CONSUMER_RUNNING_INFO`.
pub(crate) fn running_info(broker: &Broker, request: &Command) -> Result<Answer, Refusal> {
    let header = ConsumerRunningInfoRequest::decode(&request.ext_fields)?;
    let consumer = find(broker, &header.consumer_group, &header.client_id)?;
    let question = Command::request(RequestCode::GET_CONSUMER_RUNNING_INFO).with_header(&header);
    Ok(Answer::later(ask(consumer, header.consumer_group, question)))
}

/// `CONSUME_MESSAGE_DIRECTLY`: hands one message to one consumer, outside of its queue.
pub(crate) fn consume_directly(broker: &Broker, request: &Command) -> Result<Answer, Refusal> {
    let (group, id) = (field(request, "consumerGroup")?, field(request, "msgId")?);
    let message = parse_message_id(id).and_then(|(_, offset)| broker.store.message_at(offset));
    let Some(message) = message else {
        let remark = format!("consume message directly failed: no message {id} in this broker");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    };
    let consumer = find(broker, group, request.ext_fields.get("clientId").unwrap_or_default())?;
    let mut question = Command::request(RequestCode::CONSUME_MESSAGE_DIRECTLY).with_body(message);
    let fields = request.ext_fields.iter().filter(|(name, _)| *name != "brokerName");
    question.ext_fields = fields.collect();
    question.ext_fields.push("brokerName", broker.config().broker_name.clone());
    Ok(Answer::later(ask(consumer, group.into(), question)))
}

fn find(broker: &Broker, group: &str, client_id: &str) -> Result<Arc<ClientChannel>, Refusal> {
    broker.consumers.find(group, client_id).ok_or_else(|| {
        Refusal::new(ResponseCode::SYSTEM_ERROR, format!("The Consumer <{group}> <{client_id}> not online"))
    })
}

/// The consumer's answer as it is, or why there is none.
async fn ask(consumer: Arc<ClientChannel>, group: ByteString, question: Command) -> Command {
    let client_id = &consumer.client_id;
    match consumer.peer.request(question, PATIENCE).await {
        Ok(answer) => answer,
        Err(error @ RemotingError::Timeout { .. }) => Command::refusal(
            ResponseCode::CONSUME_MSG_TIMEOUT,
            format!("consumer <{group}> <{client_id}> Timeout: {error}"),
        ),
        Err(error) => Command::refusal(
            ResponseCode::SYSTEM_ERROR,
            format!("invoke consumer <{group}> <{client_id}> Exception: {error}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_channel::testing::Harness;

    #[tokio::test]
    async fn a_consumers_answer_is_passed_on_and_its_end_is_said() {
        let harness = Harness::start();
        let connected = harness.connect().await;
        let consumer = Arc::new(ClientChannel::new(&connected.peer, "c", &Command::default(), 0));
        let question = Command::request(RequestCode::GET_CONSUMER_RUNNING_INFO);
        let answer = ask(Arc::clone(&consumer), "g".into(), question.clone()).await;
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
        assert_eq!(connected.inbox.0.lock()[0].request_code(), RequestCode::GET_CONSUMER_RUNNING_INFO);
        connected.peer.close();
        let answer = ask(consumer, "g".into(), question).await;
        assert_eq!(answer.response_code(), ResponseCode::SYSTEM_ERROR);
        assert!(answer.remark().starts_with("invoke consumer <g> <c> Exception: "), "{}", answer.remark());
    }
}
