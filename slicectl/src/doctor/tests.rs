//! Judgements on hosts that are made up, and the parsers of what real ones show.

use vmm::jail::Layer;

use super::facts::{Facts, Limits, Nat, Processor, chosen, processor};
use super::report::{Check, Grade, judge};
use crate::backstop::hierarchy::{Offer, Version};
use crate::host::Memory;
use crate::kvm::{CannotOpen, KvmFacts};

fn good() -> Facts {
    Facts {
        user: "ada".to_owned(),
        kvm: Ok(KvmFacts {
            api_version: 12,
            max_vcpus: 1024,
            needed_capabilities: true,
            create_error: None,
        }),
        processor: Processor::Vmx,
        memory: Some(Memory {
            total_kib: 24 << 20,
            available_kib: 20 << 20,
        }),
        huge_pages: Some("madvise".to_owned()),
        cgroup: Offer::Usable(Version::V2),
        tun: Ok(()),
        nat: Nat {
            program: true,
            forwards: true,
        },
        jail: Vec::new(),
        limits: Limits {
            files: Some(1 << 20),
            locked: Some(8 << 20),
            processes: None,
        },
        pid_max: Some(4_194_304),
        run_dir: ("/run/slicevisor".to_owned(), None),
    }
}

fn closed(errno: i32) -> Result<KvmFacts, CannotOpen> {
    Err(CannotOpen {
        errno,
        group: Some("kvm".to_owned()),
    })
}

fn find<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    let found = checks.iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("no check {name}"))
}

fn judged(name: &str, change: impl FnOnce(&mut Facts)) -> Check {
    let mut facts = good();
    change(&mut facts);
    find(&judge(&facts), name).clone()
}

#[test]
fn a_good_host_has_nothing_to_mend() {
    for check in judge(&good()) {
        assert_eq!((check.status, &check.mend), (Grade::Ok, &None), "{check:?}");
    }
}

#[test]
fn whatever_is_not_fine_says_what_mends_it() {
    let bad = Facts {
        kvm: closed(libc::ENOENT),
        processor: Processor::Neither,
        memory: Some(Memory {
            total_kib: 1 << 18,
            available_kib: 1 << 17,
        }),
        huge_pages: Some("never".to_owned()),
        cgroup: Offer::Nothing,
        tun: Err(libc::ENOENT),
        nat: Nat {
            program: false,
            forwards: false,
        },
        jail: vec![
            (Layer::User, "no space".to_owned()),
            (Layer::Mount, String::new()),
        ],
        limits: Limits {
            files: Some(32),
            locked: Some(0),
            processes: Some(100),
        },
        pid_max: Some(1000),
        run_dir: ("/nowhere".to_owned(), Some("cannot be made".to_owned())),
        ..good()
    };
    for check in judge(&bad) {
        if check.name != "locked memory" {
            assert_ne!(check.status, Grade::Ok, "{check:?}");
            assert!(check.mend.is_some(), "{check:?}");
        }
    }
}

#[test]
fn missing_layers_of_the_jail_are_named_with_the_flags_to_do_without() {
    let check = judged("jail", |facts| {
        facts.jail = vec![
            (Layer::User, "no space left".to_owned()),
            (Layer::Mount, "not permitted".to_owned()),
        ];
    });
    assert_eq!(check.status, Grade::Fail);
    assert!(
        check
            .explanation
            .contains("user, mount (user: no space left)"),
        "{check:?}"
    );
    let mend = check.mend.expect("a remedy");
    let flags = "--allow-weak-jail user --allow-weak-jail mount";
    assert!(mend.contains(flags), "{mend}");
}

#[test]
fn a_closed_kvm_names_the_user_and_the_group() {
    let check = judged("kvm", |facts| facts.kvm = closed(libc::EACCES));
    assert_eq!(check.status, Grade::Fail);
    assert!(
        check.explanation.contains("may not be opened by ada"),
        "{check:?}"
    );
    assert!(
        check
            .mend
            .expect("a remedy")
            .contains("usermod -aG kvm ada")
    );
}

#[test]
fn kvm_without_vmx_or_svm_is_page_table_based_and_only_a_warning() {
    let check = judged("virtualisation", |facts| {
        facts.processor = Processor::Neither
    });
    assert_eq!(check.status, Grade::Warn);
    assert!(check.explanation.contains("page-table based"), "{check:?}");
    assert!(
        check
            .explanation
            .contains("native images run at full speed"),
        "{check:?}"
    );
}

#[test]
fn without_kvm_a_missing_vmx_is_the_reason() {
    let check = judged("virtualisation", |facts| {
        facts.processor = Processor::Neither;
        facts.kvm = closed(libc::ENOENT);
    });
    assert_eq!(check.status, Grade::Fail);
    assert!(check.mend.expect("a remedy").contains("firmware"));
}

#[test]
fn a_kvm_that_could_not_be_asked_is_not_said_to_be_unable() {
    let check = judged("virtualisation", |facts| {
        facts.processor = Processor::Neither;
        facts.kvm = closed(libc::EACCES);
    });
    assert_eq!(check.status, Grade::Warn);
    assert!(
        check.explanation.contains("could not be asked"),
        "{check:?}"
    );
}

#[test]
fn few_files_stop_a_monitor_and_some_only_a_node() {
    let with = |files| judged("open files", |facts| facts.limits.files = files).status;
    assert_eq!(with(Some(63)), Grade::Fail);
    assert_eq!(with(Some(256)), Grade::Warn);
    assert_eq!(with(Some(1024)), Grade::Ok);
    assert_eq!(with(None), Grade::Ok);
}

#[test]
fn a_missing_tap_does_not_stop_slivers() {
    for errno in [libc::ENOENT, libc::EACCES] {
        assert_eq!(
            judged("tap", |facts| facts.tun = Err(errno)).status,
            Grade::Warn
        );
    }
}

#[test]
fn what_is_missing_for_a_way_out_is_named_with_what_mends_it() {
    for (program, forwards) in [(false, false), (false, true), (true, false)] {
        let check = judged("way out", |facts| {
            facts.nat = Nat { program, forwards };
        });
        assert_eq!(check.status, Grade::Warn);
        let mend = check.mend.expect("a remedy");
        assert_eq!(mend.contains("nftables"), !program, "{mend}");
        assert_eq!(mend.contains("ip_forward"), !forwards, "{mend}");
    }
}

#[test]
fn flags_are_words_not_parts_of_words() {
    assert_eq!(processor("flags\t\t: fpu vmx sse\n"), Processor::Vmx);
    assert_eq!(processor("flags\t\t: fpu svm\n"), Processor::Svm);
    assert_eq!(
        processor("flags\t\t: fpu svm_lock vmxnet\nbugs: vmx\n"),
        Processor::Neither
    );
    assert_eq!(processor(""), Processor::Neither);
}

#[test]
fn the_chosen_mode_is_the_one_in_brackets() {
    assert_eq!(
        chosen("always [madvise] never\n").as_deref(),
        Some("madvise")
    );
    assert_eq!(chosen("nonsense"), None);
}

#[test]
fn control_groups_that_are_missing_or_closed_only_cost_the_second_fence() {
    for offer in [
        Offer::Nothing,
        Offer::NoController,
        Offer::Closed(Version::V1, "/sys/fs/cgroup/cpu".into()),
        Offer::Closed(Version::V2, "/sys/fs/cgroup".into()),
    ] {
        let check = judged("cgroup", |facts| facts.cgroup = offer.clone());
        assert_eq!(check.status, Grade::Warn, "{offer:?}");
        assert!(check.explanation.contains("second fence"), "{check:?}");
        assert!(check.mend.is_some(), "{check:?}");
    }
    let v1 = judged("cgroup", |facts| facts.cgroup = Offer::Usable(Version::V1));
    assert_eq!(v1.status, Grade::Ok);
    assert!(v1.explanation.starts_with("v1"), "{v1:?}");
}
