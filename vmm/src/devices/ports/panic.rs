//! Sees a Linux kernel's panic in what it prints. Pure.
//!
//! A kernel with a driver for `pvpanic` tells its panic by a port, but distributions' kernels have
//! it as a module, and most guests reset when they panic. What the kernel says of it is of use in
//! any case: it is the line that people look for.

/// How the line begins, after the time (kernel/panic.c).
const MARK: &str = "Kernel panic - not syncing: ";
/// The longest line that is looked at.
const MAX_LINE: usize = 512;

/// The lines of a console, looked through as they pass.
#[derive(Debug, Default)]
pub struct PanicWatch {
    line: Vec<u8>,
    panic: Option<String>,
}

impl PanicWatch {
    /// Looks at what is printed.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.panic.is_some() {
            return;
        }
        for &byte in bytes {
            match byte {
                b'\n' => {
                    self.end_line();
                    self.line.clear();
                }
                _ if self.line.len() < MAX_LINE => self.line.push(byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        if let Some((_, reason)) = line.split_once(MARK) {
            let clean = |c: char| if c.is_control() { ' ' } else { c };
            let reason: String = reason.chars().map(clean).collect();
            self.panic = Some(reason.trim().to_owned());
        }
    }

    /// What the kernel said of its panic: `Attempted to kill init! exitcode=0x00000100`.
    pub fn panic(&self) -> Option<&str> {
        self.panic.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_panic_is_remembered_however_it_arrives() {
        let mut watch = PanicWatch::default();
        let text = b"[    0.1] Linux\n[    1.5] Kernel panic - not syncing: VFS: no root\r\n\
            [    1.6] Kernel panic - not syncing: another\n";
        for byte in text {
            watch.feed(&[*byte]);
        }
        assert_eq!(watch.panic(), Some("VFS: no root"));
    }

    #[test]
    fn neither_long_lines_nor_control_characters_do_harm() {
        let mut watch = PanicWatch::default();
        watch.feed(&[b'x'; 10 * MAX_LINE]);
        assert_eq!(watch.line.len(), MAX_LINE);
        watch.feed(b"\nKernel panic - not syncing: \x1b[2Ja\n");
        assert_eq!(watch.panic(), Some("[2Ja"));
    }
}
