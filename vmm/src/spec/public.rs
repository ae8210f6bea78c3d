//! What the outside sees of a sliver, in its spec.

use std::net::Ipv4Addr;

use serde::Serialize;

use crate::net::ports::PortRange;

use super::fields::Fields;

/// Where a sliver's traffic comes from, seen from outside:
/// `{ "ports": "20000-20999", "address": "192.0.2.1" }`.
///
/// Each source port of the guest is translated into one of `ports`, which no other sliver of the
/// node has; the node's masquerade is to keep it. `address` is the node's: it is only told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PublicSpec {
    ports: PortRange,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Ipv4Addr>,
}

impl PublicSpec {
    pub(super) fn read(fields: &mut Fields) -> Option<Self> {
        let ports = fields.required_parsed("ports", |text| {
            text.parse::<PortRange>().map_err(|error| error.to_string())
        });
        let address = fields.optional_parsed("address", |text| {
            let address = text.parse();
            address.map_err(|_| format!("{text:?} is not an IPv4 address such as 192.0.2.1"))
        });
        Some(Self {
            ports: ports?,
            address,
        })
    }

    /// The sliver's ports.
    pub fn ports(&self) -> PortRange {
        self.ports
    }

    /// The node's address.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.address
    }
}
