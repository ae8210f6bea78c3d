#!/bin/sh
# Makes the disk of a small Debian for a Linux sliver: see usage() for how, README.md for what.
set -eu

usage() {
    cat <<END
usage: $0 OUT.img [--size SIZE] [--suite SUITE] [--packages A,B...] [--mirror URI]

Makes a Debian root disk OUT.img, and beside it OUT.vmlinuz and OUT.initrd to boot it with, and
OUT.info that says what they are. The disk is one ext4 file system without a partition table.

  --size SIZE       of the disk, default 1G; its file takes only what is written. A disk that is
                    made larger later (truncate -s) is grown into at its next boot
  --suite SUITE     release of Debian, default bookworm
  --packages A,B    packages beside the base: systemd, openssh-server, cloud-init, apt
  --mirror URI      Debian's mirror, default the one that apt has here

Does nothing where the same was made already. Needs no root, but 2 GiB in \$TMPDIR (/tmp); installs
what it needs as root or with sudo.
END
}

fail() { echo "$0: $*" >&2; exit 1; }
step() { echo "== $*" >&2; }

here=$(cd "$(dirname "$0")" && pwd)
out="" size=1G suite=bookworm packages="" mirror=""
while [ $# -gt 0 ]; do
    case "$1" in
        --size | --suite | --packages | --mirror)
            [ $# -ge 2 ] || { usage >&2; exit 2; }
            case "$1" in
                --size) size=$2 ;;
                --suite) suite=$2 ;;
                --packages) packages=$2 ;;
                --mirror) mirror=$2 ;;
            esac
            shift 2
            ;;
        -h | --help) usage; exit 0 ;;
        -*) usage >&2; exit 2 ;;
        *) [ -z "$out" ] || { usage >&2; exit 2; }; out=$1; shift ;;
    esac
done
[ -n "$out" ] || { usage >&2; exit 2; }
case "$size" in *[!0-9KMGT]* | [!0-9]* | "") fail "--size $size is no size: as in 1G or 800M" ;; esac
case "$suite" in *[!a-z0-9-]* | "") fail "--suite $suite is no name of a release" ;; esac
case "$packages" in *[!a-z0-9.+,:=~-]*) fail "--packages $packages is no list of packages: as in nginx,git" ;; esac
case "$mirror" in *[[:space:]]*) fail "--mirror $mirror is no URI" ;; esac
[ "$(uname -m)" = x86_64 ] || fail "this machine is $(uname -m): slivers are x86_64"
folder=$(dirname "$out")
[ -d "$folder" ] || fail "there is no folder $folder"
base=${out%.img}
[ "$base" != "$out" ] || fail "$out does not end with .img"

# The same recipe gives the same disk; another one must not overwrite it, nor what a sliver wrote.
recipe=$(printf '%s\n' "$size" "$suite" "$packages" "$mirror" | cat - "$0" | sha256sum | cut -d' ' -f1)
if [ -e "$out" ]; then
    if grep -qxF "recipe: $recipe" "$base.info" 2>/dev/null; then
        echo "$out is there already"
        exit 0
    fi
    fail "$out is there already and was made otherwise: remove it, or choose another name"
fi

"$here/setup.sh" root
PATH=$PATH:/usr/sbin:/sbin

# Lines of sources.list: Debian's mirrors of this machine's apt, but of the suite asked for.
sources() {
    if [ -n "$mirror" ]; then
        printf 'deb %s %s main\n' "$mirror" "$suite"
        return
    fi
    # shellcheck disable=SC2016 # apt expands it
    apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL) $(COMPONENT)' \
        'Created-By: Packages' | sort -u | while read -r uri origin label component; do
        case "$origin $label $component" in
            "Debian Debian main")
                printf 'deb %s %s main\ndeb %s %s-updates main\n' "$uri" "$suite" "$uri" "$suite"
                ;;
            "Debian Debian-Security main") printf 'deb %s %s-security main\n' "$uri" "$suite" ;;
        esac
    done
}
lines=$(sources)
[ -n "$lines" ] || fail "apt has no mirror of Debian here: name one with --mirror URI"

# What apt asks through, so do the tools that know nothing of its configuration.
PROXY=$(apt-config shell PROXY Acquire::http::Proxy 2>/dev/null) || PROXY=""
eval "$PROXY"
case "${PROXY:-}" in "" | PROXY=* | DIRECT) ;; *) export http_proxy="$PROXY" ;; esac

work=$(mktemp -d "$base.XXXXXX")
# What others have to read: without root, packages are unpacked as another user of a namespace.
scratch=$(mktemp -d)
trap 'rm -rf "$work" "$scratch"' EXIT
trap 'exit 1' INT TERM HUP
chmod 755 "$scratch"

# Before packages come: what their installation has to know.
seed="$scratch/seed"
mkdir -p "$seed/etc/initramfs-tools/conf.d" "$seed/usr/share/initramfs-tools/modules.d"
cat >"$seed/etc/initramfs-tools/conf.d/sliver" <<'END'
# Only what a sliver's root disk needs, and quick to unpack.
MODULES=list
COMPRESS=lz4
END
cat >"$seed/usr/share/initramfs-tools/modules.d/sliver" <<'END'
virtio_mmio
virtio_blk
virtio_console
virtio_rng
virtio_net
ext4
END

# After them: what makes it a sliver's.
files="$scratch/files"
mkdir -p "$files/etc/cloud/cloud.cfg.d" "$files/etc/ssh/sshd_config.d" \
    "$files/etc/systemd/system/ssh.service.d" \
    "$files/etc/systemd/system/systemd-networkd-wait-online.service.d" \
    "$files/etc/systemd/network" "$files/etc/systemd/journald.conf.d"
cat >"$files/etc/fstab" <<'END'
/dev/vda / ext4 errors=remount-ro,x-systemd.growfs 0 1
END
echo slice >"$files/etc/hostname"
cat >"$files/etc/hosts" <<'END'
127.0.0.1 localhost
127.0.1.1 slice
::1 localhost ip6-localhost ip6-loopback
END
cat >"$files/etc/cloud/cloud.cfg.d/90_sliver.cfg" <<'END'
# Who this is, is told by a disk with the label CIDATA; nobody is asked over the network.
datasource_list: [NoCloud]
# Each module is time at every boot: these are what users of slivers ask for.
cloud_init_modules:
  - write-files
  - set_hostname
  - update_hostname
  - update_etc_hosts
  - users-groups
  - ssh
cloud_config_modules:
  - set-passwords
  - timezone
  - runcmd
cloud_final_modules:
  - package-update-upgrade-install
  - write-files-deferred
  - scripts-user
  - final-message
ssh_genkeytypes: [ed25519, ecdsa]
# A console that is slow is for people.
output: {all: ">> /var/log/cloud-init-output.log"}
system_info:
  network:
    renderers: [networkd]
END
cat >"$files/etc/systemd/system/ssh.service.d/keys.conf" <<'END'
# A sliver without a seed has host keys of its own, too.
[Service]
ExecStartPre=
ExecStartPre=/bin/sh -c 'for t in ed25519 ecdsa; do f=/etc/ssh/ssh_host_"$t"_key; [ -s "$f" ] || ssh-keygen -q -t "$t" -N "" -f "$f"; done'
ExecStartPre=/usr/sbin/sshd -t
END
cat >"$files/etc/systemd/system/systemd-networkd-wait-online.service.d/sliver.conf" <<'END'
# A sliver may have no network card, or one that nobody answers on.
[Unit]
ConditionPathExistsGlob=/sys/class/net/e*
[Service]
ExecStart=
ExecStart=/lib/systemd/systemd-networkd-wait-online --any --timeout=15
END
cat >"$files/etc/systemd/network/90-any.network" <<'END'
# For cards that no seed tells of.
[Match]
Name=e*
[Network]
DHCP=yes
END
cat >"$files/etc/systemd/journald.conf.d/sliver.conf" <<'END'
[Journal]
SystemMaxUse=32M
END
# Cards keep the kernel's names: eth0 is the spec's first.
ln -s /dev/null "$files/etc/systemd/network/99-default.link"
# Work that nobody asked for disturbs what is measured; what no sliver has need not be looked for.
for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service \
    dpkg-db-backup.timer getty@tty1.service modprobe@drm.service modprobe@efi_pstore.service \
    modprobe@dm_mod.service; do
    ln -s /dev/null "$files/etc/systemd/system/$unit"
done

# shellcheck disable=SC2016 # mmdebstrap's shell expands it
customize='set -e
tar -C "$FILES" -cf - . | tar -C "$1" --no-same-owner --no-overwrite-dir -xf -
chroot "$1" systemctl --quiet enable systemd-networkd systemd-resolved ssh
chroot "$1" systemctl --quiet set-default multi-user.target
chroot "$1" passwd --quiet --lock root
rm -f "$1"/etc/ssh/ssh_host_*_key* "$1"/var/lib/dbus/machine-id "$1"/etc/resolv.conf
ln -s ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"
rm -rf "$1"/var/log/*.log "$1"/var/log/apt/* "$1"/var/cache/debconf/*-old'

base_packages=systemd-sysv,udev,dbus,libpam-systemd,systemd-resolved,systemd-timesyncd
base_packages=$base_packages,openssh-server,cloud-init,sudo,netbase,iproute2,iputils-ping
base_packages=$base_packages,ca-certificates,procps,kmod,less,e2fsprogs
base_packages=$base_packages,linux-image-cloud-amd64,initramfs-tools,lz4

step "packages: this takes a minute or two"
export FILES="$files" SEED="$seed"
# shellcheck disable=SC2016 # mmdebstrap's shell expands it
printf '%s\n' "$lines" | mmdebstrap --variant=minbase --format=tar \
    --include="$base_packages${packages:+,$packages}" \
    --aptopt='Acquire::Languages "none"' \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook='tar -C "$SEED" -cf - . | tar -C "$1" --no-same-owner --no-overwrite-dir -xf -' \
    --customize-hook="$customize" \
    "$suite" "$work/root.tar" - >"$work/log" 2>&1 \
    || { tail -n 30 "$work/log" >&2; fail "mmdebstrap failed: its last words are above"; }

step "file system"
# In and out by pipe: without root, this runs as another user, who has no rights where OUT.img is.
# shellcheck disable=SC2016 # expanded where it runs
make_disk='set -eu
dir=$(mktemp -d)
trap "rm -rf \"$dir\"" EXIT
mkdir "$dir/root"
tar -C "$dir/root" --numeric-owner --xattrs --xattrs-include=security.capability \
    --exclude="./dev/*" -xpf -
: >"$dir/root/etc/machine-id"
cp "$dir"/root/boot/vmlinuz-* "$dir/vmlinuz"
cp "$dir"/root/boot/initrd.img-* "$dir/initrd"
truncate -s "$SIZE" "$dir/disk.img"
mkfs.ext4 -q -F -L root -m 1 -d "$dir/root" "$dir/disk.img" >&2
basename "$dir"/root/boot/vmlinuz-* | sed s/^vmlinuz-// >"$dir/kernel"
chmod 644 "$dir/disk.img" "$dir/vmlinuz" "$dir/initrd"
tar -C "$dir" -Scf - disk.img vmlinuz initrd kernel'
as_owner=""
[ "$(id -u)" -eq 0 ] || as_owner="mmdebstrap --unshare-helper"
SIZE="$size" $as_owner sh -c "$make_disk" <"$work/root.tar" \
    | tar -C "$work" --no-same-owner -xf - || true
[ -s "$work/kernel" ] || fail "no file system was made: is --size $size too small?"
kernel=$(cat "$work/kernel")
used=$(du -m "$work/disk.img" | cut -f1)

cat >"$work/info" <<END
suite: $suite
kernel: $kernel
size: $size, $used MiB of it in use
packages: ${packages:-the base}
command line: root=/dev/vda rw
recipe: $recipe
END
mv "$work/vmlinuz" "$base.vmlinuz"
mv "$work/initrd" "$base.initrd"
mv "$work/info" "$base.info"
mv "$work/disk.img" "$out"
step "made $out ($used MiB of $size), $base.vmlinuz ($kernel), $base.initrd"
