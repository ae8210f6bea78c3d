//! All that a sliver is granted, and what somebody wants of it to be otherwise while it runs.
//!
//! [`LimitsChange::apply`] checks all parts of a change before any is put in force, and tells all
//! that is wrong with it at once.

use serde::{Deserialize, Serialize};

use super::{
    CpuChange, CpuLimits, DiskChange, DiskLimits, Mistake, NetChange, NetLimits, UplinkSpec,
};

/// What a sliver is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Of the processors.
    pub cpu: CpuLimits,
    /// Of the network, if it has a card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<NetLimits>,
    /// Of its disks, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskLimits>,
}

/// The limits that somebody wants, not checked. What is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsChange {
    /// Of the processors.
    #[serde(skip_serializing_if = "CpuChange::is_empty")]
    pub cpu: CpuChange,
    /// Of the network.
    #[serde(skip_serializing_if = "NetChange::is_empty")]
    pub net: NetChange,
    /// Of the disks.
    #[serde(skip_serializing_if = "DiskChange::is_empty")]
    pub disk: DiskChange,
}

/// What limits are checked against, besides those in force.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// Of the sliver.
    pub vcpus: usize,
    /// Of the node, if they are known.
    pub processors: Option<u32>,
    /// The node's way out, if it is known.
    pub uplink: Option<&'a UplinkSpec>,
}

impl LimitsChange {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The limits that come of it for a sliver that has `now`, or all that is wrong with it.
    pub fn apply(&self, now: &Limits, bounds: &Bounds<'_>) -> Result<Limits, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut limits = now.clone();
        if !self.cpu.is_empty() {
            match self.cpu.apply(&now.cpu, bounds.vcpus) {
                Ok(cpu) => {
                    limits.cpu = cpu;
                    let processors = bounds.processors;
                    mistakes.extend(processors.and_then(|all| cpu.beyond_vcpus(bounds.vcpus, all)));
                }
                Err(wrong) => mistakes.extend(wrong),
            }
        }
        if !self.net.is_empty() {
            let net = match &now.net {
                Some(now) => self.net.apply(now),
                None => Err(vec![lacks("net", "network card")]),
            };
            match net {
                Ok(net) => {
                    mistakes.extend(bounds.uplink.and_then(|uplink| uplink.refuses(&net)));
                    limits.net = Some(net);
                }
                Err(wrong) => mistakes.extend(wrong),
            }
        }
        if !self.disk.is_empty() {
            let disk = match &now.disk {
                Some(now) => self.disk.apply(now),
                None => Err(vec![lacks("disk", "disk")]),
            };
            match disk {
                Ok(disk) => limits.disk = Some(disk),
                Err(wrong) => mistakes.extend(wrong),
            }
        }
        match mistakes.is_empty() {
            true => Ok(limits),
            false => Err(mistakes),
        }
    }
}

/// Limits are wanted of something that the sliver does not have.
fn lacks(field: &str, what: &str) -> Mistake {
    Mistake {
        field: field.to_owned(),
        problem: format!("the sliver has no {what}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::SliverSpec;

    const BOUNDS: Bounds<'_> = Bounds {
        vcpus: 1,
        processors: Some(2),
        uplink: None,
    };

    fn change(json: Value) -> LimitsChange {
        serde_json::from_value(json).expect("it is a change")
    }

    fn with_all() -> Limits {
        Limits {
            cpu: CpuLimits::default(),
            net: Some(NetLimits::default()),
            disk: Some(DiskLimits::default()),
        }
    }

    #[test]
    fn what_is_named_changes_and_the_rest_stays() {
        let wanted = change(json!({
            "cpu": { "cpu_cap": 50 },
            "net": { "net_max_rate": 512, "net_burst": 64 },
            "disk": { "disk_iops": 100 },
        }));
        let limits = wanted.apply(&with_all(), &BOUNDS).expect("allowed");
        let wanted = change(json!({
            "net": { "net_max_rate": "none" },
            "disk": { "disk_rate": 1024, "disk_iops": "none" },
        }));
        let limits = wanted.apply(&limits, &BOUNDS).expect("allowed");
        assert_eq!(limits.cpu.cap().map(|cap| cap.0), Some(500));
        let net = limits.net.expect("it has a card");
        assert_eq!((net.plain().max_kbit, net.burst_bytes(1)), (None, 64 << 10));
        let disk = limits.disk.expect("it has disks");
        assert_eq!(disk.bytes_per_second(), Some(1 << 20));
        assert_eq!(disk.requests_per_second(), None);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_with_what_is_allowed() {
        let uplink = json!({
            "version": 1, "name": "a", "slice": "a_b", "owner": "o", "contact": "c", "image": "/i",
            "uplink": { "interface": "eth0", "rate": 10_000 },
        });
        let spec = SliverSpec::parse(uplink.to_string().as_bytes()).expect("a spec");
        let bounds = Bounds {
            uplink: spec.uplink(),
            ..BOUNDS
        };
        let wanted = change(json!({
            "cpu": { "cpu_pct": 90 },
            "net": { "net_min_rate": 2501 },
            "disk": { "disk_rate": 0 },
        }));
        let mistakes = wanted.apply(&with_all(), &bounds).expect_err("refused");
        let told: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("cpu_pct"), "{told:?}");
        assert!(told[1].starts_with("net_min_rate: 2501 kbit/s"), "{told:?}");
        assert!(told[1].ends_with("allowed are 0 to 2500"), "{told:?}");
        assert!(told[2].starts_with("disk_rate: is 0"), "{told:?}");
    }

    #[test]
    fn nobody_has_limits_of_what_he_does_not_have() {
        let bare = Limits {
            net: None,
            disk: None,
            ..with_all()
        };
        let wanted = change(json!({
            "net": { "net_share": 2 }, "disk": { "disk_iops": "none" },
        }));
        let mistakes = wanted.apply(&bare, &BOUNDS).expect_err("refused");
        let told: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
        assert_eq!(
            told,
            [
                "net: the sliver has no network card",
                "disk: the sliver has no disk"
            ]
        );
        assert_eq!(LimitsChange::default().apply(&bare, &BOUNDS), Ok(bare));
    }

    #[test]
    fn what_is_written_where_it_does_not_belong_is_no_change() {
        for wrong in [
            json!({ "cpu_cap": 50 }),
            json!({ "net": { "cpu_cap": 50 } }),
            json!({ "disk": { "disk_iops": "many" } }),
            json!({ "net": { "net_max_rate": -1 } }),
        ] {
            let read = serde_json::from_value::<LimitsChange>(wrong.clone());
            assert!(read.is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_are_read_as_they_were_written() {
        let wanted = change(json!({
            "net": { "net_max_rate": 512, "net_exempt": ["192.0.2.0/24"] },
            "disk": { "disk_iops": 100 },
        }));
        let limits = wanted.apply(&with_all(), &BOUNDS).expect("allowed");
        let text = serde_json::to_string(&limits).expect("text");
        assert_eq!(
            serde_json::from_str::<Limits>(&text).expect("limits"),
            limits
        );
    }
}
