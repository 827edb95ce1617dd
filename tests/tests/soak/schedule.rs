//! What happens to a running cluster, and when: all of it follows from the seed.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A broker is stopped with SIGTERM, or killed, and started again after that time.
    Restart {
        broker: usize,
        kill: bool,
        down: Duration,
    },
    /// The name server is started anew, with nothing in its memory.
    RestartNameServer,
    /// A broker is stopped for that time in the middle of whatever it does.
    PauseBroker {
        broker: usize,
        pause: Duration,
    },
    /// The same for the process of one version's consumers, or of its producers.
    PauseConsumers {
        version: usize,
        pause: Duration,
    },
    PauseProducers {
        version: usize,
        pause: Duration,
    },
    /// One member of a group leaves, and comes back after that time.
    RestartMember {
        version: usize,
        member: usize,
        down: Duration,
    },
    /// All consumers of one version are killed, and started again at once.
    KillConsumers {
        version: usize,
    },
}

/// Events with the time before each.
pub(crate) fn schedule(seed: u64, lasts: Duration, brokers: usize, versions: usize, members: usize) -> Vec<Step> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut steps = Vec::new();
    let mut at = Duration::ZERO;
    while at < lasts {
        let wait = Duration::from_millis(random.random_range(500..6_000));
        let down = Duration::from_millis(random.random_range(0..4_000));
        let pause = Duration::from_millis(random.random_range(500..5_000));
        let (broker, version) = (random.random_range(0..brokers), random.random_range(0..versions));
        let member = random.random_range(0..members);
        let event = match random.random_range(0..20) {
            0..5 => Event::Restart { broker, kill: true, down },
            5..9 => Event::Restart { broker, kill: false, down },
            9 => Event::RestartNameServer,
            10..12 => Event::PauseBroker { broker, pause },
            12..14 => Event::PauseConsumers { version, pause },
            14 => Event::PauseProducers { version, pause },
            15..19 => Event::RestartMember { version, member, down },
            _ => Event::KillConsumers { version },
        };
        at += wait + event.takes();
        steps.push(Step { wait, event });
    }
    steps
}

/// An event, and how long nothing happens before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) wait: Duration,
    pub(crate) event: Event,
}

impl Event {
    fn takes(self) -> Duration {
        match self {
            Self::Restart { down, .. } | Self::RestartMember { down, .. } => down,
            Self::PauseBroker { pause, .. }
            | Self::PauseConsumers { pause, .. }
            | Self::PauseProducers { pause, .. } => pause,
            Self::RestartNameServer | Self::KillConsumers { .. } => Duration::ZERO,
        }
    }
}

#[test]
fn a_seed_says_everything() {
    let minute = Duration::from_mins(1);
    let steps = schedule(1, minute, 2, 2, 9);
    assert_eq!(steps, schedule(1, minute, 2, 2, 9));
    assert_ne!(steps, schedule(2, minute, 2, 2, 9));
    let hours = schedule(3, Duration::from_hours(2), 2, 2, 9);
    for kill in [true, false] {
        assert!(hours.iter().any(|step| matches!(step.event, Event::Restart { kill: k, .. } if k == kill)));
    }
    assert!(hours.iter().any(|step| matches!(step.event, Event::KillConsumers { .. })));
    assert!(hours.iter().any(|step| step.event == Event::RestartNameServer));
}
