//! Why a packet is dropped, and how many were.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a packet is dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name in counters and events.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// The source is another card's hardware address.
    ForgedMac = "forged_mac",
    /// The source is not the sliver's address.
    ForgedIp = "forged_ip",
    /// ARP that speaks for another.
    ForgedArp = "forged_arp",
    /// Neighbour discovery or ICMP that speaks for another, or for a router.
    ForgedNeighbour = "forged_neighbour",
    /// An answer of a DHCP server, which a guest is not.
    ForgedServer = "forged_server",
    /// Port 0.
    PortZero = "port_zero",
    /// To an address that is nobody's, or private.
    Bogon = "bogon",
    /// To a group that is not allowed.
    Multicast = "multicast",
    /// To all.
    Broadcast = "broadcast",
    /// Lengths contradict each other.
    BadLength = "bad_length",
    /// Headers make no sense.
    Malformed = "malformed",
    /// Its header says where it goes on the way.
    SourceRouted = "source_routed",
    /// Neither IP nor ARP.
    Ethertype = "ethertype",
    /// An ICMP error about a packet that was never sent to it.
    ForgedError = "forged_error",
    /// Too much ARP, neighbour discovery and the like.
    UpkeepRate = "upkeep_rate",
    /// It is to be cut into segments and is not TCP.
    Segments = "segments",
    /// Its checksum is to be written where none belongs.
    Checksum = "checksum",
    /// Its ports cannot be changed to those that the sliver has outside.
    Untranslated = "untranslated",
    /// All of its ports outside are in use.
    PortsFull = "ports_full",
    /// The day's allowance leaves it no room, and others wait behind it.
    Allowance = "allowance",
    /// It could not be written down.
    NotAudited = "not_audited",
    /// Too many new flows.
    FlowRate = "flow_rate",
    /// Too many different destinations.
    Destinations = "destinations",
    /// Too much ICMP.
    IcmpRate = "icmp_rate",
    /// Who is there does not want to be sent anything.
    DoNotContact = "do_not_contact",
    /// The node's operator has blocked it.
    Blocked = "blocked",
    /// The site does not want it.
    SiteDenied = "site_denied",
    /// The site allows others only.
    NotAllowed = "not_allowed",
    /// To or from a sliver of this node that was not agreed on.
    OtherSliver = "other_sliver",
    /// Probed for two days: one packet a minute is left.
    LongProbe = "long_probe",
}

/// A count for each reason.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts([u64; Reason::ALL.len()]);

impl Counts {
    pub(super) fn add(&mut self, reason: Reason) {
        self.0[reason as usize] += 1;
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let reasons = Reason::ALL.iter().zip(&self.0);
        reasons.map(|(reason, count)| (reason.as_str(), *count))
    }
}
