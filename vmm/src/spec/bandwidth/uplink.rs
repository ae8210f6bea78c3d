//! The node's way out, in a sliver's spec, and what the spec says about traffic altogether.

use serde::Serialize;

use super::{MAX_KBIT, NetChange, NetLimits};
use crate::spec::fields::Fields;
use crate::spec::{Mistake, TapName};

/// The part of an uplink that one sliver can have guaranteed, in percent, as on PlanetLab.
const MOST_GUARANTEED_PERCENT: u64 = 25;

/// The interface that the node's slivers share on the way out, and what it carries:
/// `{ "interface": "eth0", "rate": 10000 }`, the rate in kbit/s from 1 to [`MAX_KBIT`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UplinkSpec {
    interface: TapName,
    rate: u64,
}

impl UplinkSpec {
    fn read(fields: &mut Fields) -> Option<Self> {
        let interface = fields.required_parsed("interface", TapName::parse);
        let rate = fields.required_u64("rate");
        let allowed = 1..=MAX_KBIT;
        if let Some(rate) = rate.filter(|rate| !allowed.contains(rate)) {
            fields.mistake("rate", format!("is {rate}, allowed are 1 to {MAX_KBIT}"));
            return None;
        }
        Some(Self {
            interface: interface?,
            rate: rate?,
        })
    }

    /// The interface.
    pub fn interface(&self) -> &str {
        self.interface.as_str()
    }

    /// What it carries on the way out, in kbit/s.
    pub fn kbit(&self) -> u64 {
        self.rate
    }

    /// Why so much cannot be guaranteed to one sliver.
    pub fn refuses(&self, limits: &NetLimits) -> Option<Mistake> {
        let most = self.rate * MOST_GUARANTEED_PERCENT / 100;
        let guaranteed = limits.guaranteed_kbit();
        let (field, with) = match limits.exempt().min_kbit {
            0 => ("net_min_rate", String::new()),
            exempt => ("net_exempt_min_rate", format!(" ({exempt} of it exempt)")),
        };
        (guaranteed > most).then(|| Mistake {
            field: field.to_owned(),
            problem: format!(
                "{guaranteed} kbit/s{with} are more than {MOST_GUARANTEED_PERCENT} % of the \
                 uplink's {}: allowed are 0 to {most}",
                self.rate
            ),
        })
    }
}

/// What a spec says about traffic: the uplink, and the limits that differ from what is usual there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "Written")]
pub(in crate::spec) struct Network {
    pub(in crate::spec) uplink: Option<UplinkSpec>,
    pub(in crate::spec) limits: NetLimits,
}

/// The same as it is written.
#[derive(Serialize)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    uplink: Option<UplinkSpec>,
    #[serde(flatten)]
    limits: NetChange,
}

impl Network {
    /// Reads the fields of a sliver.
    pub(in crate::spec) fn read(fields: &mut Fields) -> Self {
        let uplink = fields.object("uplink", UplinkSpec::read).flatten();
        let limits = NetLimits::read(fields, &usual(uplink.as_ref()));
        let refused = uplink.as_ref().and_then(|uplink| uplink.refuses(&limits));
        if let Some(mistake) = refused {
            fields.mistake(&mistake.field, mistake.problem);
        }
        Self { uplink, limits }
    }
}

impl From<Network> for Written {
    fn from(network: Network) -> Self {
        let usual = NetChange::from(usual(network.uplink.as_ref()));
        Self {
            limits: NetChange::from(network.limits).without(&usual),
            uplink: network.uplink,
        }
    }
}

/// The limits of a sliver whose spec writes none.
fn usual(uplink: Option<&UplinkSpec>) -> NetLimits {
    match uplink {
        Some(_) => NetLimits::on_uplink(),
        None => NetLimits::default(),
    }
}
