//! Frames that a guest may send or be sent: as a rule whole, so that what looks into them gets far,
//! and spoiled in some places.

use libfuzzer_sys::arbitrary::{Result, Unstructured};

const ADDRESSES4: [[u8; 4]; 8] = [
    [10, 0, 2, 15],
    [10, 0, 2, 2],
    [10, 0, 2, 255],
    [192, 0, 2, 1],
    [198, 51, 100, 7],
    [224, 0, 0, 1],
    [255; 4],
    [0; 4],
];
/// The first and the last byte of an address.
const ADDRESSES6: [(u8, u8); 6] = [
    (0xfd, 0x15),
    (0xfd, 1),
    (0xfe, 2),
    (0xff, 1),
    (0x20, 9),
    (0, 0),
];
const PORTS: [u16; 8] = [0, 53, 67, 68, 80, 20_000, 20_015, 40_000];

/// A frame from the card `mac`, or to it.
pub fn frame(input: &mut Unstructured, mac: [u8; 6]) -> Result<Vec<u8>> {
    let how: u8 = input.arbitrary()?;
    let mut frame = Vec::new();
    if how.is_multiple_of(8) {
        let len = usize::from(input.arbitrary::<u8>()?) * 2;
        frame.extend(input.bytes(len.min(input.len()))?);
    } else {
        frame.extend(match input.arbitrary::<u8>()? % 4 {
            0 => [0xff; 6],
            1 => [0x33, 0x33, 0, 0, 0, 1],
            2 => mac,
            _ => [2, 0, 0, 0, 0, 1],
        });
        frame.extend(mac);
        if how & 0x80 != 0 && how & 0x40 != 0 {
            frame.extend([0x81, 0, 0, 7]);
        }
        match input.arbitrary::<u8>()? % 8 {
            0 => arp(input, &mut frame, mac)?,
            1 => {
                let other: u16 = input.arbitrary()?;
                frame.extend(other.to_be_bytes());
            }
            2..=5 => ipv4(input, &mut frame, 0)?,
            _ => ipv6(input, &mut frame, 0)?,
        }
    }
    for _ in 0..how / 8 % 4 {
        let at = usize::from(input.arbitrary::<u8>()?);
        let byte = input.arbitrary()?;
        if let Some(spoiled) = frame.get_mut(at) {
            *spoiled = byte;
        }
    }
    if how & 0xe0 == 0x60 {
        frame.truncate(usize::from(input.arbitrary::<u8>()?));
    }
    Ok(frame)
}

fn arp(input: &mut Unstructured, out: &mut Vec<u8>, mac: [u8; 6]) -> Result<()> {
    out.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1 + input.arbitrary::<u8>()? % 2]);
    out.extend(mac);
    out.extend(input.choose(&ADDRESSES4)?);
    out.extend([0; 6]);
    out.extend(input.choose(&ADDRESSES4)?);
    Ok(())
}

fn ipv4(input: &mut Unstructured, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    if depth == 0 {
        out.extend([8, 0]);
    }
    let fragment = match input.arbitrary::<u8>()? % 8 {
        0 => input.arbitrary::<u16>()?,
        _ => 0,
    };
    let (source, destination) = (input.choose(&ADDRESSES4)?, input.choose(&ADDRESSES4)?);
    let protocol = *input.choose(&[1, 6, 6, 17, 17, 2, 47, 132, 41])?;
    let mut payload = Vec::new();
    transport(input, &mut payload, protocol, depth)?;
    let at = out.len();
    out.extend([0x45, 0]);
    out.extend((20 + payload.len() as u16).to_be_bytes());
    out.extend([0, 1]);
    out.extend(fragment.to_be_bytes());
    out.extend([64, protocol, 0, 0]);
    out.extend(source);
    out.extend(destination);
    let checksum = checksum(&out[at..]);
    out[at + 10..at + 12].copy_from_slice(&checksum.to_be_bytes());
    out.extend(payload);
    Ok(())
}

fn ipv6(input: &mut Unstructured, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    if depth == 0 {
        out.extend([0x86, 0xdd]);
    }
    let address = |(first, last): &(u8, u8)| {
        let mut address = [0; 16];
        (address[0], address[15]) = (*first, *last);
        address
    };
    let source = address(input.choose(&ADDRESSES6)?);
    let destination = address(input.choose(&ADDRESSES6)?);
    let protocol = *input.choose(&[58, 6, 17, 132, 59])?;
    let mut payload = Vec::new();
    let mut next = protocol;
    // Hop-by-hop, routing, fragment and destination options, each of eight bytes.
    for _ in 0..input.arbitrary::<u8>()? % 3 {
        let kind = *input.choose(&[0, 43, 44, 60])?;
        let mut header = [0; 8];
        header[0] = next;
        input.fill_buffer(&mut header[2..])?;
        payload.splice(0..0, header);
        next = kind;
    }
    transport(input, &mut payload, protocol, depth)?;
    out.extend([0x60, 0, 0, 0]);
    out.extend((payload.len() as u16).to_be_bytes());
    out.extend([next, 255]);
    out.extend(source);
    out.extend(destination);
    out.extend(payload);
    Ok(())
}

fn transport(
    input: &mut Unstructured,
    out: &mut Vec<u8>,
    protocol: u8,
    depth: usize,
) -> Result<()> {
    let (source, destination) = (*input.choose(&PORTS)?, *input.choose(&PORTS)?);
    match protocol {
        6 => {
            out.extend(source.to_be_bytes());
            out.extend(destination.to_be_bytes());
            out.extend([0; 8]);
            out.extend([0x50, input.arbitrary()?, 0xff, 0xff, 0, 0, 0, 0]);
        }
        17 => {
            let len = usize::from(input.arbitrary::<u8>()? % 64);
            out.extend(source.to_be_bytes());
            out.extend(destination.to_be_bytes());
            out.extend((8 + len as u16).to_be_bytes());
            out.extend([0; 2]);
            out.resize(out.len() + len, 0x55);
        }
        1 | 58 => {
            let kinds = [0, 3, 8, 11, 1, 2, 128, 129, 133, 134, 135, 136];
            out.extend([*input.choose(&kinds)?, input.arbitrary::<u8>()? % 16, 0, 0]);
            out.extend(input.arbitrary::<[u8; 4]>()?);
            // An error quotes the packet that it is about.
            match protocol {
                1 if depth == 0 => ipv4(input, out, 1)?,
                58 if depth == 0 => ipv6(input, out, 1)?,
                _ => {}
            }
        }
        _ => {
            let len = usize::from(input.arbitrary::<u8>()? % 32);
            out.extend(input.bytes(len.min(input.len()))?);
        }
    }
    Ok(())
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.as_chunks().0.iter();
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let folded = (sum >> 16) + (sum & 0xffff);
    !((folded >> 16) + folded) as u16
}
