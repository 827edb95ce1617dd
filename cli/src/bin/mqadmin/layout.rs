//! What several subcommands print alike: times, names cut to a column's width, versions.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `2026-11-22 23:00:16,971` in this machine's time zone; empty for 0.
pub(crate) fn time_millis(millis: i64) -> String {
    in_zone(millis, "%Y-%m-%d %H:%M:%S,%3f", &TimeZone::system()).unwrap_or_default()
}

/// `2026-11-22 23:00:16` in this machine's time zone; `N/A` for 0.
pub(crate) fn time_seconds(millis: i64) -> String {
    in_zone(millis, "%Y-%m-%d %H:%M:%S", &TimeZone::system()).unwrap_or_else(|| "N/A".to_owned())
}

fn in_zone(millis: i64, form: &str, zone: &TimeZone) -> Option<String> {
    let time = (millis > 0).then(|| Timestamp::from_millisecond(millis).ok()).flatten()?;
    Some(time.to_zoned(zone.clone()).strftime(form).to_string())
}

/// The first `width` letters.
pub(crate) fn front(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

/// The name of a version by its ordinal in `MQVersion`: since 4.0.0 (213) ten minors a major, ten
/// patches a minor, each with a snapshot before it.
pub(crate) fn version_name(ordinal: i32) -> String {
    const V4_0_0: i32 = 213;
    if ordinal < V4_0_0 - 1 {
        return format!("V3({ordinal})");
    }
    let release = (ordinal - V4_0_0 + 1) / 2;
    let snapshot = if (ordinal - V4_0_0) % 2 == 0 { "" } else { "_SNAPSHOT" };
    format!("V{}_{}_{}{snapshot}", 4 + release / 100, release / 10 % 10, release % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_javas() {
        let form = |millis, form| in_zone(millis, form, &TimeZone::UTC);
        assert_eq!(form(1_795_388_416_971, "%Y-%m-%d %H:%M:%S,%3f").unwrap(), "2026-11-22 23:00:16,971");
        assert_eq!(form(0, "%Y"), None);
        assert_eq!((time_millis(0), time_seconds(-1)), (String::new(), "N/A".to_owned()));
        assert_eq!(time_seconds(i64::MAX), "N/A");
    }

    #[test]
    fn versions_are_named() {
        for (ordinal, name) in [
            (213, "V4_0_0"),
            (277, "V4_3_2"),
            (353, "V4_7_0"),
            (397, "V4_9_2"),
            (407, "V4_9_7"),
            (406, "V4_9_7_SNAPSHOT"),
            (413, "V5_0_0"),
            (479, "V5_3_3"),
            (611, "V5_9_9"),
        ] {
            assert_eq!(version_name(ordinal), name);
        }
        assert_eq!((version_name(79), version_name(-1)), ("V3(79)".to_owned(), "V3(-1)".to_owned()));
    }
}
