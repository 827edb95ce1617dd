//! The ROCKETMQ form of a header.
//!
//! `i16 code | u8 language | i16 version | i32 opaque | i32 flag | i32 length, remark |
//! i32 length of the map, then i16 length, name, i32 length, value …`, big-endian, texts in UTF-8.
//! A text of length 0 is none at all.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::command::{Command, Language};
use crate::error::FrameError;
use crate::ext_fields::ExtFields;

/// A send request has 14 fields.
const FIELDS_EXPECTED: usize = 16;
const CUT_SHORT: FrameError = FrameError::Header("it ends in the middle of a field");

/// Reads a header; the body is left empty.
///
/// # Errors
/// A length is negative or larger than the header, or a text is no UTF-8.
pub fn decode(header: &Bytes) -> Result<Command, FrameError> {
    let mut rest = header.clone();
    if rest.len() < 21 {
        return Err(CUT_SHORT);
    }
    let code = i32::from(rest.get_i16());
    let language = Language(rest.get_u8());
    let version = i32::from(rest.get_i16());
    let opaque = rest.get_i32();
    let flag = rest.get_i32();
    let remark_length = rest.get_i32();
    let remark = take(&mut rest, remark_length)?;
    if rest.len() < 4 {
        return Err(CUT_SHORT);
    }
    let fields_length = rest.get_i32();
    let mut fields = take(&mut rest, fields_length)?;
    let mut ext_fields = ExtFields::with_capacity(FIELDS_EXPECTED, fields.len());
    while fields.has_remaining() {
        if fields.len() < 2 {
            return Err(CUT_SHORT);
        }
        let name_length = i32::from(fields.get_i16());
        let name = take(&mut fields, name_length)?;
        if fields.len() < 4 {
            return Err(CUT_SHORT);
        }
        let value_length = fields.get_i32();
        let value = take(&mut fields, value_length)?;
        ext_fields.push(text(&name)?, text(&value)?);
    }
    Ok(Command {
        code,
        language,
        version,
        opaque,
        flag,
        remark: (!remark.is_empty()).then(|| text(&remark).map(Into::into)).transpose()?,
        ext_fields,
        ..Command::default()
    })
}

fn take(rest: &mut Bytes, length: i32) -> Result<Bytes, FrameError> {
    match usize::try_from(length) {
        Ok(length) if length <= rest.len() => Ok(rest.split_to(length)),
        Ok(_) => Err(CUT_SHORT),
        Err(_) => Err(FrameError::Header("a length is negative")),
    }
}

fn text(bytes: &[u8]) -> Result<&str, FrameError> {
    std::str::from_utf8(bytes).map_err(|_| FrameError::Header("a text is not UTF-8"))
}

/// Writes a header. Codes are 16 bits wide here, as in Java: the 2000xx family travels in JSON only.
pub fn encode(command: &Command, to: &mut BytesMut) {
    to.put_i16(command.code as i16);
    to.put_u8(command.language.0);
    to.put_i16(command.version as i16);
    to.put_i32(command.opaque);
    to.put_i32(command.flag);
    let remark = command.remark();
    to.put_i32(remark.len() as i32);
    to.put_slice(remark.as_bytes());
    let length_at = to.len();
    to.put_i32(0);
    for (name, value) in command.ext_fields.iter() {
        to.put_i16(name.len() as i16);
        to.put_slice(name.as_bytes());
        to.put_i32(value.len() as i32);
        to.put_slice(value.as_bytes());
    }
    let length = (to.len() - length_at - 4) as u32;
    to[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
}
