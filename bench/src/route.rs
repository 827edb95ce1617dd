//! Routes as clients look them up at a name server, of many topics in turn.

use anyhow::{Result, ensure};
use rocketmq_remoting::command::Command;
use rocketmq_remoting::frame::to_bytes;
use rocketmq_remoting::header::name_server::RouteInfoRequest;
use rocketmq_remoting::{RequestCode, ResponseCode};

use crate::answer::Answer;
use crate::load::{self, Load, Verdict, Work};
use crate::outcome::Outcome;
use crate::patch::{OPAQUE_PLACEHOLDER, Place};
use crate::topic;

/// Whose routes are asked for.
#[derive(Clone, Debug)]
pub struct Topics {
    /// What the names of [`topic::numbered`] begin with.
    pub prefix: String,
    /// How many there are.
    pub count: u32,
}

/// Looks routes up; a *message* of the outcome is a route. The load's `broker` is the name server.
///
/// # Errors
/// See [`load::run`].
pub fn run(load: &Load, topics: &Topics) -> Result<Outcome> {
    ensure!(topics.count > 0, "a route has a topic");
    let frame = encode(topics);
    let number = Place::after(&frame, &format!("\"topic\":\"{}", topics.prefix), topic::DIGITS)?;
    load::run(load, &frame, &mut LookingUp { number, count: topics.count.into(), requests: 0 })
}

fn encode(topics: &Topics) -> Vec<u8> {
    let header = RouteInfoRequest { topic: topic::numbered(&topics.prefix, 0).into(), ..RouteInfoRequest::default() };
    let mut command = Command::request(RequestCode::GET_ROUTEINFO_BY_TOPIC).with_header(&header);
    command.opaque = OPAQUE_PLACEHOLDER;
    to_bytes(&command).to_vec()
}

struct LookingUp {
    number: Place,
    count: u64,
    requests: u64,
}

impl Work for LookingUp {
    fn prepare(&mut self, _: u32, frame: &mut [u8]) -> bool {
        self.number.decimal(frame, self.requests % self.count);
        self.requests += 1;
        true
    }

    fn answered(&mut self, _: u32, answer: &Answer<'_>) -> Verdict {
        match ResponseCode(answer.code) {
            ResponseCode::SUCCESS if answer.body.is_empty() => Verdict::Failed(-1),
            ResponseCode::SUCCESS => Verdict::Done { messages: 1, bytes: answer.body.len() as u64 },
            refused => Verdict::Failed(refused.0),
        }
    }
}
