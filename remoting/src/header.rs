//! The typed form of `extFields`: one struct a request or response, declared by [`headers!`] with
//! each field's name on the wire.
//!
//! The structs themselves stand in the modules below, by who answers them.

use bytestring::ByteString;

use crate::ext_fields::ExtFields;
use crate::response_code::ResponseCode;

pub mod broker;
pub mod message;
pub mod name_server;

/// A struct that travels as `extFields`.
pub trait Header: Sized {
    /// Reads the fields. Unknown names are ignored.
    ///
    /// # Errors
    /// A required field is missing, or a value is not of its type.
    fn decode(fields: &ExtFields) -> Result<Self, HeaderError>;

    /// Appends the fields; those that are `None` are left out.
    fn encode(&self, fields: &mut ExtFields);
}

/// A request's fields cannot be used; the remark of the answer says which and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A required field is not there.
    #[error("the custom field <{field}> is null")]
    Missing {
        /// The field's name on the wire.
        field: &'static str,
    },
    /// A field's text is not of its type.
    #[error("the custom field <{field}> is {value:?}, expected {expected}")]
    Invalid {
        /// The field's name on the wire.
        field: &'static str,
        /// What came.
        value: String,
        /// What is accepted.
        expected: &'static str,
    },
}

impl HeaderError {
    /// Java answers such a request with this code.
    pub fn response_code(&self) -> ResponseCode {
        ResponseCode::SYSTEM_ERROR
    }
}

/// A type that stands as text in a field.
pub trait FieldValue: Sized {
    /// What is accepted, for the error's text.
    const EXPECTED: &'static str;
    /// Reads the text.
    fn parse(text: &str) -> Option<Self>;
    /// Appends the text.
    fn write(&self, to: &mut String);
}

impl FieldValue for ByteString {
    const EXPECTED: &'static str = "text";
    fn parse(text: &str) -> Option<Self> {
        Some(text.into())
    }
    fn write(&self, to: &mut String) {
        to.push_str(self);
    }
}

/// Java's `parseBoolean`: "true" in any case, anything else is false.
impl FieldValue for bool {
    const EXPECTED: &'static str = "true or false";
    fn parse(text: &str) -> Option<Self> {
        Some(text.eq_ignore_ascii_case("true"))
    }
    fn write(&self, to: &mut String) {
        to.push_str(if *self { "true" } else { "false" });
    }
}

macro_rules! integer_fields {
    ($($type:ty, $expected:literal;)+) => {$(
        impl FieldValue for $type {
            const EXPECTED: &'static str = $expected;
            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }
            fn write(&self, to: &mut String) {
                to.push_str(itoa::Buffer::new().format(*self));
            }
        }
    )+};
}

integer_fields! {
    i32, "a 32-bit integer";
    i64, "a 64-bit integer";
}

/// Reads one field for [`headers!`].
#[doc(hidden)]
pub fn read_field<T: FieldValue>(field: &'static str, text: &str) -> Result<T, HeaderError> {
    T::parse(text).ok_or_else(|| HeaderError::Invalid { field, value: text.to_string(), expected: T::EXPECTED })
}

/// Declares header structs. A field is `required` (its absence is an error), `optional` (an
/// `Option`) or `default` (absent means the type's default).
///
/// A text that is not of its type is an error of a `required` field; of others it is as good as none, for Java's
/// decoder by reflection (`RemotingCommand.decodeCommandCustomHeader`) leaves such fields unset. Headers that Java decodes by
/// code of their own (`FastCodesHeader`) are stricter: their fields are `strict_optional` and `strict_default`, for which it is an
/// error too.
///
/// A header is read in one pass over the fields as they came.
macro_rules! headers {
    ($(
        $(#[$doc:meta])*
        $name:ident { $( $(#[$field_doc:meta])* $kind:ident $field:ident: $type:ty = $wire:literal, )* }
    )+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$field_doc])* #[doc = concat!("`", $wire, "` on the wire.")] pub $field: headers!(@type $kind $type), )*
        }

        impl $crate::header::Header for $name {
            #[allow(unused_variables, unused_mut)]
            fn decode(fields: &$crate::ext_fields::ExtFields) -> Result<Self, $crate::header::HeaderError> {
                $( let mut $field: Option<$type> = None; )*
                for (name, text) in fields.iter() {
                    match name {
                        $( $wire => $field = headers!(@read $kind $wire text), )*
                        _ => {}
                    }
                }
                Ok(Self { $( $field: headers!(@take $kind $field $wire), )* })
            }

            #[allow(unused_variables)]
            fn encode(&self, fields: &mut $crate::ext_fields::ExtFields) {
                $( headers!(@put $kind self $field $wire fields); )*
            }
        }
    )+};
    (@read optional $wire:literal $text:ident) => { $crate::header::FieldValue::parse($text) };
    (@read default $wire:literal $text:ident) => { $crate::header::FieldValue::parse($text) };
    (@read $kind:ident $wire:literal $text:ident) => { Some($crate::header::read_field($wire, $text)?) };
    (@type optional $type:ty) => { Option<$type> };
    (@type strict_optional $type:ty) => { Option<$type> };
    (@type $kind:ident $type:ty) => { $type };
    (@take required $field:ident $wire:literal) => {
        $field.ok_or($crate::header::HeaderError::Missing { field: $wire })?
    };
    (@take optional $field:ident $wire:literal) => { $field };
    (@take strict_optional $field:ident $wire:literal) => { $field };
    (@take $kind:ident $field:ident $wire:literal) => { $field.unwrap_or_default() };
    (@put optional $self:ident $field:ident $wire:literal $fields:ident) => {
        if let Some(value) = &$self.$field {
            $fields.push_with($wire, |text| $crate::header::FieldValue::write(value, text));
        }
    };
    (@put strict_optional $self:ident $field:ident $wire:literal $fields:ident) => {
        headers!(@put optional $self $field $wire $fields);
    };
    (@put $kind:ident $self:ident $field:ident $wire:literal $fields:ident) => {
        $fields.push_with($wire, |text| $crate::header::FieldValue::write(&$self.$field, text));
    };
}
use headers;

#[cfg(test)]
mod tests {
    #![allow(unreachable_pub)] // the macro makes headers public

    use super::*;

    headers! {
        /// A header for these tests.
        Sample {
            required topic: ByteString = "topic",
            required queue_id: i32 = "queueId",
            optional key: ByteString = "key",
            default batch: bool = "batch",
            optional max: i32 = "max",
            default times: i32 = "times",
            strict_optional limit: i32 = "limit",
            strict_default offset: i64 = "offset",
        }
    }

    #[test]
    fn a_header_survives_the_way_through_its_fields() {
        let sample = Sample { topic: "T".into(), queue_id: -1, batch: true, limit: Some(2), ..Sample::default() };
        let mut fields = ExtFields::new();
        sample.encode(&mut fields);
        assert_eq!(fields.len(), 6);
        assert_eq!(Sample::decode(&fields), Ok(sample));
    }

    #[test]
    fn an_error_names_the_field_and_what_it_takes() {
        let missing: ExtFields = [("topic", "T")].into_iter().collect();
        assert_eq!(Sample::decode(&missing), Err(HeaderError::Missing { field: "queueId" }));
        let sample = |field: (&'static str, &'static str)| {
            Sample::decode(&[("topic", "T"), ("queueId", "4"), field].into_iter().collect())
        };
        for lenient in ["max", "times"] {
            let none = Sample { topic: "T".into(), queue_id: 4, ..Sample::default() };
            assert_eq!(sample((lenient, "x")), Ok(none), "{lenient}");
        }
        for strict in ["limit", "offset"] {
            assert!(sample((strict, "x")).is_err() && sample((strict, "5")).is_ok(), "{strict}");
        }
        let wrong: ExtFields = [("topic", "T"), ("queueId", "four")].into_iter().collect();
        let error = Sample::decode(&wrong).unwrap_err();
        assert_eq!(error.to_string(), r#"the custom field <queueId> is "four", expected a 32-bit integer"#);
    }
}
