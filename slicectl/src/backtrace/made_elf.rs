//! ELF files made for tests: sections with any content.

/// A section.
pub(crate) struct Section {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its type, `sh_type`.
    pub(crate) kind: u32,
    /// The section it belongs to, `sh_link`.
    pub(crate) link: u32,
    /// Its content.
    pub(crate) data: Vec<u8>,
}

/// An ELF file whose symbol table names functions: address, size, name.
pub(crate) fn elf_with_symbols(functions: &[(u64, u64, &str)]) -> Vec<u8> {
    let (mut table, mut names) = (vec![0; 24], vec![0]);
    for (address, size, name) in functions {
        table.extend((names.len() as u32).to_le_bytes());
        // A global function, visible, in section 1.
        table.extend([0x12, 0, 1, 0]);
        table.extend(address.to_le_bytes());
        table.extend(size.to_le_bytes());
        names.extend(name.as_bytes());
        names.push(0);
    }
    elf(&[
        Section {
            name: ".symtab",
            kind: 2,
            link: 2,
            data: table,
        },
        Section {
            name: ".strtab",
            kind: 3,
            link: 0,
            data: names,
        },
    ])
}

/// An ELF file of these sections, numbered from 1, and the table of their names.
pub(crate) fn elf(sections: &[Section]) -> Vec<u8> {
    let mut names = vec![0];
    let mut body = Vec::new();
    let mut headers = vec![0; 64];
    let mut header = |name: &str, kind: u32, link: u32, data: &[u8], body: &mut Vec<u8>| {
        headers.extend((names.len() as u32).to_le_bytes());
        names.extend(name.as_bytes());
        names.push(0);
        headers.extend(kind.to_le_bytes());
        let entry = if kind == 2 { 24u64 } else { 0 };
        for field in [0, 0, 64 + body.len() as u64, data.len() as u64] {
            headers.extend(field.to_le_bytes());
        }
        headers.extend(link.to_le_bytes());
        headers.extend(1u32.to_le_bytes());
        headers.extend(1u64.to_le_bytes());
        headers.extend(entry.to_le_bytes());
        body.extend(data);
    };
    for section in sections {
        header(
            section.name,
            section.kind,
            section.link,
            &section.data,
            &mut body,
        );
    }
    header(".shstrtab", 3, 0, &[], &mut body);
    // The last section's data is the names, which are complete only now.
    let last = headers.len() - 64;
    headers[last + 32..last + 40].copy_from_slice(&(names.len() as u64).to_le_bytes());
    body.extend(&names);
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend(2u16.to_le_bytes());
    file.extend(62u16.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    for field in [0x20_1000, 0, 64 + body.len() as u64] {
        file.extend(u64::to_le_bytes(field));
    }
    file.extend(0u32.to_le_bytes());
    for field in [
        64,
        56,
        0,
        64,
        sections.len() as u16 + 2,
        sections.len() as u16 + 1,
    ] {
        file.extend(u16::to_le_bytes(field));
    }
    file.extend(body);
    file.extend(headers);
    file
}
