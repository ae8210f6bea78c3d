#!/bin/sh
# Builds the least Linux for a sliver, from Debian's source: see usage() for how, minimal.config for
# what is in it and why.
set -eu

usage() {
    cat <<END
usage: $0 OUT-DIR [--jobs N] [--config FILE]

Builds a guest kernel from Debian's linux-source package and puts into OUT-DIR:

  bzImage   as boot loaders take it
  vmlinux   the same uncompressed, an ELF file with a PVH entry: the quickest to boot
  config    all that it was configured with
  info      version, sizes, and what it was built from

  --jobs N        how many compilers at a time, default one per CPU
  --config FILE   lay FILE over minimal.config: lines as CONFIG_WIREGUARD=y

What was built of the same source, configuration and compiler is kept in \$XDG_CACHE_HOME/slicevisor
(~/.cache/slicevisor) and not built again. Needs 2 GiB there while it builds, and no root; installs
what it needs as root or with sudo.
END
}

fail() { echo "$0: $*" >&2; exit 1; }
step() { echo "== $*" >&2; }

here=$(cd "$(dirname "$0")" && pwd)
out="" jobs=$(nproc) more=/dev/null
while [ $# -gt 0 ]; do
    case "$1" in
        --jobs | --config)
            [ $# -ge 2 ] || { usage >&2; exit 2; }
            case "$1" in
                --jobs) jobs=$2 ;;
                --config) more=$2 ;;
            esac
            shift 2
            ;;
        -h | --help) usage; exit 0 ;;
        -*) usage >&2; exit 2 ;;
        *) [ -z "$out" ] || { usage >&2; exit 2; }; out=$1; shift ;;
    esac
done
[ -n "$out" ] || { usage >&2; exit 2; }
case "$jobs" in *[!0-9]* | "" | 0*) fail "--jobs $jobs is no number from 1" ;; esac
[ -r "$more" ] || fail "there is no file $more"
[ "$(uname -m)" = x86_64 ] || fail "this machine is $(uname -m): slivers are x86_64"

"$here/../setup.sh" kernel

# The package of the source, and its version, as apt here has them.
package=$(apt-cache depends linux-source 2>/dev/null | sed -n 's/^ *Depends: *\(linux-source-.*\)/\1/p')
[ -n "$package" ] || fail "apt knows no linux-source: run apt-get update, on a Debian"
version=$(apt-cache show --no-all-versions "$package" | sed -n 's/^Version: //p' | head -n 1)
compiler=$(gcc -dumpfullversion; ld --version | head -n 1)

key=$(printf '%s\n' "$package $version" "$compiler" \
    | cat - "$here/minimal.config" "$more" "$0" | sha256sum | cut -c1-16)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/slicevisor/guest-kernel"
kept="$cache/$key"

deliver() {
    mkdir -p "$out"
    for file in vmlinux bzImage config info; do
        cmp -s "$kept/$file" "$out/$file" || cp --sparse=always "$kept/$file" "$out/$file"
    done
    cat "$out/info"
}
if [ -e "$kept/info" ]; then
    deliver
    exit 0
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
start=$(date +%s)

step "$package $version"
(cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$package=$version") \
    || fail "$package $version cannot be downloaded"
dpkg-deb -x "$work"/linux-source-*.deb "$work/package"
archive=$(echo "$work"/package/usr/src/linux-source-*.tar.xz)
linux="$work/linux"
mkdir "$linux"
tar -C "$linux" --strip-components 1 -xf "$archive"

# All that would differ from one build of the same to the next.
KBUILD_BUILD_TIMESTAMP=$(LC_ALL=C date -u -d "@$(stat -c %Y "$archive")")
export KBUILD_BUILD_TIMESTAMP KBUILD_BUILD_USER=slicevisor KBUILD_BUILD_HOST=slicevisor
export KBUILD_BUILD_VERSION=1 LC_ALL=C
rm -rf "$work"/linux-source-*.deb "$work/package"

# A later line wins over an earlier one.
cat "$here/minimal.config" "$more" \
    | awk -F= '/^CONFIG_/ { line[$1] = $0 } END { for (name in line) print line[name] }' \
    | sort >"$work/wanted"
make -s -C "$linux" KCONFIG_ALLCONFIG="$work/wanted" allnoconfig >"$work/log" 2>&1 \
    || { tail -n 20 "$work/log" >&2; fail "the configuration was not made"; }
refused=$(grep -v '=n$' "$work/wanted" | grep -vxF -f "$linux/.config" || true)
[ -z "$refused" ] || fail "Linux $version did not take these lines, for want of what they need:
$refused"

step "compiling with $jobs jobs: some minutes"
make -s -C "$linux" -j"$jobs" vmlinux bzImage >"$work/log" 2>&1 \
    || { tail -n 30 "$work/log" >&2; fail "it does not compile: the last words are above"; }

mkdir "$work/result"
strip -s -o "$work/result/vmlinux" "$linux/vmlinux"
cp "$linux"/arch/x86/boot/bzImage "$work/result/bzImage"
cp "$linux/.config" "$work/result/config"
release=$(make -s -C "$linux" kernelrelease)
size() { echo "$(($(stat -c %s "$1") / 1024)) KiB"; }
cat >"$work/result/info" <<END
Linux $release, from $package $version
bzImage: $(size "$work/result/bzImage")
vmlinux: $(size "$work/result/vmlinux")
compiler: gcc $(gcc -dumpfullversion)
key: $key
END
# Another build of the same may have been quicker.
mv -T "$work/result" "$kept" 2>/dev/null || [ -e "$kept/info" ]
step "built in $(($(date +%s) - start)) s"
deliver
