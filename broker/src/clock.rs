//! The wall clock in RocketMQ's unit.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub(crate) fn now_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// `2026-11-22 22:28:54,098`, in local time (`UtilAll.timeMillisToHumanString2`).
pub(crate) fn readable(millis: i64) -> String {
    let Ok(time) = jiff::Timestamp::from_millisecond(millis) else { return millis.to_string() };
    let local = time.to_zoned(jiff::tz::TimeZone::system());
    format!("{},{:03}", local.strftime("%Y-%m-%d %H:%M:%S"), local.millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable_as_in_java() {
        let text = readable(1_795_386_534_098);
        assert!(text.starts_with("2026-11-2") && text.ends_with(":54,098"), "{text}");
        assert_eq!(readable(i64::MAX), i64::MAX.to_string(), "no year has so many digits");
    }
}
