use super::*;

#[test]
fn a_page_without_valid_fields_says_nothing() {
    let page = QuotaPage::default();
    page.cpu_cap_milli.store(500, Ordering::Relaxed);
    assert_eq!(of_one_moment(&page), Quota::default());
}

#[test]
fn only_fields_marked_valid_are_told() {
    let page = QuotaPage::default();
    page.cpu_cap_milli.store(500, Ordering::Relaxed);
    page.cpu_share.store(3, Ordering::Relaxed);
    page.cpu_consumed_ns.store(7, Ordering::Relaxed);
    page.cpu_budget_end_ns.store(1_000, Ordering::Relaxed);
    page.cpu_budget_left_ns.store(10, Ordering::Relaxed);
    page.net_tx_rate.store(1_000_000, Ordering::Relaxed);
    page.valid.store(
        valid::CPU_CAP | valid::CPU_CONSUMED | valid::CPU_BUDGET,
        Ordering::Relaxed,
    );
    let quota = of_one_moment(&page);
    assert_eq!(
        quota,
        Quota {
            cpu_cap_milli: Some(500),
            cpu_consumed: Some(Duration::from_nanos(7)),
            cpu_budget: Some(Budget {
                end: Instant::from_nanos(1_000),
                left: Duration::from_nanos(10),
            }),
            ..Quota::default()
        }
    );
}

#[test]
fn a_page_being_written_is_read_when_the_writer_is_done() {
    let page = QuotaPage::default();
    page.valid.store(valid::CPU_SHARE, Ordering::Relaxed);
    page.seq.store(1, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| of_one_moment(&page));
        page.cpu_share.store(9, Ordering::Relaxed);
        page.seq.store(2, Ordering::Release);
        assert_eq!(reader.join().unwrap().cpu_share, Some(9));
    });
}

#[test]
fn a_desktop_knows_no_quota() {
    assert_eq!(read(), Quota::default());
}
