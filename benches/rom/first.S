# A ROM whose first instruction, at the reset vector, is seen from outside.
#
# One page of code mapped so that its last 16 bytes are what the processor fetches first: a byte
# to the debug console, whose arrival is the stamp, then the end through isa-debug-exit.

    .code16
    .text
    .globl _start
    .fill 0xfff0, 1, 0xf4
_start:
    out %al, $0xe9
    out %al, $0xf4
0:  hlt
    jmp 0b
    .balign 16, 0xf4
