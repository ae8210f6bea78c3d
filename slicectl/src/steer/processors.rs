//! What a sliver is granted of the processors and what has come of it, a line each.

use vmm::control::proto::CpuStatus;

use crate::quotas::cpu;
use crate::units::format_micros;

/// Name and text of each line.
pub(super) fn rows(status: &CpuStatus) -> Vec<Vec<String>> {
    let quotas = cpu::rows(&status.limits).map(|(name, value)| format!("{name} {value}"));
    let throttled = format!(
        "{}, in {} of {} periods",
        format_micros(status.throttled_us),
        status.throttled_periods,
        status.periods
    );
    let overrun = format!(
        "{} in all, {} at worst, {} not yet paid back",
        format_micros(status.overrun_us),
        format_micros(status.worst_overrun_us),
        format_micros(status.debt_us)
    );
    let others = match status.rivals {
        None => "shares with nobody: it is in no ledger".to_owned(),
        Some(rivals) => format!(
            "made room {} times, {} in all; others that want to run: {rivals}",
            status.step_backs,
            format_micros(status.stepped_back_us)
        ),
    };
    let lines = [
        ("cpu quotas", quotas.join(", ")),
        ("cpu consumed", format_micros(status.consumed_us)),
        ("cpu throttled", throttled),
        ("cpu overrun", overrun),
        ("cpu shared", others),
    ];
    lines
        .map(|(name, value)| vec![name.to_owned(), value])
        .to_vec()
}
