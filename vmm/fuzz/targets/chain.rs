//! The chain walker, over a table and an indirect table of any bytes.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use libfuzzer_sys::fuzz_target;
use vm_memory::{GuestAddress, GuestMemory, Permissions};
use vmm::devices::virtio::chain::{Chain, Table, walk};
use vmm_fuzz::{DATA, Unstructured, ram};

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let Ok((head, shift, indirect)) = input.arbitrary::<(u16, u8, bool)>() else {
        return;
    };
    let size = 1 << (shift % 9);
    let ram = ram();
    // The table and what follows it; indirect tables lie where the bytes say.
    let bytes = input.take_rest();
    let bytes = &bytes[..bytes.len().min(0x2000)];
    ram.write_any(bytes, DATA).expect("it fits");
    let table = Table {
        address: GuestAddress(DATA),
        size,
        indirect,
    };
    let mut chain = Chain::default();
    if walk(&ram, table, head, &mut chain).is_err() {
        return;
    }
    let count = chain.readable.len() + chain.writable.len();
    assert!(count > 0 && count <= usize::from(size));
    let sides = [
        (&chain.readable, Permissions::Read),
        (&chain.writable, Permissions::Write),
    ];
    for (buffers, access) in sides {
        for buffer in buffers {
            assert!(buffer.len > 0);
            assert!(ram.check_range(buffer.address, buffer.len as usize, access));
        }
    }
});
