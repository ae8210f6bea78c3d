//! The table, for a terminal of any width: where there is no room for all columns, those that say
//! least are left out.

use std::time::Duration;

use super::View;
use super::row::Row;
use crate::cli::SortKey;
use crate::text::printable;
use crate::units::{format_age, format_bytes, format_kib};

/// A column.
struct Column {
    head: &'static str,
    /// What sorts by it.
    key: SortKey,
    /// Figures are aligned on the right.
    is_figure: bool,
    /// The higher, the sooner it is left out; that of rank 0 stays.
    rank: u8,
    cell: fn(&Row) -> Option<String>,
}

const COLUMNS: [Column; 21] = [
    column("SLIVER", SortKey::Name, false, 0, |row| {
        Some(printable(&row.name))
    }),
    column("SLICE", SortKey::Slice, false, 12, |row| {
        Some(printable(&row.slice))
    }),
    column("STATE", SortKey::State, false, 5, |row| {
        Some(row.state.to_owned())
    }),
    column("CPU%", SortKey::Cpu, true, 1, |row| {
        percent(row.cpu_percent)
    }),
    column("CAP", SortKey::Cap, true, 3, |row| match row.is_silent() {
        true => None,
        false => Some(row.cpu_cap.map_or("none".to_owned(), |cap| cap.to_string())),
    }),
    column("RSV", SortKey::Reserve, true, 10, |row| {
        row.cpu_pct.map(|percent| percent.to_string())
    }),
    column("SHARE", SortKey::Share, true, 11, |row| {
        row.cpu_share.map(|share| share.to_string())
    }),
    column("THR%", SortKey::Throttled, true, 4, |row| {
        percent(row.throttled_percent)
    }),
    column("MEM", SortKey::Memory, true, 2, |row| {
        row.memory_resident_kib.map(format_kib)
    }),
    column("OF", SortKey::Memory, true, 9, |row| {
        row.memory_kib.map(format_kib)
    }),
    column("RX/s", SortKey::Net, true, 6, |row| {
        bytes(row.net_rx_bytes_s)
    }),
    column("TX/s", SortKey::Net, true, 6, |row| {
        bytes(row.net_tx_bytes_s)
    }),
    column("RX<", SortKey::Net, true, 14, |row| {
        row.net_rx_max_rate.map(kbit)
    }),
    column("TX<", SortKey::Net, true, 13, |row| {
        row.net_max_rate.map(kbit)
    }),
    column("DAY%", SortKey::Net, true, 13, |row| {
        percent(row.net_used_percent)
    }),
    column("READ/s", SortKey::Disk, true, 7, |row| {
        bytes(row.disk_read_bytes_s)
    }),
    column("WRITE/s", SortKey::Disk, true, 7, |row| {
        bytes(row.disk_write_bytes_s)
    }),
    column("IO/s", SortKey::Disk, true, 15, |row| {
        row.disk_requests_s.map(|count| format!("{count:.0}"))
    }),
    column("DISK<", SortKey::Disk, true, 15, |row| {
        row.disk_rate.map(format_kib)
    }),
    column("IO<", SortKey::Disk, true, 15, |row| {
        row.disk_iops.map(|count| count.to_string())
    }),
    column("UPTIME", SortKey::Uptime, true, 8, |row| {
        row.uptime_ms
            .map(|ms| format_age(Duration::from_millis(ms)))
    }),
];

const fn column(
    head: &'static str,
    key: SortKey,
    is_figure: bool,
    rank: u8,
    cell: fn(&Row) -> Option<String>,
) -> Column {
    Column {
        head,
        key,
        is_figure,
        rank,
        cell,
    }
}

/// The keys that sort, in the order of their columns.
pub(super) fn keys() -> Vec<SortKey> {
    let mut keys: Vec<SortKey> = COLUMNS.iter().map(|column| column.key).collect();
    keys.dedup();
    keys
}

/// The table with a summary above it; no line is longer than `width`.
pub(super) fn text(view: &View, sorted_by: SortKey, width: usize) -> String {
    let lines = [vec![summary(view)], lines(&view.slivers, sorted_by, width)].concat();
    let mut out = String::new();
    for line in lines {
        out.extend(line.chars().take(width));
        out.push('\n');
    }
    out
}

fn summary(view: &View) -> String {
    let rows = &view.slivers;
    let used = rows.iter().filter_map(|row| row.cpu_percent);
    let used = used.fold(0.0, |sum, percent| sum + percent);
    let memory: u64 = rows.iter().filter_map(|row| row.memory_resident_kib).sum();
    let silent = rows.iter().filter(|row| row.is_silent()).count();
    let told = match rows.len() {
        1 => "1 sliver".to_owned(),
        count => format!("{count} slivers"),
    };
    let told = format!(
        "{told}, {used:.1} of {} % of the processors, {} of memory",
        view.processors * 100,
        format_kib(memory)
    );
    match silent {
        0 => told,
        _ => format!("{told}, {silent} silent"),
    }
}

fn lines(rows: &[Row], sorted_by: SortKey, width: usize) -> Vec<String> {
    let mut columns: Vec<(&Column, Vec<String>)> = COLUMNS
        .iter()
        .map(|column| {
            let mark = if column.key == sorted_by { "*" } else { "" };
            let head = format!("{}{mark}", column.head);
            let cells = rows
                .iter()
                .map(|row| (column.cell)(row).unwrap_or_else(|| "-".to_owned()));
            (column, std::iter::once(head).chain(cells).collect())
        })
        .collect();
    while total(&columns) > width {
        let worst = columns.iter().map(|(column, _)| column.rank).max();
        if worst.is_none_or(|rank| rank == 0) {
            break;
        }
        columns.retain(|(column, _)| Some(column.rank) != worst);
    }
    let widths: Vec<usize> = columns.iter().map(|(_, cells)| widest(cells)).collect();
    let line = |i: usize| {
        let cells = columns.iter().zip(&widths).map(|((column, cells), width)| {
            let cell = &cells[i];
            match column.is_figure {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            }
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    (0..=rows.len()).map(line).collect()
}

fn total(columns: &[(&Column, Vec<String>)]) -> usize {
    let widths = columns.iter().map(|(_, cells)| widest(cells) + 2);
    widths.sum::<usize>().saturating_sub(2)
}

fn widest(cells: &[String]) -> usize {
    let widths = cells.iter().map(|cell| cell.chars().count());
    widths.max().unwrap_or(0)
}

fn percent(percent: Option<f64>) -> Option<String> {
    percent.map(|percent| format!("{percent:.1}"))
}

fn bytes(rate: Option<f64>) -> Option<String> {
    rate.map(|rate| format_bytes(rate as u64))
}

/// A rate of bits as the bytes that it is.
fn kbit(kbit: u64) -> String {
    format_bytes(kbit.saturating_mul(125))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let row = |name: &str, cpu: f64| Row {
            name: name.to_owned(),
            slice: "local_demo\x1b[2J".to_owned(),
            state: "running",
            cpu_percent: Some(cpu),
            cpu_cap: Some(150.0),
            uptime_ms: Some(61_000),
            net_rx_bytes_s: Some(2048.4),
            net_max_rate: Some(512),
            disk_iops: Some(77),
            ..Row::default()
        };
        let silent = Row {
            name: "hangs".to_owned(),
            state: "silent",
            ..Row::default()
        };
        View {
            interval_ms: 1000,
            processors: 2,
            slivers: vec![row("web-1", 99.96), row("a-very-long-name", 0.04), silent],
        }
    }

    #[test]
    fn wide_enough_there_are_all_columns() {
        let text = text(&view(), SortKey::Cpu, usize::MAX);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert!(lines[0].starts_with("3 slivers, 100.0 of 200 %"), "{text}");
        assert!(lines[0].ends_with("1 silent"), "{text}");
        for column in &COLUMNS {
            assert!(lines[1].contains(column.head), "{text}");
        }
        assert!(lines[1].contains("CPU%*"), "{text}");
        assert!(
            ["100.0", "2048 B", "62 KiB", "77"]
                .iter()
                .all(|word| lines[2].contains(word)),
            "{text}"
        );
        assert!(
            lines[4].contains("silent") && !lines[4].contains("none"),
            "{text}"
        );
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_the_names_stay() {
        for width in [0, 1, 10, 20, 40, 60, 80, 100, 132] {
            let text = text(&view(), SortKey::Cpu, width);
            assert_eq!(text.lines().count(), 5);
            for line in text.lines() {
                assert!(line.chars().count() <= width, "{width}: {line:?}");
            }
            if width >= 40 {
                let usual = ["a-very-long-name", "CPU%*", "MEM"];
                assert!(usual.iter().all(|word| text.contains(word)), "{text}");
            }
        }
    }

    #[test]
    fn every_column_can_be_sorted_by_once() {
        let keys = keys();
        for key in &keys {
            assert_eq!(keys.iter().filter(|other| *other == key).count(), 1);
        }
        assert_eq!(keys.len(), 12);
    }
}
