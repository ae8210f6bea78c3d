//! The uncompressed kernel inside a bzImage (Linux's Documentation/arch/x86/boot.rst), as Debian
//! compresses it: LZ4 in its legacy frame.

use anyhow::{Context, Result, bail, ensure};

/// Magic of the legacy frame (LZ4 frame format, "Legacy frame").
const LZ4_LEGACY: [u8; 4] = 0x184c_2102u32.to_le_bytes();

/// Every block of a legacy frame but the last is this large, uncompressed.
const LZ4_BLOCK: usize = 8 << 20;

/// Offsets of the setup header.
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// The ELF file inside a bzImage.
pub fn extract(bzimage: &[u8]) -> Result<Vec<u8>> {
    ensure!(
        bzimage.get(MAGIC..MAGIC + 4) == Some(b"HdrS"),
        "it is no bzImage"
    );
    // A count of 0 means 4; the boot sector is one more.
    let sectors = match bzimage[SETUP_SECTORS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let kernel = (sectors + 1) * 512;
    let start = kernel + u32_at(bzimage, PAYLOAD_OFFSET)? as usize;
    let length = u32_at(bzimage, PAYLOAD_LENGTH)? as usize;
    let payload = bzimage.get(start..start + length);
    let payload = payload.context("its payload lies outside of it")?;
    let Some(frame) = payload.strip_prefix(&LZ4_LEGACY) else {
        bail!("it is not compressed with LZ4, as Debian's kernels are");
    };
    // The kernel's build adds the uncompressed size at the end.
    let (blocks, size) = frame
        .split_last_chunk::<4>()
        .context("its payload is short")?;
    let size = u32::from_le_bytes(*size) as usize;
    let kernel = decompress(blocks)?;
    ensure!(
        kernel.len() == size,
        "it has {} bytes instead of {size}",
        kernel.len()
    );
    ensure!(kernel.starts_with(b"\x7fELF"), "its payload is no ELF file");
    Ok(kernel)
}

fn decompress(mut blocks: &[u8]) -> Result<Vec<u8>> {
    let mut whole = Vec::new();
    let mut block = vec![0; LZ4_BLOCK];
    while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let (compressed, rest) = rest
            .split_at_checked(length)
            .context("a block is cut off")?;
        let written = lz4_flex::block::decompress_into(compressed, &mut block)?;
        whole.extend_from_slice(&block[..written]);
        blocks = rest;
    }
    Ok(whole)
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32> {
    let field = bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk::<4>())
        .context("its header is cut off")?;
    Ok(u32::from_le_bytes(*field))
}
