//! The same guests on a computer: in ring 0, with interrupts, and with ports. Whatever they do, the
//! device stops and says why, or does not do it, and interrupts as asked; nobody else notices.

use integration::hostile::{Machine, Subject, bear, cases};

macro_rules! subjects {
    ($($name:ident: $subject:ident;)*) => {
        $(
            #[test]
            fn $name() {
                let cases = cases::legacy(Subject::$subject);
                bear(&Machine::legacy(), Subject::$subject, &cases);
            }
        )*
    };
}

subjects! {
    consoles_and_ports_bear_hostile_kernels: Console;
    network_cards_bear_hostile_kernels: Net;
    receiving_bears_hostile_kernels: NetReceive;
    disks_bear_hostile_kernels: Disk;
    read_only_disks_bear_hostile_kernels: ReadOnlyDisk;
    entropy_sources_bear_hostile_kernels: Rng;
    vsocks_bear_hostile_kernels: Vsock;
    receiving_vsocks_bear_hostile_kernels: VsockReceive;
    balloons_bear_hostile_kernels: Balloon;
    reporting_bears_hostile_kernels: BalloonReporting;
}
