//! Every way in which a guest can fail is told apart, with where and by what.

use std::fs;

use integration::artifacts;
use integration::needs_kvm;
use integration::sliver::{Ended, Sliver};
use object::{Object, ObjectSymbol};
use slice_abi::layout::RAM_BASE;
use vmm::exit::{ExitKind, Fault};

/// What a fault must be told as.
struct Expected {
    exception: &'static str,
    vector: u8,
    access: Option<&'static str>,
    target: Option<&'static str>,
}

/// Makes the `fault` example do `what` and checks what is told of its end.
#[track_caller]
fn fault(what: &str, expected: Expected) -> Fault {
    let ended = Sliver::example("fault").args([what]).run();
    let fault = ended.fault().clone();
    assert_eq!(fault.exception, expected.exception, "{fault:#?}");
    assert_eq!(fault.vector, expected.vector, "{fault:#?}");
    assert_eq!(fault.access.as_deref(), expected.access, "{fault:#?}");
    assert_eq!(
        fault.address.is_some(),
        expected.access.is_some(),
        "{fault:#?}"
    );
    match (&fault.target, expected.target) {
        (Some(target), Some(word)) => assert!(target.contains(word), "{fault:#?}"),
        (target, word) => assert_eq!(target.is_some(), word.is_some(), "{fault:#?}"),
    }
    assert_eq!(fault.vcpu, 0);
    assert!(
        ended.console.contains(&format!("about to: {what}\n")),
        "{ended:#?}"
    );
    assert_backtrace(&ended, what);
    fault
}

/// The backtrace begins where the fault was and stays inside the image's code.
#[track_caller]
fn assert_backtrace(ended: &Ended, what: &str) {
    let detail = &ended.record().exit.detail;
    assert!(!detail.backtrace.is_empty(), "{ended:#?}");
    let file = fs::read(artifacts::image("fault")).expect("the image was built");
    let image = object::File::parse(&*file).expect("the image is an ELF file");
    let end = image.symbols().map(|s| s.address() + s.size()).max();
    let end = end.expect("the image has symbols");
    for (depth, address) in detail.backtrace.iter().enumerate() {
        // A jump into data begins its backtrace there: outside code, but still in the image.
        assert!(
            (RAM_BASE..end).contains(address),
            "{what}, frame {depth}: {address:#x}"
        );
    }
    let rip = detail.fault.as_ref().map(|fault| fault.registers.rip);
    assert_eq!(detail.backtrace.first().copied(), rip, "{ended:#?}");
}

fn page_fault(access: &'static str, target: &'static str) -> Expected {
    Expected {
        exception: "page fault",
        vector: 14,
        access: Some(access),
        target: Some(target),
    }
}

fn plain(exception: &'static str, vector: u8) -> Expected {
    Expected {
        exception,
        vector,
        access: None,
        target: None,
    }
}

#[test]
fn a_read_of_the_null_page() {
    needs_kvm!();
    let fault = fault("null-read", page_fault("read", "the null page"));
    assert_eq!(fault.address, Some(0));
}

#[test]
fn a_write_to_text() {
    needs_kvm!();
    let fault = fault("write-text", page_fault("write", "the image"));
    assert!(fault.address.is_some_and(|address| address >= RAM_BASE));
}

#[test]
fn a_jump_into_data() {
    needs_kvm!();
    let fault = fault("jump-data", page_fault("execute", "the image"));
    assert_eq!(fault.address, Some(fault.registers.rip));
}

#[test]
fn an_overflow_of_the_stack() {
    needs_kvm!();
    fault(
        "stack-overflow",
        page_fault("write", "the guard page below the stack of vCPU 0"),
    );
}

#[test]
fn a_read_beyond_memory() {
    needs_kvm!();
    let fault = fault(
        "beyond-memory",
        page_fault("read", "beyond the end of memory"),
    );
    assert_eq!(fault.address, Some(RAM_BASE + (64 << 20)));
}

#[test]
fn a_division_by_zero() {
    needs_kvm!();
    fault("divide", plain("divide error", 0));
}

#[test]
fn an_invalid_opcode() {
    needs_kvm!();
    fault("invalid-opcode", plain("invalid opcode", 6));
}

#[test]
fn a_privileged_instruction() {
    needs_kvm!();
    fault("privileged", plain("general protection fault", 13));
}

#[test]
fn a_panic_is_an_exit_that_tells_its_place() {
    needs_kvm!();
    let ended = Sliver::example("fault").args(["panic"]).run();
    ended.assert_end(ExitKind::Exited, 101);
    assert!(ended.console.contains("asked to panic"), "{ended:#?}");
    assert!(ended.console.contains("fault.rs:"), "{ended:#?}");
    assert!(
        !ended.record().exit.detail.backtrace.is_empty(),
        "{ended:#?}"
    );
}

/// While all vCPUs print, one panic is told, whole, as the last thing, and no line is torn.
#[test]
fn of_many_panics_at_once_one_is_told() {
    needs_kvm!();
    for _ in 0..5 {
        let ended = Sliver::example("fault").args(["panic-all"]).vcpus(4).run();
        ended.assert_end(ExitKind::Exited, 101);
        let whole = |line: &&str| {
            let vcpu = line.strip_prefix("vcpu ");
            let vcpu = vcpu.and_then(|rest| rest.strip_suffix(" is about to panic"));
            vcpu.is_some_and(|vcpu| ["0", "1", "2", "3"].contains(&vcpu))
        };
        let mut lines = ended.console.lines().skip(1).skip_while(whole);
        let place = lines.next().expect("a panic is told");
        let (vcpu, _) = place
            .split_once(" panicked at ")
            .expect("its place is told");
        let vcpu = vcpu.strip_prefix("vCPU ").expect("its vCPU is told");
        let expected = format!("asked to panic on vcpu {vcpu}");
        assert_eq!(lines.next(), Some(&*expected), "{place}");
        let backtrace = lines.next().expect("its backtrace is told");
        assert!(backtrace.starts_with("backtrace: 0x"), "{backtrace}");
        assert_eq!(lines.next(), None);
    }
}

#[test]
fn a_stack_overflow_is_seen_whatever_the_number_of_vcpus() {
    needs_kvm!();
    for vcpus in [2, 4] {
        let sliver = Sliver::example("fault").args(["stack-overflow"]);
        let ended = sliver.vcpus(vcpus).run();
        let target = ended.fault().target.clone().unwrap_or_default();
        assert!(target.contains("stack overflow"), "{ended:#?}");
    }
}
