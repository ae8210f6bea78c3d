//! The fault record and the `FAULT` page: how an exception reaches the monitor.
//!
//! Both are supervisor-only: a slice neither sees nor needs them. They are described here for
//! whoever writes another monitor.
//!
//! Every gate of the interrupt table leads, over interrupt stack 1 of the vCPU's task state, to a
//! stub at privilege level 0. The stub completes the frame that the processor pushed into a
//! [`FaultRecord`], which therefore ends where the interrupt stack begins, writes the vector into
//! the `FAULT` page (4 bytes, at offset 0) and does not return.

/// Bytes of the `FAULT` page.
pub const FAULT_WINDOW_SIZE: u64 = 4096;

/// The state of a vCPU when it raised an exception. Fields ascend in memory in this order, the
/// reverse of the order in which they are pushed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultRecord {
    /// Faulting address of a page fault; otherwise what was left in the register.
    pub cr2: u64,
    /// General registers.
    pub r15: u64,
    #[allow(missing_docs, reason = "a register's name is its documentation")]
    pub r14: u64,
    #[allow(missing_docs, reason = "as above")]
    pub r13: u64,
    #[allow(missing_docs, reason = "as above")]
    pub r12: u64,
    #[allow(missing_docs, reason = "as above")]
    pub r11: u64,
    #[allow(missing_docs, reason = "as above")]
    pub r10: u64,
    #[allow(missing_docs, reason = "as above")]
    pub r9: u64,
    #[allow(missing_docs, reason = "as above")]
    pub r8: u64,
    #[allow(missing_docs, reason = "as above")]
    pub rbp: u64,
    #[allow(missing_docs, reason = "as above")]
    pub rdi: u64,
    #[allow(missing_docs, reason = "as above")]
    pub rsi: u64,
    #[allow(missing_docs, reason = "as above")]
    pub rdx: u64,
    #[allow(missing_docs, reason = "as above")]
    pub rcx: u64,
    #[allow(missing_docs, reason = "as above")]
    pub rbx: u64,
    #[allow(missing_docs, reason = "as above")]
    pub rax: u64,
    /// Exception number.
    pub vector: u64,
    /// Its error code, 0 where it has none.
    pub error_code: u64,
    /// Address of the instruction.
    pub rip: u64,
    /// Code segment selector.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack segment selector.
    pub ss: u64,
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<FaultRecord>() == 23 * 8);
    assert!(offset_of!(FaultRecord, rax) == 15 * 8);
    assert!(offset_of!(FaultRecord, rip) == 18 * 8);
};
