use super::*;
use crate::net::testing::{attach, exists, in_namespace, make_tap, set_up};

fn name(text: &str) -> TapName {
    TapName::parse(text).unwrap()
}

fn refusal(text: &str) -> String {
    Tap::open(&name(text)).unwrap_err().to_string()
}

#[test]
fn a_tap_that_does_not_exist_is_refused_and_not_made() {
    in_namespace(|| {
        assert_eq!(
            refusal("tap7"),
            "there is no network interface tap7: make the tap first"
        );
        assert!(!exists("tap7"));
    });
}

#[test]
fn what_is_not_a_tap_is_refused_by_name() {
    in_namespace(|| {
        let _tun = attach("tun7", libc::IFF_TUN);
        for other in ["lo", "tun7"] {
            assert_eq!(
                refusal(other),
                format!("network interface {other} is not a tap, or one with several queues")
            );
        }
    });
}

#[test]
fn a_tap_in_use_is_refused_until_it_is_free() {
    in_namespace(|| {
        make_tap("tap7");
        assert!(exists("tap7"));
        let first = Tap::open(&name("tap7")).unwrap();
        assert_eq!(first.name(), "tap7");
        assert_eq!(refusal("tap7"), "tap tap7 is in use");
        drop(first);
        Tap::open(&name("tap7")).unwrap();
    });
}

#[test]
fn an_idle_tap_has_nothing_to_read_and_does_not_wait() {
    in_namespace(|| {
        make_tap("tap7");
        let tap = Tap::open(&name("tap7")).unwrap();
        // The kernel's own frames (it looks for IPv6 neighbours) come first.
        let mut frame = [0; 2048];
        while rustix::io::read(&tap, &mut frame).is_ok() {}
        assert_eq!(
            rustix::io::read(&tap, &mut frame),
            Err(rustix::io::Errno::AGAIN)
        );
    });
}

#[test]
fn a_descriptor_handed_in_is_taken_if_it_is_a_tap_of_the_right_kind() {
    in_namespace(|| {
        let fd = attach("tap7", FLAGS);
        set_up("tap7");
        let tap = Tap::from_fd(fd).unwrap();
        assert_eq!(tap.name(), "tap7");
        assert!(fcntl_getfl(&tap).unwrap().contains(OFlags::NONBLOCK));
        let all = TapOffloads {
            checksum: true,
            tso4: true,
            tso6: true,
        };
        tap.set_offloads(all).unwrap();
        tap.set_offloads(TapOffloads::default()).unwrap();

        let plain = attach("tap8", libc::IFF_TAP | libc::IFF_NO_PI);
        let refused = Tap::from_fd(plain).unwrap_err();
        assert!(matches!(&refused, TapError::WrongMode { name } if name == "tap8"));
        let file = tempfile::tempfile().unwrap();
        let refused = Tap::from_fd(file.into()).unwrap_err();
        assert!(matches!(refused, TapError::NotATapDescriptor { .. }));
    });
}
