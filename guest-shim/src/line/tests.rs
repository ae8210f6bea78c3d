use super::*;

/// Notes what it is sent, and where. Lets go of it at once if it is `quick`, else when it is
/// waited for.
#[derive(Default)]
struct Sink {
    quick: bool,
    sent: Vec<String>,
    held: Vec<(usize, String)>,
    drains: usize,
}

impl Sink {
    fn quick() -> Self {
        Self {
            quick: true,
            ..Self::default()
        }
    }

    fn assert_holds_what_it_was_sent<const N: usize>(&self, buffer: &LineBuffer<N>) {
        for (address, text) in &self.held {
            let offset = address - buffer.bytes.as_ptr() as usize;
            assert_eq!(&buffer.bytes[offset..][..text.len()], text.as_bytes());
        }
    }
}

impl Port for Sink {
    fn send(&mut self, bytes: &[u8]) {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        self.sent.push(text.clone());
        self.held.push((bytes.as_ptr() as usize, text));
    }

    fn is_drained(&mut self) -> bool {
        if self.quick {
            self.held.clear();
        }
        self.held.is_empty()
    }

    fn drain(&mut self) {
        self.drains += 1;
        self.held.clear();
    }
}

#[test]
fn a_line_leaves_in_one_piece_when_it_ends() {
    let mut sink = Sink::quick();
    let mut buffer = LineBuffer::<16>::new();
    buffer.write(b"hello ", &mut sink);
    buffer.write(b"you", &mut sink);
    assert!(sink.sent.is_empty());
    buffer.write(b"\n", &mut sink);
    assert_eq!(sink.sent, ["hello you\n"]);
}

#[test]
fn what_follows_the_last_line_end_waits() {
    let mut sink = Sink::quick();
    let mut buffer = LineBuffer::<16>::new();
    buffer.write(b"a\nb\nc", &mut sink);
    assert_eq!(sink.sent, ["a\nb\n"]);
    buffer.write(b"d\n", &mut sink);
    assert_eq!(sink.sent, ["a\nb\n", "cd\n"]);
}

#[test]
fn a_flush_sends_what_waits_and_nothing_twice() {
    let mut sink = Sink::quick();
    let mut buffer = LineBuffer::<16>::new();
    buffer.write(b"a\nb", &mut sink);
    buffer.flush(&mut sink);
    buffer.flush(&mut sink);
    assert_eq!(sink.sent, ["a\n", "b"]);
}

#[test]
fn a_line_longer_than_the_buffer_leaves_by_the_bufferful() {
    let mut sink = Sink::quick();
    let mut buffer = LineBuffer::<4>::new();
    buffer.write(b"0123456789\n", &mut sink);
    assert_eq!(sink.sent, ["0123", "4567", "89\n"]);
    assert_eq!(sink.drains, 2);
}

#[test]
fn a_port_that_keeps_up_is_never_waited_for_and_needs_only_the_start_of_the_buffer() {
    let mut sink = Sink::quick();
    let mut buffer = LineBuffer::<64>::new();
    for _ in 0..100 {
        buffer.write(b"a line\n", &mut sink);
        assert!(buffer.end <= 7);
    }
    assert_eq!((sink.sent.len(), sink.drains), (100, 0));
}

#[test]
fn bytes_that_a_slow_port_holds_are_left_alone() {
    let mut sink = Sink::default();
    let mut buffer = LineBuffer::<16>::new();
    let mut expected = String::new();
    for i in 0..1000 {
        let text = format!("{i}{}", if i % 3 == 0 { "\n" } else { "," });
        buffer.write(text.as_bytes(), &mut sink);
        sink.assert_holds_what_it_was_sent(&buffer);
        expected.push_str(&text);
    }
    buffer.flush(&mut sink);
    assert_eq!(sink.sent.concat(), expected);
}
