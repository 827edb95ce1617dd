//! How one value of `broker.conf` is read and written, for each type a key can have.
//!
//! May not know any key.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use rocketmq_store::FlushDiskType;

/// What this broker is in its group (`brokerRole`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BrokerRole {
    /// Takes messages; does not wait for slaves.
    #[default]
    AsyncMaster,
    /// Takes messages; `SEND_OK` means that a slave has the message too.
    SyncMaster,
    /// Follows a master.
    Slave,
}

impl BrokerRole {
    /// RocketMQ's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AsyncMaster => "ASYNC_MASTER",
            Self::SyncMaster => "SYNC_MASTER",
            Self::Slave => "SLAVE",
        }
    }
}

/// What a slave does whose log is not its master's (`haDivergedSlave`, our own key).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DivergedSlave {
    /// Says so and waits for people.
    #[default]
    Wait,
    /// Cuts its log to what both have, and keeps the rest aside.
    Truncate,
}

impl Value for DivergedSlave {
    const KIND: &'static str = "String";
    fn parse(text: &str, _: RangeInclusive<i64>) -> Result<Self, String> {
        match text {
            "WAIT" => Ok(Self::Wait),
            "TRUNCATE" => Ok(Self::Truncate),
            _ => Err("WAIT or TRUNCATE".to_owned()),
        }
    }
    fn text(&self) -> String {
        match self {
            Self::Wait => "WAIT",
            Self::Truncate => "TRUNCATE",
        }
        .to_owned()
    }
}

/// A type that a key can have. Errors say what is accepted.
pub(crate) trait Value: Sized {
    /// Java's name of the type.
    const KIND: &'static str;
    /// Reads a value; `range` bounds numbers.
    fn parse(text: &str, range: RangeInclusive<i64>) -> Result<Self, String>;
    /// Writes it as it would stand in `broker.conf`.
    fn text(&self) -> String;
}

fn integer(text: &str, type_bounds: RangeInclusive<i64>, range: &RangeInclusive<i64>) -> Result<i64, String> {
    let low = *range.start().max(type_bounds.start());
    let high = *range.end().min(type_bounds.end());
    match text.parse::<i64>() {
        Ok(number) if (low..=high).contains(&number) => Ok(number),
        _ => Err(format!("a whole number from {low} to {high}")),
    }
}

macro_rules! integer_values {
    ($($type:ty, $kind:literal, $bounds:expr;)+) => {
        $(impl Value for $type {
            const KIND: &'static str = $kind;
            fn parse(text: &str, range: RangeInclusive<i64>) -> Result<Self, String> {
                integer(text, $bounds, &range).map(|number| number as $type)
            }
            fn text(&self) -> String {
                self.to_string()
            }
        })+
    };
}

integer_values! {
    u8, "int", 0..=255;
    u16, "int", 0..=65_535;
    u32, "int", 0..=i64::from(i32::MAX);
    i32, "int", i64::from(i32::MIN)..=i64::from(i32::MAX);
    u64, "long", 0..=i64::MAX;
    i64, "long", i64::MIN..=i64::MAX;
    usize, "int", 0..=i64::from(i32::MAX);
}

/// Milliseconds.
impl Value for Duration {
    const KIND: &'static str = "long";
    fn parse(text: &str, range: RangeInclusive<i64>) -> Result<Self, String> {
        // A year: longer waits are typing errors, and sums of them would overflow clocks.
        const YEAR_MS: i64 = 366 * 24 * 3600 * 1000;
        let number = integer(text, 0..=YEAR_MS, &range).map_err(|accepts| accepts + " (milliseconds)")?;
        Ok(Self::from_millis(number as u64))
    }
    fn text(&self) -> String {
        self.as_millis().to_string()
    }
}

impl Value for bool {
    const KIND: &'static str = "boolean";
    fn parse(text: &str, _: RangeInclusive<i64>) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("true") {
            Ok(true)
        } else if text.eq_ignore_ascii_case("false") {
            Ok(false)
        } else {
            Err("true or false".to_owned())
        }
    }
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const KIND: &'static str = "String";
    fn parse(text: &str, _: RangeInclusive<i64>) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn text(&self) -> String {
        self.clone()
    }
}

/// Empty text is no value.
impl Value for Option<String> {
    const KIND: &'static str = "String";
    fn parse(text: &str, _: RangeInclusive<i64>) -> Result<Self, String> {
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }
    fn text(&self) -> String {
        self.clone().unwrap_or_default()
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "String";
    fn parse(text: &str, _: RangeInclusive<i64>) -> Result<Self, String> {
        Ok(Self::from(text))
    }
    fn text(&self) -> String {
        self.display().to_string()
    }
}

impl Value for Option<PathBuf> {
    const KIND: &'static str = "String";
    fn parse(text: &str, _: RangeInclusive<i64>) -> Result<Self, String> {
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }
    fn text(&self) -> String {
        self.as_ref().map(Value::text).unwrap_or_default()
    }
}

impl Value for BrokerRole {
    const KIND: &'static str = "BrokerRole";
    fn parse(text: &str, _: RangeInclusive<i64>) -> Result<Self, String> {
        [Self::AsyncMaster, Self::SyncMaster, Self::Slave]
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| "ASYNC_MASTER, SYNC_MASTER or SLAVE".to_owned())
    }
    fn text(&self) -> String {
        self.name().to_owned()
    }
}

impl Value for FlushDiskType {
    const KIND: &'static str = "FlushDiskType";
    fn parse(text: &str, _: RangeInclusive<i64>) -> Result<Self, String> {
        match text {
            "ASYNC_FLUSH" => Ok(Self::AsyncFlush),
            "SYNC_FLUSH" => Ok(Self::SyncFlush),
            _ => Err("ASYNC_FLUSH or SYNC_FLUSH".to_owned()),
        }
    }
    fn text(&self) -> String {
        match self {
            Self::AsyncFlush => "ASYNC_FLUSH",
            Self::SyncFlush => "SYNC_FLUSH",
        }
        .to_owned()
    }
}

/// Hours of the day, `;`-separated (`deleteWhen`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours(pub Vec<u8>);

impl Value for Hours {
    const KIND: &'static str = "String";
    fn parse(text: &str, _: RangeInclusive<i64>) -> Result<Self, String> {
        let hours: Option<Vec<u8>> = text
            .split(';')
            .filter(|hour| !hour.trim().is_empty())
            .map(|hour| hour.trim().parse().ok().filter(|hour| *hour <= 23))
            .collect();
        hours.map(Self).ok_or_else(|| "hours of the day from 00 to 23, separated by ;".to_owned())
    }
    fn text(&self) -> String {
        self.0.iter().map(|hour| format!("{hour:02}")).collect::<Vec<_>>().join(";")
    }
}

/// Delays, level 1 first, blank-separated (`messageDelayLevel`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayLevels(pub Vec<Duration>);

impl Value for DelayLevels {
    const KIND: &'static str = "String";
    fn parse(text: &str, _: RangeInclusive<i64>) -> Result<Self, String> {
        let level = |word: &str| {
            let unit = match word.chars().last()? {
                's' => 1,
                'm' => 60,
                'h' => 3600,
                'd' => 86_400,
                _ => return None,
            };
            let count: u32 = word[..word.len() - 1].parse().ok()?;
            Some(Duration::from_secs(u64::from(count) * unit))
        };
        let levels: Option<Vec<Duration>> = text.split_whitespace().map(level).collect();
        levels
            .filter(|levels| !levels.is_empty())
            .map(Self)
            .ok_or_else(|| "delays like 1s 5s 10m 2h 1d, separated by blanks".to_owned())
    }
    fn text(&self) -> String {
        let level = |delay: &Duration| match delay.as_secs() {
            days if days >= 86_400 && days % 86_400 == 0 => format!("{}d", days / 86_400),
            hours if hours >= 3600 && hours % 3600 == 0 => format!("{}h", hours / 3600),
            minutes if minutes >= 60 && minutes % 60 == 0 => format!("{}m", minutes / 60),
            seconds => format!("{seconds}s"),
        };
        self.0.iter().map(level).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: RangeInclusive<i64> = i64::MIN..=i64::MAX;

    #[test]
    fn numbers_are_bounded_by_type_and_range() {
        assert_eq!(u16::parse("65536", ANY).unwrap_err(), "a whole number from 0 to 65535");
        assert_eq!(u16::parse("0", 1..=70_000).unwrap_err(), "a whole number from 1 to 65535");
        assert_eq!(i64::parse("-7", ANY), Ok(-7));
        assert!(Duration::parse("-1", ANY).unwrap_err().ends_with("(milliseconds)"));
    }

    #[test]
    fn delay_levels_keep_their_text() {
        let text = "1s 5s 10s 30s 1m 2m 10m 1h 2h 3d";
        assert_eq!(DelayLevels::parse(text, ANY).unwrap().text(), text);
        for bad in ["", "5", "5x", "é", "1s -1s", "99999999999s"] {
            assert!(DelayLevels::parse(bad, ANY).is_err(), "{bad}");
        }
    }

    #[test]
    fn hours_are_hours() {
        assert_eq!(Hours::parse("04;16", ANY).unwrap().0, [4, 16]);
        assert!(Hours::parse("24", ANY).is_err());
    }
}
