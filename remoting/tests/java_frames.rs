//! Frames as RocketMQ's own encoder writes them: the binary form of a header beside its JSON form.
//!
//! `java_frames.txt` is what `tests/java/client/BinaryHeaders.java` wrote with RocketMQ 4.9.7, and with 5.5.0 in the same
//! bytes: two lines a command, its frame with a JSON header and then with a binary one.

use bytes::BytesMut;
use rocketmq_remoting::frame::{self, FrameLimits};
use rocketmq_remoting::{Command, SerializeType};

fn bytes(line: &str) -> BytesMut {
    assert!(line.len().is_multiple_of(2));
    (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect()
}

/// All that a command says, the order of its fields apart.
fn said(command: &Command) -> String {
    let Command { code, language, version, opaque, flag, .. } = command;
    let mut fields: Vec<(&str, &str)> = command.ext_fields.iter().collect();
    fields.sort_unstable();
    let body = command.body.clone().into_bytes();
    format!("{code} {language:?} {version} {opaque} {flag} {:?} {fields:?} {body:?}", command.remark())
}

#[test]
fn a_binary_header_says_what_its_json_form_says_and_is_written_as_java_writes_it() {
    let lines: Vec<&str> = include_str!("java_frames.txt").lines().collect();
    assert_eq!(lines.len(), 14);
    for pair in lines.chunks_exact(2) {
        let decode = |line| {
            let mut buffer = bytes(line);
            let command = frame::decode(&mut buffer, FrameLimits::default()).unwrap().unwrap();
            assert!(buffer.is_empty());
            command
        };
        let (json, binary) = (decode(pair[0]), decode(pair[1]));
        assert_eq!((json.serialize_type, binary.serialize_type), (SerializeType::Json, SerializeType::RocketMq));
        assert_eq!(said(&json), said(&binary));
        assert_eq!(frame::to_bytes(&binary), bytes(pair[1]));
        let again = Command { serialize_type: SerializeType::Json, ..binary };
        let mut written = BytesMut::from(&frame::to_bytes(&again)[..]);
        let read = frame::decode(&mut written, FrameLimits::default()).unwrap().unwrap();
        assert_eq!(said(&read), said(&json));
    }
}
