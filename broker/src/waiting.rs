//! Whether a message can be consumed at once or waits first, and where (5.x's
//! `HookUtils.handleScheduleMessage`, which every message of a client goes through).
//!
//! May not deliver: that is `delay`'s and `timer`'s business.

use rocketmq_remoting::ResponseCode;
use rocketmq_store::{Appended, DELAY, NewMessage, StoreError, properties, property};

use crate::broker::Broker;
use crate::config::BrokerConfig;
use crate::delay;
use crate::refusal::Refusal;
use crate::timer;

/// Where a message goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// To its own topic.
    Not,
    /// To the queue of this delay level, from 1.
    Level(i32),
    /// To the timer's queue, with this `TIMER_OUT_MS`.
    Timer(i64),
}

impl Waiting {
    /// What the sender's properties ask for. A delay level sets a time aside; a time that has come
    /// already is no wait.
    ///
    /// # Errors
    /// 13 for a time that is none or too far away, 1 where timer messages are switched off, as in 5.x.
    pub(crate) fn of(text: &[u8], config: &BrokerConfig, now: i64) -> Result<Self, Refusal> {
        if !properties(text).any(|(name, _)| name == DELAY || timer::is_wish(name)) {
            return Ok(Self::Not);
        }
        if let Some(level) = delay::level_of(text, config) {
            return Ok(Self::Level(level));
        }
        if !timer::asks_for_time(text) || property(text, timer::OUT_MS).is_some() {
            return Ok(Self::Not);
        }
        if !config.timer_wheel_enable {
            let remark = "accurate timer message is not enabled, timerWheelEnable is false";
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        }
        let max_ms = config.timer_max_delay_sec * 1000;
        let illegal = || {
            let remark = format!(
                "timer message illegal, the delay time should not be bigger than the max delay {max_ms}ms; or if set del msg, the delay time should be bigger than the current time"
            );
            Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark)
        };
        let Some(deliver_ms) = timer::wanted(text, now).map_err(|_| illegal())? else { return Ok(Self::Not) };
        if deliver_ms <= now {
            // A deletion of what was delivered long since would itself be delivered.
            return if property(text, timer::DEL_UNIQKEY).is_some() { Err(illegal()) } else { Ok(Self::Not) };
        }
        if deliver_ms - now > max_ms {
            return Err(illegal());
        }
        Ok(Self::Timer(timer::out_ms(deliver_ms, timer::precision_ms(config.timer_precision_ms))))
    }

    /// Bytes by which waiting and delivery lengthen the properties at most.
    pub(crate) fn properties_added(self, topic: &str) -> usize {
        match self {
            Self::Not => 0,
            Self::Level(_) | Self::Timer(_) => timer::ADDED_PROPERTIES_MAX + topic.len(),
        }
    }

    /// Stores the message where it goes first.
    pub(crate) fn append(self, broker: &Broker, message: &NewMessage<'_>) -> Result<Appended, StoreError> {
        match self {
            Self::Not => broker.store.append(message),
            Self::Level(level) => delay::append(broker, message, level),
            Self::Timer(out_ms) => timer::append_waiting(&broker.store, message, out_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use rocketmq_store::push_property;

    use super::*;

    fn of(pairs: &[(&str, &str)], change: impl FnOnce(&mut BrokerConfig)) -> Result<Waiting, ResponseCode> {
        let mut text = Vec::new();
        for (name, value) in pairs {
            push_property(&mut text, name, value);
        }
        let mut config = BrokerConfig::default();
        change(&mut config);
        Waiting::of(&text, &config, 1_000_000_500).map_err(|refusal| refusal.code)
    }

    #[test]
    fn what_senders_ask_for() {
        let waits = |pairs: &[(&str, &str)]| of(pairs, |_| {});
        assert_eq!(waits(&[]), Ok(Waiting::Not));
        assert_eq!(waits(&[("DELAY", "3"), ("TIMER_DELAY_SEC", "5")]), Ok(Waiting::Level(3)));
        assert_eq!(waits(&[("TIMER_DELAY_SEC", "5")]), Ok(Waiting::Timer(1_000_005_000)));
        assert_eq!(waits(&[("TIMER_DELAY_MS", "500")]), Ok(Waiting::Timer(1_000_000_000)));
        assert_eq!(waits(&[("TIMER_DELIVER_MS", "1000000500")]), Ok(Waiting::Not), "it has come");
        assert_eq!(waits(&[("TIMER_DELAY_SEC", "-1")]), Ok(Waiting::Not));
        assert_eq!(waits(&[("TIMER_DELAY_SEC", "259200")]), Ok(Waiting::Timer(1_259_200_000)));
        assert_eq!(waits(&[("TIMER_DELAY_SEC", "259201")]), Err(ResponseCode::MESSAGE_ILLEGAL));
        assert_eq!(waits(&[("TIMER_DELAY_MS", "soon")]), Err(ResponseCode::MESSAGE_ILLEGAL));
        assert_eq!(waits(&[("TIMER_DELIVER_MS", "1"), ("TIMER_OUT_MS", "1")]), Ok(Waiting::Not));
        let deletion = |at| waits(&[("TIMER_DEL_UNIQKEY", "T+k"), ("TIMER_DELIVER_MS", at)]);
        assert_eq!(deletion("5"), Err(ResponseCode::MESSAGE_ILLEGAL));
        assert_eq!(deletion("1000009001"), Ok(Waiting::Timer(1_000_009_000)));
    }

    #[test]
    fn the_settings_decide() {
        let second = [("TIMER_DELAY_SEC", "1")];
        let off = of(&second, |config| config.timer_wheel_enable = false);
        assert_eq!(off, Err(ResponseCode::SYSTEM_ERROR));
        assert_eq!(of(&second, |config| config.timer_max_delay_sec = 0), Err(ResponseCode::MESSAGE_ILLEGAL));
        let fine = of(&second, |config| config.timer_precision_ms = 250);
        assert_eq!(fine, Ok(Waiting::Timer(1_000_001_400)));
    }
}
