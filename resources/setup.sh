#!/bin/sh
# Installs the Debian packages that building needs, and with an argument what more is needed:
#   resources/setup.sh           to build and run: a C linker
#   resources/setup.sh tests     to run every test: gdb, and what the lab needs
#   resources/setup.sh lab       to run Linux guests in the lab: QEMU, which emulates its host
#   resources/setup.sh fuzz      to fuzz: a C++ compiler
#   resources/setup.sh benches   to run every benchmark: what it is compared with
#   resources/setup.sh root      to make a Debian root disk: mmdebstrap
#   resources/setup.sh kernel    to build a guest kernel: what Linux is compiled with
# Does nothing, and asks nobody, where they are there already.
set -eu

PATH=$PATH:/usr/sbin:/sbin
missing=""
PATH=$PATH:/usr/sbin:/sbin
need() { # COMMAND PACKAGE...
    command -v "$1" >/dev/null 2>&1 && return
    shift
    missing="$missing $*"
}

need_lab() {
    need qemu-system-x86_64 qemu-system-x86
    need mke2fs e2fsprogs
    need strip binutils
}

need cc gcc libc6-dev
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
case "${1:-}" in
    "") ;;
    tests)
        need gdb gdb
        need ip iproute2
        need nft nftables
        need_lab
        ;;
    lab) need_lab ;;
    fuzz) need c++ g++ ;;
    benches)
        need_lab
        need ip iproute2
        need ethtool ethtool
        need iperf3 iperf3
        need fio fio
        need wrk wrk
        ;;
    root)
        need mmdebstrap mmdebstrap
        need mkfs.ext4 e2fsprogs
        [ "$(id -u)" -eq 0 ] || need newuidmap uidmap
        ;;
    kernel)
        need make make
        need flex flex
        need bison bison
        need bc bc
        need lz4 lz4
        need xz xz-utils
        [ -e /usr/include/libelf.h ] || missing="$missing libelf-dev"
        ;;
    *) echo "usage: $0 [tests|lab|fuzz|benches|root|kernel]" >&2; exit 2 ;;
esac
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "$0: install these Debian packages or their like:$missing" >&2
    exit 1
fi
as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo"
echo "installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
$as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
