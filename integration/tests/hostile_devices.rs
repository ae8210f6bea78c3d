//! Guests that break the rules of one kind of device: requests, frames and packets that nobody may
//! make. The guest is refused, the reason is counted or told, nobody else notices.

use integration::hostile::{Machine, Subject, bear, cases};

#[test]
fn disks_bear_hostile_requests() {
    bear(&Machine::slice(), Subject::Disk, cases::DISK);
}

#[test]
fn read_only_disks_bear_hostile_writes() {
    bear(
        &Machine::slice(),
        Subject::ReadOnlyDisk,
        cases::READ_ONLY_DISK,
    );
}

#[test]
fn network_cards_bear_hostile_frames() {
    bear(&Machine::slice(), Subject::Net, cases::NET);
}

#[test]
fn network_cards_bear_hostile_buffers() {
    bear(&Machine::slice(), Subject::NetReceive, cases::NET_RECEIVE);
}

#[test]
fn vsocks_bear_hostile_packets() {
    bear(&Machine::slice(), Subject::Vsock, cases::VSOCK);
}

#[test]
fn vsocks_bear_hostile_buffers() {
    bear(
        &Machine::slice(),
        Subject::VsockReceive,
        cases::VSOCK_RECEIVE,
    );
}

#[test]
fn balloons_bear_hostile_pages() {
    bear(&Machine::slice(), Subject::Balloon, cases::BALLOON);
}

#[test]
fn entropy_sources_bear_greed() {
    bear(&Machine::slice(), Subject::Rng, cases::RNG);
}
