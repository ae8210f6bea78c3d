//! What a monitor's process holds beside its guest's memory.

/// Adds up the proportional set sizes in an `smaps` file except that of the guest's memory: the
/// only writable stretch as large as it. The kernel may show it as several mappings side by side.
pub fn own_pss_kib(smaps: &str, guest_kib: u64) -> Option<u64> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else {
            continue;
        };
        let number = value.parse::<u64>().ok();
        if let Some((start, end)) = name.split_once('-') {
            let start = u64::from_str_radix(start, 16).ok()?;
            let end = u64::from_str_radix(end, 16).ok()?;
            let goes_on = value == "rw-p" && stretches.last().is_some_and(|s| s.end == start);
            if !goes_on {
                stretches.push(Stretch::default());
            }
            let stretch = stretches.last_mut()?;
            // What is not writable ends nowhere, so that nothing goes on from it.
            stretch.end = if value == "rw-p" { end } else { 0 };
            stretch.size_kib += if value == "rw-p" {
                (end - start) >> 10
            } else {
                0
            };
        } else if name == "Pss:" {
            stretches.last_mut()?.pss_kib += number?;
        }
    }
    let guest = stretches.iter().position(|s| s.size_kib >= guest_kib)?;
    stretches.remove(guest);
    Some(stretches.iter().map(|s| s.pss_kib).sum())
}

/// A run of writable mappings without a gap between them.
#[derive(Debug, Default)]
struct Stretch {
    end: u64,
    size_kib: u64,
    pss_kib: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST_KIB: u64 = 64 << 10;
    const SMAPS: &str = "\
5555911ef000-555591211000 rw-p 00000000 00:00 0 [heap]
Size:                136 kB
Pss:                  16 kB
7fe3d7e00000-7fe3d8000000 rw-p 00000000 00:00 0
Size:               2048 kB
Pss:                  52 kB
7fe3d8000000-7fe3dbe00000 rw-p 00000000 00:00 0
Size:              63488 kB
Pss:                2048 kB
7fe3dc000000-7fe3dc021000 rw-p 00000000 00:00 0
Size:                132 kB
Pss:                   5 kB
7fe3dc021000-7fe3e0000000 ---p 00000000 00:00 0
Size:              65404 kB
Pss:                   0 kB
";

    #[test]
    fn the_guests_memory_is_left_out_however_many_mappings_it_is() {
        assert_eq!(own_pss_kib(SMAPS, GUEST_KIB), Some(16 + 5));
    }

    #[test]
    fn a_process_without_guest_memory_is_no_monitor() {
        let without = SMAPS.replace(
            "7fe3d8000000-7fe3dbe00000 rw-p",
            "7fe3d8000000-7fe3dbe00000 r--p",
        );
        assert_eq!(own_pss_kib(&without, GUEST_KIB), None);
    }
}
