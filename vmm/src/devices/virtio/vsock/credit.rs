//! Who may send how much on one connection (virtio 1.2, 5.10.6.3), in counters that wrap. Pure.
//!
//! Each side tells how many bytes it can hold and how many its reader has taken so far. The other
//! may have no more under way than it can hold. What the guest says is not believed: the worst it
//! can do by lying is to be sent nothing.

/// Bytes from the guest that one connection holds at most for a slow reader on the host.
pub const BUFFER_BYTES: u32 = 64 << 10;

/// The guest is told of new room once it is so much: each time costs it a packet.
const WORTH_TELLING: u32 = BUFFER_BYTES / 4;

/// The credit of both sides of one connection.
#[derive(Debug, Clone, Default)]
pub struct Credit {
    /// Bytes sent to the guest.
    sent: u32,
    peer_buf_alloc: u32,
    peer_fwd_cnt: u32,
    /// Bytes received from the guest.
    received: u32,
    /// Of these, bytes that the reader on the host has taken.
    forwarded: u32,
    /// What of the last the guest was told.
    told: u32,
}

/// The guest has sent more than it was allowed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overrun;

impl Credit {
    /// Bytes that may be sent to the guest now.
    pub fn room(&self) -> u32 {
        let under_way = self.sent.wrapping_sub(self.peer_fwd_cnt);
        // A guest may take room back, or claim to have read what was never sent.
        self.peer_buf_alloc.saturating_sub(under_way)
    }

    /// That many bytes, no more than there is room for, are sent.
    pub fn send(&mut self, bytes: u32) {
        debug_assert!(bytes <= self.room());
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// The guest tells its side, as in every packet.
    pub fn hear(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.peer_buf_alloc = buf_alloc;
        self.peer_fwd_cnt = fwd_cnt;
    }

    /// That many bytes have come from the guest.
    pub fn receive(&mut self, bytes: u32) -> Result<(), Overrun> {
        if bytes > BUFFER_BYTES - self.held() {
            return Err(Overrun);
        }
        self.received = self.received.wrapping_add(bytes);
        Ok(())
    }

    /// Bytes that have come and the reader on the host has not taken; never more than
    /// [`BUFFER_BYTES`].
    pub fn held(&self) -> u32 {
        self.received.wrapping_sub(self.forwarded)
    }

    /// The reader on the host has taken so many more of the bytes that are held.
    pub fn forward(&mut self, bytes: u32) {
        debug_assert!(bytes <= self.held());
        self.forwarded = self.forwarded.wrapping_add(bytes.min(self.held()));
    }

    /// Whether the guest should be told that there is room again.
    pub fn is_worth_telling(&self) -> bool {
        self.forwarded.wrapping_sub(self.told) >= WORTH_TELLING
    }

    /// What a packet to the guest says: room in all, and bytes taken.
    pub fn tell(&mut self) -> (u32, u32) {
        self.told = self.forwarded;
        (BUFFER_BYTES, self.forwarded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Credit of a connection that has carried `bytes` in both directions, all of it read.
    fn worn(bytes: u32, buf_alloc: u32) -> Credit {
        Credit {
            sent: bytes,
            peer_buf_alloc: buf_alloc,
            peer_fwd_cnt: bytes,
            received: bytes,
            forwarded: bytes,
            told: bytes,
        }
    }

    #[test]
    fn a_guest_that_lies_is_sent_nothing() {
        let mut credit = worn(100, 4096);
        credit.send(4096);
        assert_eq!(credit.room(), 0);
        // It has read more than was sent; its buffer has shrunk; it has none.
        for (buf_alloc, fwd_cnt) in [(4096, 5000), (1000, 100), (0, 4196)] {
            credit.hear(buf_alloc, fwd_cnt);
            assert_eq!(credit.room(), 0);
        }
        credit.hear(4096, 4196);
        assert_eq!(credit.room(), 4096);
    }

    #[test]
    fn one_byte_too_many_is_an_overrun() {
        let mut credit = worn(u32::MAX - 5, 0);
        assert_eq!(credit.receive(BUFFER_BYTES), Ok(()));
        assert_eq!(credit.receive(1), Err(Overrun));
        credit.forward(1);
        assert_eq!(credit.receive(2), Err(Overrun));
        assert_eq!(credit.receive(1), Ok(()));
        assert_eq!(worn(0, 0).receive(u32::MAX), Err(Overrun));
    }

    proptest! {
        /// Both sides as they are meant to be, from any point of the counters.
        #[test]
        fn an_honest_pair_never_overruns_and_never_stalls(
            start in any::<u32>(), buf_alloc in 1u32..1 << 20,
            steps in prop::collection::vec((any::<bool>(), 1u32..1 << 18, 1u32..1 << 18), 1..200),
        ) {
            let start = start.wrapping_sub(1 << 20);
            let mut credit = worn(start, buf_alloc);
            // What the guest holds of ours, what it may send, and what it has sent.
            let (mut guest_holds, mut guest_read) = (0u32, start);
            let (mut guest_sent, mut guest_knows) = (start, start);
            for (to_guest, amount, read) in steps {
                if to_guest {
                    let sent = amount.min(credit.room());
                    credit.send(sent);
                    guest_holds += sent;
                    prop_assert!(guest_holds <= buf_alloc);
                    let taken = read.min(guest_holds);
                    guest_holds -= taken;
                    guest_read = guest_read.wrapping_add(taken);
                    credit.hear(buf_alloc, guest_read);
                    prop_assert_eq!(credit.room(), buf_alloc - guest_holds);
                } else {
                    let room = BUFFER_BYTES - guest_sent.wrapping_sub(guest_knows);
                    let sent = amount.min(room);
                    prop_assert_eq!(credit.receive(sent), Ok(()));
                    prop_assert!(credit.held() <= BUFFER_BYTES);
                    guest_sent = guest_sent.wrapping_add(sent);
                    credit.forward(read.min(credit.held()));
                    if credit.is_worth_telling() {
                        guest_knows = credit.tell().1;
                    }
                    // A guest without any room left is told as soon as everything is read.
                    let room = BUFFER_BYTES - guest_sent.wrapping_sub(guest_knows);
                    prop_assert!(room > 0 || credit.held() > 0);
                }
            }
        }

        #[test]
        fn whatever_a_guest_says_no_more_is_under_way_than_it_can_hold(
            start in any::<u32>(), told in prop::collection::vec(any::<(u32, u32)>(), 1..50),
        ) {
            let mut credit = worn(start, 0);
            for (buf_alloc, fwd_cnt) in told {
                credit.hear(buf_alloc, fwd_cnt);
                let room = credit.room();
                prop_assert!(room <= buf_alloc);
                credit.send(room);
                prop_assert_eq!(credit.room(), 0);
            }
        }
    }
}
