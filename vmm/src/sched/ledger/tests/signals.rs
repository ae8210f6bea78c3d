//! SIGBUS with a ledger mapped, in processes of their own: this program again, told what to do.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use super::*;

/// Says what the child is to do.
const DEED: &str = "LEDGER_TEST_DEED";

/// How the process ended that did this, in a test of this name.
fn end_of(test: &str, deed: &str) -> std::process::ExitStatus {
    let name = format!("sched::ledger::tests::signals::{test}");
    Command::new(std::env::current_exe().expect("this program"))
        .args([&name, "--exact", "--test-threads=1"])
        .env(DEED, deed)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("started")
}

/// A page of a file that is empty by now.
fn lost_page() -> OwnPage {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(FILE_BYTES as u64).expect("extended");
    let page = OwnPage::map(&file, 0).expect("mapped");
    file.set_len(0).expect("cut");
    page
}

fn lost_page_unguarded() -> OwnPage {
    let mut page = lost_page();
    page.forget_guard();
    page
}

#[test]
fn only_pages_of_a_ledger_are_mended() {
    const TEST: &str = "only_pages_of_a_ledger_are_mended";
    match std::env::var(DEED).as_deref() {
        Ok("guarded") => {
            let _ledger = Place::new().join("one");
            lost_page().entry().write_name("gone");
        }
        Ok("elsewhere") => {
            let _ledger = Place::new().join("one");
            lost_page_unguarded().entry().write_name("gone");
        }
        Ok("sent") => {
            let _ledger = Place::new().join("one");
            let own = rustix::process::getpid();
            // The first one the standard library's handler takes for a fault that will come again.
            for _ in 0..100 {
                rustix::process::kill_process(own, rustix::process::Signal::BUS).expect("sent");
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        _ => {
            let bus = Some(libc::SIGBUS);
            assert!(end_of(TEST, "guarded").success());
            assert_eq!(end_of(TEST, "elsewhere").signal(), bus);
            assert_eq!(end_of(TEST, "sent").signal(), bus);
        }
    }
}
