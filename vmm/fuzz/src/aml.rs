//! Reads ACPI tables as a guest does, and the part of AML (ACPI 6.5, 20.2) that a DSDT of devices
//! without a program is made of. Whatever is not as the specification has it is a panic.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// A device of a DSDT.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AmlDevice {
    /// Its name in its scope.
    pub name: String,
    /// What it decodes: the first address and how many.
    pub memory: Vec<(u32, u32)>,
    /// The same of ports.
    pub ports: Vec<(u16, u8)>,
    /// Its interrupts, and whether it shares them.
    pub interrupts: Vec<(u32, bool)>,
}

/// The table at an address with this signature, whole and sound.
///
/// # Panics
/// If there is none.
pub fn table(memory: &GuestMemoryMmap, address: u64, signature: &[u8; 4]) -> Vec<u8> {
    let mut header = [0; 36];
    let at = GuestAddress(address);
    memory.read_slice(&mut header, at).expect("it is in memory");
    assert_eq!(&header[..4], signature, "at {address:#x}");
    let len = u32::from_le_bytes(header[4..8].try_into().expect("four"));
    assert!((36..=1 << 20).contains(&len), "{len}");
    let mut table = vec![0; len as usize];
    memory.read_slice(&mut table, at).expect("it is in memory");
    assert_eq!(sum(&table), 0, "{}", signature.escape_ascii());
    table
}

/// The sum of all bytes; that of a sound table is 0.
pub fn sum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

/// The devices that the terms of a DSDT define.
///
/// # Panics
/// If they are not as they should be.
pub fn devices(terms: &[u8]) -> Vec<AmlDevice> {
    let mut reader = Reader {
        rest: terms,
        devices: Vec::new(),
        inside: Vec::new(),
    };
    reader.terms();
    assert!(reader.inside.is_empty());
    reader.devices
}

struct Reader<'a> {
    rest: &'a [u8],
    devices: Vec<AmlDevice>,
    /// Devices whose terms are being read, by their indexes.
    inside: Vec<usize>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(len).expect("not the end yet");
        self.rest = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    /// What a package length (20.2.4) spans.
    fn package(&mut self) -> &'a [u8] {
        let lead = self.byte();
        let more = usize::from(lead >> 6);
        let mut len = usize::from(lead & if more == 0 { 0x3f } else { 0x0f });
        for (index, byte) in self.take(more).iter().enumerate() {
            len |= usize::from(*byte) << (4 + 8 * index);
        }
        let spent = 1 + more;
        assert!(len >= spent, "a package is longer than its length");
        self.take(len - spent)
    }

    /// Reads something else with `read`, all of it.
    fn within(&mut self, bytes: &'a [u8], read: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.rest, bytes);
        read(self);
        assert!(
            self.rest.is_empty(),
            "{} bytes are left over",
            self.rest.len()
        );
        self.rest = outer;
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(b'\\' | b'^') = self.rest.first() {
            name.push(char::from(self.byte()));
        }
        let segments = match self.rest.first() {
            Some(0) => {
                self.byte();
                0
            }
            Some(0x2e) => {
                self.byte();
                2
            }
            Some(0x2f) => {
                self.byte();
                self.byte()
            }
            _ => 1,
        };
        for _ in 0..segments {
            let segment = self.take(4);
            let leads = segment[0].is_ascii_uppercase() || segment[0] == b'_';
            let follows =
                |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
            assert!(
                leads && segment.iter().all(follows),
                "{}",
                segment.escape_ascii()
            );
            name.extend(segment.iter().map(|byte| char::from(*byte)));
        }
        name
    }

    fn terms(&mut self) {
        while !self.rest.is_empty() {
            self.term();
        }
    }

    fn term(&mut self) {
        match self.byte() {
            0x10 => {
                let body = self.package();
                self.within(body, |it| {
                    it.name();
                    it.terms();
                });
            }
            0x08 => {
                let name = self.name();
                if name == "_CRS" {
                    self.resources();
                } else {
                    self.value();
                }
            }
            0x14 => {
                let body = self.package();
                self.within(body, |it| {
                    it.name();
                    it.byte();
                    it.statements();
                });
            }
            0x5b => self.extended(),
            other => panic!("a term that begins with {other:#x}"),
        }
    }

    fn extended(&mut self) {
        match self.byte() {
            0x82 => {
                let body = self.package();
                self.within(body, |it| {
                    let name = it.name();
                    it.inside.push(it.devices.len());
                    it.devices.push(AmlDevice {
                        name,
                        ..Default::default()
                    });
                    it.terms();
                    it.inside.pop();
                });
            }
            0x80 => {
                self.name();
                self.byte();
                self.value();
                self.value();
            }
            0x81 => {
                let body = self.package();
                self.within(body, |it| {
                    it.name();
                    it.byte();
                    while !it.rest.is_empty() {
                        it.take(4);
                        assert!(it.byte() >> 6 == 0, "a field of less than 64 bits");
                    }
                });
            }
            other => panic!("an extended term {other:#x}"),
        }
    }

    /// A constant, a string, a package or a buffer.
    fn value(&mut self) {
        match self.byte() {
            0x00 | 0x01 | 0xff => {}
            0x0a => drop(self.take(1)),
            0x0b => drop(self.take(2)),
            0x0c => drop(self.take(4)),
            0x0e => drop(self.take(8)),
            0x0d => {
                while match self.byte() {
                    0 => false,
                    byte => {
                        assert!(byte.is_ascii());
                        true
                    }
                } {}
            }
            0x12 => {
                let body = self.package();
                self.within(body, |it| {
                    for _ in 0..it.byte() {
                        it.value();
                    }
                });
            }
            other => panic!("a value that begins with {other:#x}"),
        }
    }

    /// What a method does.
    fn statements(&mut self) {
        while !self.rest.is_empty() {
            match self.byte() {
                0x70 => {
                    self.operand();
                    self.operand();
                }
                0xa0 => {
                    let body = self.package();
                    self.within(body, |it| {
                        it.operand();
                        it.statements();
                    });
                }
                0x86 => {
                    self.operand();
                    self.operand();
                }
                other => panic!("a statement that begins with {other:#x}"),
            }
        }
    }

    fn operand(&mut self) {
        match self.rest.first() {
            Some(0x60..=0x6e) => drop(self.take(1)),
            Some(0x7b) => {
                self.byte();
                for _ in 0..3 {
                    self.operand();
                }
            }
            Some(b'A'..=b'Z' | b'_' | b'\\') => drop(self.name()),
            _ => self.value(),
        }
    }

    /// A buffer of resources (6.4).
    fn resources(&mut self) {
        assert_eq!(self.byte(), 0x11, "a buffer");
        let body = self.package();
        self.within(body, |it| {
            let len = match it.byte() {
                0x0a => usize::from(it.byte()),
                0x0b => usize::from(u16::from_le_bytes(it.take(2).try_into().expect("two"))),
                other => panic!("a buffer's length that begins with {other:#x}"),
            };
            assert_eq!(it.rest.len(), len, "the buffer is as long as it says");
            while it.resource() {}
        });
    }

    fn resource(&mut self) -> bool {
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().expect("four"));
        let kind = self.byte();
        let len = match kind & 0x80 {
            0 => usize::from(kind & 7),
            _ => usize::from(u16::from_le_bytes(self.take(2).try_into().expect("two"))),
        };
        let bytes = self.take(len);
        let index = *self.inside.last().expect("resources are a device's");
        let device = &mut self.devices[index];
        match (kind, len) {
            (0x79, 1) => return false,
            (0x47, 7) => {
                let first = u16::from_le_bytes([bytes[1], bytes[2]]);
                let last = u16::from_le_bytes([bytes[3], bytes[4]]);
                assert_eq!(first, last, "ports that cannot be moved");
                device.ports.push((first, bytes[6]));
            }
            (0x86, 9) => device.memory.push((word(&bytes[1..]), word(&bytes[5..]))),
            (0x89, 6) => {
                assert_eq!((bytes[0] & 7, bytes[1]), (0b011, 1), "edge, active high");
                device
                    .interrupts
                    .push((word(&bytes[2..]), bytes[0] & 8 != 0));
            }
            other => panic!("a resource {other:?}"),
        }
        true
    }
}
