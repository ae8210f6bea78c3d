//! What a frame is on the wire: a bundle of TCP segments is as many frames, each with the headers.

/// The least that a frame has (IEEE 802.3), its checksum not counted.
const SHORTEST: u64 = 60;

/// Frames on the wire, and their bytes, of one of `frame_bytes` bytes that begins with
/// `header_bytes` bytes of headers and is cut into segments of `segment` bytes, or not if that is 0.
/// Preamble and checksum are not counted, as tc(8) does not.
pub fn on_the_wire(frame_bytes: usize, header_bytes: usize, segment: u16) -> (u32, u64) {
    let (bytes, headers) = (frame_bytes as u64, header_bytes as u64);
    let payload = bytes.saturating_sub(headers);
    if segment == 0 || payload <= u64::from(segment) {
        return (1, bytes.max(SHORTEST));
    }
    let segments = payload.div_ceil(u64::from(segment));
    // A frame has at most 65,550 bytes.
    (segments as u32, payload + segments * headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_repeat_the_headers() {
        assert_eq!(on_the_wire(42, 42, 0), (1, 60));
        assert_eq!(on_the_wire(1514, 54, 0), (1, 1514));
        assert_eq!(on_the_wire(54 + 1460, 54, 1460), (1, 1514));
        assert_eq!(on_the_wire(54 + 1461, 54, 1460), (2, 1461 + 108));
        assert_eq!(on_the_wire(54 + 64_240, 54, 1460), (44, 44 * 1514));
        assert_eq!(on_the_wire(10, 54, 1460), (1, 60));
    }
}
