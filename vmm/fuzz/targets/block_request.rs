//! Requests to a disk of any size, from any bytes.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use libfuzzer_sys::arbitrary::Result;
use libfuzzer_sys::fuzz_target;
use vmm::devices::virtio::block::request::{
    Frame, HEADER_BYTES, LEAD_BYTES, Request, Rules, lead_bytes, parse,
};
use vmm_fuzz::Unstructured;

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});

fn run(input: &mut Unstructured) -> Result<()> {
    let rules = Rules {
        bytes: u64::from(input.arbitrary::<u32>()?) * 512,
        read_only: input.ratio(1, 8)?,
        discard: input.arbitrary()?,
        write_zeroes: input.arbitrary()?,
    };
    let more = u64::from(input.arbitrary::<u32>()?);
    let writable = u64::from(input.arbitrary::<u32>()?);
    let bytes = input.bytes(input.len())?;
    let lead = match bytes.first_chunk::<HEADER_BYTES>() {
        Some(header) => &bytes[..bytes.len().min(lead_bytes(header))],
        None => bytes,
    };
    let cut = lead.len() == LEAD_BYTES || lead.len() == HEADER_BYTES;
    let readable = lead.len() as u64 + if cut { more } else { 0 };
    let frame = Frame { readable, writable };
    let Ok(request) = parse(lead, frame, &rules) else {
        return Ok(());
    };
    let inside = |at: u64, len: u64| {
        assert!(len > 0 && len.is_multiple_of(512) && at.is_multiple_of(512));
        assert!(at.checked_add(len).is_some_and(|end| end <= rules.bytes));
    };
    match request {
        Request::Read(extent) => {
            assert_eq!(extent.len, writable);
            inside(extent.at, extent.len);
        }
        Request::Write(extent) => {
            assert!(!rules.read_only);
            assert_eq!(extent.len, readable - HEADER_BYTES as u64);
            inside(extent.at, extent.len);
        }
        Request::Flush => {}
        Request::Serial => assert!(writable >= 20),
        Request::Discard(segments) | Request::WriteZeroes(segments) => {
            assert!(!rules.read_only);
            for segment in segments.as_slice() {
                inside(segment.extent.at, segment.extent.len);
            }
        }
    }
    Ok(())
}
