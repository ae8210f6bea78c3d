//! What a sliver is granted of the processors and what has come of it, a line each.

use vmm::control::proto::CpuStatus;

use crate::quotas;
use crate::units::format_micros;

/// Name and text of each line.
pub(super) fn rows(cpu: &CpuStatus) -> Vec<Vec<String>> {
    let quotas = quotas::rows(&cpu.limits).map(|(name, value)| format!("{name} {value}"));
    let throttled = format!(
        "{}, in {} of {} periods",
        format_micros(cpu.throttled_us),
        cpu.throttled_periods,
        cpu.periods
    );
    let overrun = format!(
        "{} in all, {} at worst, {} not yet paid back",
        format_micros(cpu.overrun_us),
        format_micros(cpu.worst_overrun_us),
        format_micros(cpu.debt_us)
    );
    let others = match cpu.rivals {
        None => "shares with nobody: it is in no ledger".to_owned(),
        Some(rivals) => format!(
            "made room {} times, {} in all; others that want to run: {rivals}",
            cpu.step_backs,
            format_micros(cpu.stepped_back_us)
        ),
    };
    let lines = [
        ("cpu quotas", quotas.join(", ")),
        ("cpu consumed", format_micros(cpu.consumed_us)),
        ("cpu throttled", throttled),
        ("cpu overrun", overrun),
        ("cpu shared", others),
    ];
    lines
        .map(|(name, value)| vec![name.to_owned(), value])
        .to_vec()
}
