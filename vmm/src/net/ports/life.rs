//! How long a mapping is kept: by what it was last seen to carry.
//!
//! Each state has two spans without a packet. After the longer one a mapping is forgotten. After the
//! shorter one it is given up if a port is needed and no other is free: a guest with many short
//! connections would otherwise be without ports for minutes.

use crate::nanos::Nanos;

const fn seconds(seconds: u64) -> Nanos {
    Nanos::from_millis(seconds * 1000)
}

/// A packet that comes this long after the end of a connection belongs to another one.
const ECHO_OF_THE_END: Nanos = seconds(1);

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Out,
    In,
}

/// What a mapping carries, as far as that says how long to keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Datagrams.
    Udp,
    /// Questions and their answers.
    Icmp,
    /// A stream that nobody has answered yet.
    Opening,
    /// A stream.
    Open,
    /// A stream that the guest has ended.
    EndedInside,
    /// A stream that the other side has ended.
    EndedOutside,
    /// A stream that has ended, or was broken off.
    Closed,
}

impl Life {
    /// After how long without a packet a mapping is forgotten: RFC 5382 (REQ-5) for streams,
    /// RFC 4787 (REQ-5) for datagrams, RFC 5508 (REQ-2) for ICMP.
    pub(super) const fn kept(self) -> Nanos {
        match self {
            Self::Udp => seconds(300),
            Self::Icmp => seconds(60),
            Self::Open => seconds(2 * 3600 + 240),
            Self::Opening | Self::EndedInside | Self::EndedOutside => seconds(240),
            Self::Closed => seconds(10),
        }
    }

    /// The same when its port is needed.
    pub(super) const fn spared(self) -> Nanos {
        match self {
            Self::Udp | Self::Opening | Self::EndedInside | Self::EndedOutside => seconds(30),
            Self::Icmp => seconds(10),
            Self::Open => self.kept(),
            Self::Closed => seconds(1),
        }
    }

    /// What it is after a packet of a stream, `idle` after the one before. Several connections may
    /// share a mapping: what follows the end of one is a sign of another.
    #[must_use]
    pub(super) fn after(self, way: Way, flags: u8, idle: Nanos) -> Self {
        let has = |flag: u8| flags & flag != 0;
        match self {
            Self::Udp | Self::Icmp => self,
            _ if has(TCP_RST) => Self::Closed,
            _ if has(TCP_SYN) && !has(TCP_ACK) => match self {
                Self::Open => self,
                _ => Self::Opening,
            },
            _ if has(TCP_FIN) => match (self, way) {
                (Self::Closed | Self::EndedInside, Way::In)
                | (Self::Closed | Self::EndedOutside, Way::Out) => Self::Closed,
                (_, Way::Out) => Self::EndedInside,
                (_, Way::In) => Self::EndedOutside,
            },
            Self::Opening if way == Way::In => Self::Open,
            Self::Closed if idle > ECHO_OF_THE_END => Self::EndedInside,
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Nanos = Nanos::from_millis(1);

    fn after(packets: &[(Way, u8)]) -> Life {
        packets.iter().fold(Life::Opening, |life, (way, flags)| {
            life.after(*way, *flags, SOON)
        })
    }

    #[test]
    fn a_connection_is_kept_for_hours_once_it_is_answered_and_for_seconds_once_it_has_ended() {
        let opened = [(Way::Out, TCP_SYN), (Way::In, TCP_SYN | TCP_ACK)];
        assert_eq!(after(&opened[..1]), Life::Opening);
        assert_eq!(after(&opened), Life::Open);
        let fin = TCP_FIN | TCP_ACK;
        let ended = [
            opened[0],
            opened[1],
            (Way::Out, TCP_ACK),
            (Way::Out, fin),
            (Way::In, TCP_ACK),
            (Way::In, fin),
            (Way::Out, TCP_ACK),
        ];
        assert_eq!(after(&ended[..4]), Life::EndedInside);
        assert_eq!(after(&ended[..5]), Life::EndedInside);
        assert_eq!(after(&ended), Life::Closed);
        assert_eq!(
            after(&[opened[0], (Way::In, TCP_RST | TCP_ACK)]),
            Life::Closed
        );
    }

    #[test]
    fn a_port_that_is_used_again_is_not_closed() {
        assert_eq!(Life::Closed.after(Way::Out, TCP_SYN, SOON), Life::Opening);
        assert_eq!(Life::Open.after(Way::Out, TCP_SYN, SOON), Life::Open);
    }

    #[test]
    fn the_end_of_one_connection_leaves_another_on_the_same_port_minutes() {
        let later = seconds(5);
        let life = Life::Closed.after(Way::In, TCP_ACK, later);
        assert!(life.kept() >= seconds(240));
        assert_eq!(Life::Closed.after(Way::In, TCP_ACK, SOON), Life::Closed);
    }

    #[test]
    fn nothing_is_given_up_later_than_it_is_forgotten() {
        use Life::*;
        for life in [Udp, Icmp, Opening, Open, EndedInside, EndedOutside, Closed] {
            assert!(life.spared() <= life.kept());
            assert!(life.spared() > Nanos::ZERO);
        }
    }
}
