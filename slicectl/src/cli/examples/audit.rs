//! Examples for the audit's commands.

pub(in crate::cli) const FLOWS: &str = "\
Examples:
  slicectl flows --dst 192.0.2.7
  slicectl flows --dst 192.0.2.0/24 --at 14:03
  slicectl flows --src 198.51.100.1:20017 --dst 192.0.2.7 --port 22 --since 2d
  slicectl flows --slice site_web --since 1h --json | jq '.[].remote'

Names the slice, who answers for it, and each flow. A port of the source is the one that the outside
saw. A flow that lasts is stored once a minute.

Times are UTC. Exit code 1 if there is none.";

pub(in crate::cli) const BLOCK: &str = "\
Examples:
  slicectl block add 192.0.2.7 --reason 'complaint of 14:03' --until 7d
  slicectl block add 2001:db8::/32 --slice site_web
  slicectl block ls
  slicectl block rm 192.0.2.7

A block is told to all running slivers at once, and to each that starts later. Exit code 1 if one of
them could not be told; its own slicectl run tries again each second.";

pub(in crate::cli) const EVENTS: &str = "\
Examples:
  slicectl events
  slicectl events --follow
  slicectl events web-1 --kind long_probe --since 2d
  slicectl events --follow --json | jq -r .detail

Drops, caps that were reached, blocks, probes that last, and what the audit itself could not do. With
--follow and --json, each event is a line of its own.";
