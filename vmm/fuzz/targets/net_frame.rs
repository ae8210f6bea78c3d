//! Headers and frames in both directions.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use libfuzzer_sys::arbitrary::Result;
use libfuzzer_sys::fuzz_target;
use vmm::devices::virtio::net::frame::{
    HEADER_BYTES, Header, JUDGED_BYTES, MAX_FRAME, Rules, TapOffloads, device_work, judge_received,
    judge_sent,
};
use vmm_fuzz::Unstructured;

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});

fn run(input: &mut Unstructured) -> Result<()> {
    let rules = Rules {
        work: device_work(input.arbitrary()?),
        mtu: input.int_in_range(576..=9000)?,
        mac: input.arbitrary()?,
    };
    let more = u64::from(input.arbitrary::<u32>()?);
    let received: u64 = input.arbitrary()?;
    let mut bytes = input.bytes(input.len())?.to_vec();
    let judged = bytes.len().min(JUDGED_BYTES);
    if let Some(source) = bytes.get_mut(HEADER_BYTES + 6..HEADER_BYTES + 12)
        && source[0] & 1 == 0
    {
        source.copy_from_slice(&rules.mac);
    }
    let total = bytes.len() as u64 + if judged == JUDGED_BYTES { more } else { 0 };
    if let Ok(header) = judge_sent(&bytes[..judged], total, &rules) {
        assert!(total >= JUDGED_BYTES as u64 && total - HEADER_BYTES as u64 <= MAX_FRAME);
        assert_eq!(bytes[HEADER_BYTES + 6..][..6], rules.mac);
        sound(&header, total - HEADER_BYTES as u64, rules.work);
    }
    if let Some(header) = bytes.first_chunk()
        && let Ok(header) = judge_received(header, received, rules.work)
    {
        assert!(received <= MAX_FRAME);
        sound(&header, received, rules.work);
    }
    Ok(())
}

/// What is handed on lies in the frame and was agreed on.
fn sound(header: &Header, len: u64, work: TapOffloads) {
    let bytes = header.bytes();
    assert_eq!(Header::parse(&bytes), *header);
    let word = |at: usize| u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    if bytes[0] & 1 != 0 {
        assert!(work.checksum && word(6) + word(8) + 2 <= len);
    }
    match bytes[1] {
        0 => {}
        1 => assert!(work.tso4 && bytes[0] & 1 != 0 && word(4) > 0),
        4 => assert!(work.tso6 && bytes[0] & 1 != 0 && word(4) > 0),
        other => panic!("segmentation of kind {other}"),
    }
    assert!(word(2) <= len);
}
