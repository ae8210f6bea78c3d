use super::*;
use proptest::prelude::*;
use vm_memory::GuestMemoryMmap;

const TABLE: GuestAddress = GuestAddress(0x1000);
const SIZE: u16 = 8;

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0x1000), 0x10000)]).unwrap()
}

fn put(memory: &GuestMemoryMmap, index: u16, address: u64, len: u32, flags: u32, next: u16) {
    let at = TABLE.0 + u64::from(index) * DESCRIPTOR_SIZE;
    put_at(memory, at, address, len, flags, next);
}

fn walk_from(memory: &GuestMemoryMmap, head: u16) -> Result<Chain, ChainError> {
    let mut chain = Chain::default();
    walk(memory, table(false), head, &mut chain).map(|()| chain)
}

fn table(indirect: bool) -> Table {
    Table {
        address: TABLE,
        size: SIZE,
        indirect,
    }
}

fn put_at(memory: &GuestMemoryMmap, at: u64, address: u64, len: u32, flags: u32, next: u16) {
    let mut raw = Vec::new();
    raw.extend(address.to_le_bytes());
    raw.extend(len.to_le_bytes());
    raw.extend((flags as u16).to_le_bytes());
    raw.extend(next.to_le_bytes());
    memory.write_slice(&raw, GuestAddress(at)).unwrap();
}

#[test]
fn an_indirect_table_is_followed_once() {
    let m = memory();
    let mut chain = Chain::default();
    put(&m, 1, 0x3000, 32, VRING_DESC_F_INDIRECT, 0);
    put_at(&m, 0x3000, 0x4000, 8, VRING_DESC_F_NEXT, 1);
    put_at(&m, 0x3010, 0x5000, 9, VRING_DESC_F_WRITE, 0);
    walk(&m, table(true), 1, &mut chain).unwrap();
    assert_eq!(
        (chain.head, chain.readable.len(), chain.writable[0].len),
        (1, 1, 9)
    );

    let mut spoil = |address, len, flags| {
        put(&m, 1, address, len, flags, 0);
        walk(&m, table(true), 1, &mut chain).unwrap_err()
    };
    for len in [0, 8, 33, 16 << 16] {
        let wanted = ChainError::IndirectTable { index: 1, len };
        assert_eq!(spoil(0x3000, len, VRING_DESC_F_INDIRECT), wanted);
    }
    let wanted = ChainError::IndirectTable { index: 1, len: 32 };
    assert_eq!(
        spoil(0x3000, 32, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT),
        wanted
    );
    assert!(matches!(
        spoil(0x10ff8, 32, VRING_DESC_F_INDIRECT),
        ChainError::Unreachable { index: 1, .. }
    ));
    put_at(&m, 0x3000, 0x3000, 32, VRING_DESC_F_INDIRECT, 0);
    let wanted = ChainError::Indirect { index: 0 };
    assert_eq!(spoil(0x3000, 32, VRING_DESC_F_INDIRECT), wanted);
    put_at(&m, 0x3000, 0x4000, 8, VRING_DESC_F_NEXT, 2);
    let wanted = ChainError::IndexOutOfRange { index: 2, size: 2 };
    assert_eq!(spoil(0x3000, 32, VRING_DESC_F_INDIRECT), wanted);
    put_at(&m, 0x3000, 0x4000, 8, VRING_DESC_F_NEXT, 0);
    assert_eq!(
        spoil(0x3000, 32, VRING_DESC_F_INDIRECT),
        ChainError::Loop { head: 1 }
    );
}

#[test]
fn a_good_chain_is_split_into_what_is_read_and_written() {
    let m = memory();
    put(&m, 2, 0x2000, 10, VRING_DESC_F_NEXT, 5);
    put(&m, 5, 0x3000, 20, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
    put(&m, 1, 0x4000, 30, VRING_DESC_F_WRITE, 99);
    let chain = walk_from(&m, 2).unwrap();
    assert_eq!(chain.head, 2);
    assert_eq!(
        chain.readable,
        [Buffer {
            address: GuestAddress(0x2000),
            len: 10
        }]
    );
    assert_eq!(chain.writable.len(), 2);
}

#[test]
fn hostile_chains_are_refused() {
    let m = memory();
    let spoil = |address, len, flags, next| {
        put(&m, 0, address, len, flags, next);
        walk_from(&m, 0).unwrap_err()
    };
    assert_eq!(
        spoil(0x2000, 1, VRING_DESC_F_NEXT, 0),
        ChainError::Loop { head: 0 }
    );
    assert_eq!(
        spoil(0x2000, 1, VRING_DESC_F_NEXT, SIZE),
        ChainError::IndexOutOfRange {
            index: SIZE,
            size: SIZE
        }
    );
    assert_eq!(
        spoil(0x2000, 16, VRING_DESC_F_INDIRECT, 0),
        ChainError::Indirect { index: 0 }
    );
    assert_eq!(spoil(0x2000, 0, 0, 0), ChainError::Empty { index: 0 });
    for (address, len) in [
        (0, 1),
        (0xfff, 2),
        (0x10fff, 2),
        (0x11000, 1),
        (0x2000, u32::MAX),
        (u64::MAX, 1),
        (u64::MAX - 1, 8),
    ] {
        assert_eq!(
            spoil(address, len, 0, 0),
            ChainError::Unreachable {
                index: 0,
                address,
                len
            }
        );
    }
    assert_eq!(
        walk_from(&m, SIZE).unwrap_err(),
        ChainError::IndexOutOfRange {
            index: SIZE,
            size: SIZE
        }
    );
    put(&m, 0, 0x2000, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
    put(&m, 1, 0x2000, 1, 0, 0);
    assert_eq!(
        walk_from(&m, 0).unwrap_err(),
        ChainError::ReadableAfterWritable { index: 1 }
    );
}

#[test]
fn a_table_that_is_not_there_is_refused() {
    let m = memory();
    for address in [GuestAddress(0), GuestAddress(u64::MAX - 3)] {
        let table = Table {
            address,
            ..table(true)
        };
        assert!(matches!(
            walk(&m, table, 0, &mut Chain::default()),
            Err(ChainError::Table(_))
        ));
    }
}

#[test]
fn a_chain_as_long_as_the_queue_is_allowed() {
    let m = memory();
    for i in 0..SIZE {
        let flags = if i + 1 < SIZE { VRING_DESC_F_NEXT } else { 0 };
        put(&m, i, 0x2000, 1, flags, i + 1);
    }
    assert_eq!(walk_from(&m, 0).unwrap().readable.len(), usize::from(SIZE));
}

proptest! {
    #[test]
    fn any_table_gives_a_sound_chain_or_a_reason(
        table in prop::collection::vec(any::<u8>(), usize::from(SIZE) * 16), head in 0u16..12,
    ) {
        let m = memory();
        m.write_slice(&table, TABLE).unwrap();
        if let Ok(chain) = walk_from(&m, head) {
            for buffer in chain.readable.iter().chain(&chain.writable) {
                prop_assert!(buffer.len > 0);
                prop_assert!(vm_memory::GuestMemoryBackend::check_range(&m, buffer.address, buffer.len as usize));
            }
        }
    }
}
