# How the machine enters this guest (PVH: 32 bits, no paging, the start info in ebx), how it enters
# the other processors (real mode, at a page below 1 MiB), and what an interrupt runs.
#
# Memory below 4 GiB is mapped to itself, in pages of 2 MiB.

    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18                  # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad _start

    .macro long_mode entry
    mov $pml4, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x620, %eax                 # PAE, and SSE as compiled code may use it
    mov %eax, %cr4
    mov $0xc0000080, %ecx           # EFER: long mode
    rdmsr
    or $0x100, %eax
    wrmsr
    mov %cr0, %eax
    and $0xfffffff3, %eax           # the x87 and SSE are there
    or $0x80000003, %eax            # paging, protection, and errors of the x87
    mov %eax, %cr0
    ljmp $0x08, $\entry
    .endm

    .macro data_segments
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    .endm

    .text
    .code32
    .globl _start
_start:
    cli
    cld
    lgdt gdt_pointer
    long_mode first_64

other_32:
    long_mode other_64

    .code64
first_64:
    data_segments
    mov $stack_end, %rsp
    xor %ebp, %ebp
    mov %ebx, %edi
    mov $_end, %esi
    call {main}
    ud2

other_64:
    data_segments
    mov $1, %edi
    lock xadd %edi, ARRIVED(%rip)
    inc %edi                        # its number; the first processor is 0
    mov %edi, %eax
    shl $13, %eax
    lea other_stacks(%rax), %rsp
    xor %ebp, %ebp
    call {beside}
    ud2

# Copied to a page below 1 MiB, at TRAMPOLINE.
    .code16
    .globl trampoline
trampoline:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl (trampoline_gdt_pointer - trampoline + {trampoline})
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $0x28, $trampoline_32 - trampoline + {trampoline}
    .code32
trampoline_32:
    mov $0x10, %eax
    mov %eax, %ds
    mov $other_32, %eax
    jmp *%eax
trampoline_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
    .globl trampoline_end
trampoline_end:

# Vector after vector, 16 bytes each: an exception ends the guest, an interrupt is counted.
    .code64
    .balign 16
    .globl stubs
stubs:
    .set vector, 0
    .rept 256
    .balign 16
    push $vector
    .if vector < 32
    jmp raised
    .else
    jmp interrupted
    .endif
    .set vector, vector + 1
    .endr

raised:
    mov %rsp, %rdi
    and $-16, %rsp
    call {exception}

# Lets interrupts in and waits for one. None comes in between: `sti` lets them in an instruction
# late. QEMU's emulation of SVM (7.2) forgets that when the host is interrupted just there, and the
# guest would wait for what it has had: an interrupt that comes before `hlt` goes on after it.
    .globl sti_hlt
sti_hlt:
    sti
waiting:
    hlt
    ret

interrupted:
    push %rax
    cmpq $waiting, 16(%rsp)
    jne 1f
    incq 16(%rsp)
1:
    mov 8(%rsp), %eax
    lock incl COUNTS(,%rax,4)
    movl $1, PENDING
    mov $0xfee000b0, %eax           # the local APIC's end of interrupt
    movl $0, (%rax)
    pop %rax
    add $8, %rsp
    iretq

    .data
    .balign 16
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt

    .balign 16
    .globl gdt
gdt:
    .quad 0
    .quad 0x00af9b000000ffff        # 0x08: code of 64 bits
    .quad 0x00cf93000000ffff        # 0x10: data
    .quad 0, 0                      # 0x18: the first processor's TSS, filled in
    .quad 0x00cf9b000000ffff        # 0x28: code of 32 bits
gdt_end:

    .balign 4096
pml4:
    .quad pdpt + 3
    .fill 511, 8, 0
pdpt:
    .quad pd + 0x0003, pd + 0x1003, pd + 0x2003, pd + 0x3003
    .fill 508, 8, 0
pd:
    .set page, 0
    .rept 2048
    .quad page + 0x83
    .set page, page + 0x200000
    .endr

    .bss
    .balign 4096
stack:
    .skip 0x10000
stack_end:
    .skip 0x2000                    # number 0 of these is nobody's
other_stacks:
    .skip 32 * 0x2000
