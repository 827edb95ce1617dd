//! What a server of ours does with a request code: answers it, or refuses it with a reason.
//!
//! Each server keeps one table of this beside its router. It is what the refusals say, what the
//! compatibility page is made of, and what tests hold against the running server.

use crate::command::Command;
use crate::request_code::RequestCode;
use crate::response_code::ResponseCode;

/// What is done with one request code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// As RocketMQ does it.
    Full {
        /// `file::test`, from the root of the sources.
        proof: &'static str,
    },
    /// Done, but for something.
    Partial {
        /// What is missing or different.
        but: &'static str,
        /// `file::test`, from the root of the sources.
        proof: &'static str,
    },
    /// Answered 3, with a remark that says why.
    Refused {
        /// What of RocketMQ is not here.
        feature: &'static str,
    },
}

/// The answer to a request whose feature is not here. It begins as the answer to a code that nobody
/// knows, for people search for that.
pub fn refusal(request: &Command, feature: &str, server: &str) -> Command {
    let name = request.request_code().name().unwrap_or("it");
    let code = request.code;
    let remark =
        format!(" request type {code} not supported: {name} needs {feature}, which this {server} does not support");
    Command::refusal(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, remark)
}

/// The feature for lack of which `table` refuses the code.
pub fn refused_feature(table: &[(RequestCode, Support)], code: RequestCode) -> Option<&'static str> {
    table.iter().find_map(|(refused, support)| match support {
        Support::Refused { feature } if *refused == code => Some(*feature),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_code_and_what_is_missing() {
        let table = [
            (RequestCode::PULL_MESSAGE, Support::Full { proof: "here" }),
            (RequestCode::POP_MESSAGE, Support::Refused { feature: "pop consumption" }),
        ];
        assert_eq!(refused_feature(&table, RequestCode::PULL_MESSAGE), None);
        assert_eq!(refused_feature(&table, RequestCode(9999)), None);
        let feature = refused_feature(&table, RequestCode::POP_MESSAGE).unwrap();
        let answer = refusal(&Command::request(RequestCode::POP_MESSAGE), feature, "broker");
        assert_eq!(answer.response_code(), ResponseCode::REQUEST_CODE_NOT_SUPPORTED);
        assert_eq!(
            answer.remark(),
            " request type 200050 not supported: POP_MESSAGE needs pop consumption, which this broker does not support"
        );
    }
}
