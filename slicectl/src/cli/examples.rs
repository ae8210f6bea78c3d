//! Examples and longer explanations at the end of each command's help.

pub(super) mod audit;

pub(super) const TOP: &str = "\
Examples:
  slicectl doctor                     check this host
  slicectl run hello                  boot an example
  slicectl run ./my-image --mem 128M  boot an image file
  slicectl ps                         what runs here?
  slicectl top                        and what does it use?";

macro_rules! run_examples {
    () => {
        "\
Examples:
  slicectl run hello
  slicectl run hello --mem 128M --vcpus 2 -- --greeting hi
  slicectl run spin --for 10s --timing
  slicectl run fault --core core.elf -- null-read; gdb IMAGE core.elf
  slicectl run web --publish 8080:80
  slicectl run echo -p 127.0.0.1:0:7 -p 5353:53/udp --net tap,addr=10.9.0.2/24
  slicectl run ping --net nat -- 192.0.2.1
  slicectl run ping --net tap=tap3,addr=192.0.2.7/24,gw=192.0.2.1,dns=192.0.2.1
  slicectl run kv --disk kv.img,serial=kv0,direct --disk base.img,ro --publish 7000:7000
  slicectl run echo --vsock-dir ./sockets --console echo.log --balloon 16M
  slicectl run hello --console stdio
  slicectl run vmlinuz --initrd initrd.img --append quiet
  slicectl run --kernel vmlinuz debian.img --ssh-key ~/.ssh/id_ed25519.pub -p 2222:22
  slicectl run spin --cpu-cap 50 --cpu-share 2 --cpu-burst 20 -- --ms 60000
  slicectl run web -p 8080:80 --net-max-rate 10mbit --net-allowance 10G --disk-iops 1000
  slicectl run hello --gdb :1234
  slicectl run hello --json | jq .exit"
    };
}

pub(super) const RUN: &str = run_examples!();

pub(super) const RUN_LONG: &str = concat!(
    run_examples!(),
    "

IMAGE without a slash names an example first, a file second: write ./NAME for a file. In a source
tree the examples and the monitor are built when they are not up to date; an installed slicectl
takes them from ../share/slicevisor/images and ../libexec/slicevisor.

--net tap makes a tap in a network namespace of the sliver's own, with this host at the other end:
nothing of the host's network changes, and only published ports lead in. Without addr= the card is
10.0.2.15/24 and fd00::15/64, and the host its gateway. --net tap=NAME uses a tap that is there; its
network is whatever it is part of. addr, gw and dns may be given for IPv4 and for IPv6.

--net nat makes the same tap, and a way out of that namespace: what leaves it has this host's address,
and a port of the sliver's own. The ports, 1000 that are free or ports=, are printed; the same --name
gets the same ones as long as they are free, and no other sliver of this host has any of them. A link
slvFIRST-LAST shows who has which (ip link). Nothing leads in but published ports; this host and its
other slivers cannot be reached. Name servers are this host's unless dns= names some. It takes root,
the program nft, and net.ipv4.ip_forward=1; a firewall of the host's must let such links through. IPv4
only: without addr= there is no IPv6, and an IPv6 address leads as far as this host.

--publish listens on all addresses of the host unless one is given; host port 0 takes any that is
free and prints it. Without --net it implies --net tap. A client that comes while the guest is still
booting is held until it is there.

--disk: in a path, write ,, for a comma. --console FILE appends; a file that has grown to 64 MiB is
renamed to FILE.1. Files called stdio or none are written ./stdio and ./none. With stdio the guest
reads what this terminal, file or pipe gives, as lines; that this has ended, it is not told.

Kernels, of Linux or of others: bzImage, ELF64 and PVH are told from each other and from native
images without a flag. --kernel is for those whose disk shall be IMAGE. The command line begins with
console=ttyS0 panic=-1 reboot=acpi and, if there is a disk, root=/dev/vda rw; --append comes after
it, and arguments after -- are init's.

On a terminal a kernel gets every key, Ctrl-C too, until the detach keys: then the terminal is as
before, the guest goes on, its output is still shown, and Ctrl-C ends it. --detach-keys takes keys
such as ctrl-] or ctrl-a,d with commas between them, and gives a native image with --console stdio
all keys, too; none means that only `slicectl stop` ends it.

Processor time is all that the sliver's process uses, for its guest and for its devices. --cpu-cap is
in percent of one processor, and held back with at most a period's delay; --cpu-pct is in percent of
all of this host's processors and refused if others have reserved them; what is left is shared by
--cpu-share. `slicectl limits set` changes them while it runs, and the limits of network and disks
with them; `slicectl limits set --help` tells the units. Slivers share through a ledger, a file
in memory: in the run directory or, if that is on a disk, in /dev/shm for the usual one and nowhere
for another; --ledger names one. --ledger none: it shares with nobody.

--ssh-key, --hostname and --user-data make one more disk, from which the guest's cloud-init learns
them and the addresses of --net. Keys are for the image's usual user and for root. cloud-init takes
what it is told for another machine when name, keys, user data or network change, and makes new host
keys: with --name a sliver stays what it was.

Exit codes: the guest's own status, 0 after a power-off; 2 wrong usage; 85 a kernel rebooted; 124
time limit reached; 125 the monitor could not start or failed; 134 a kernel panicked; 139 the guest
faulted; 143 stopped by a signal or by `slicectl stop`.

The sliver ends when slicectl does, however slicectl ends.

SLICEVISOR_RUN_DIR names the directory for control sockets; without it, /run/slicevisor for root,
else slicevisor in XDG_RUNTIME_DIR or in the directory for temporary files."
);

macro_rules! build_examples {
    () => {
        "\
Examples:
  slicectl build hello
  slicectl build ./my-slice
  slicectl build ./my-slice --bin server --features metrics
  slicectl run $(slicectl build ./my-slice)"
    };
}

pub(super) const BUILD: &str = build_examples!();

pub(super) const BUILD_LONG: &str = concat!(
    build_examples!(),
    "

The package's convention: its Cargo.toml has

  [features]
  default = [\"desktop\"]
  desktop = [\"guest-shim/desktop\"]

  [dependencies]
  guest-shim = { path = \"SLICEVISOR/guest-shim\", default-features = false }

where SLICEVISOR is its source tree, and its source begins with

  #![cfg_attr(not(feature = \"desktop\"), no_std, no_main)]

An ordinary `cargo run` then makes a process of it. This command builds without default features,
with the stable toolchain, into TARGET_DIR/slice, and checks the image as `slicectl inspect` does.
Only the image's path is printed on stdout."
);

pub(super) const INSPECT: &str = "\
Examples:
  slicectl inspect ./my-image
  slicectl inspect hello --json
  slicectl inspect /boot/vmlinuz

Exit code 1 if the image would be refused.";

pub(super) const STEER: &str = "\
Examples:
  slicectl ps
  slicectl status hello-4711
  slicectl pause hello-4711 && slicectl resume hello-4711";

pub(super) const STOP: &str = "\
Examples:
  slicectl stop hello-4711
  slicectl stop debian-4711 --grace 1m
  slicectl stop debian-4711 --grace 0s

A kernel's power button is pressed first: what it has not written by the end of the time is lost. A
native image is ended at once.";

pub(super) const BALLOON: &str = "\
Examples:
  slicectl balloon hello-4711 32M
  slicectl balloon hello-4711 0M

The guest gives memory back as far and as fast as it can, and only if it has a driver for a
balloon: `slicectl status NAME` tells the pages asked for (target) and given (actual).";

pub(super) const LIMITS: &str = "\
Examples:
  slicectl limits get web-1
  slicectl limits get web-1 --json | jq .net.net_max_rate
  slicectl limits set web-1 --cpu-cap 50 --cpu-share 2
  slicectl limits set web-1 --net-max-rate 512kbit --net-burst 64K
  slicectl limits set web-1 --net-allowance 10G --net-exempt 192.0.2.0/24,2001:db8::/32
  slicectl limits set web-1 --disk-rate 50M --disk-iops 1000
  slicectl limits set web-1 --cpu-cap none --net-max-rate none --net-exempt none

What is not named stays as it is; if anything cannot be had, nothing is changed. Refused is what
slivers cannot have: more than 100 % for each of its vCPUs, or a reserve or a minimum that others
have.

Rates are in bits, of 1000: 10mbit, 512kbit, 1gbit, a bare number is in kbit/s. Sizes are in bytes, of
1024: 64K, 10G, a bare number is in KiB. A new allowance begins with what was sent today, and with
its usual threshold unless one is named.";

macro_rules! traffic_examples {
    () => {
        "\
Examples:
  slicectl traffic --to 192.0.2.1:9000 -- --net tap=tap3,addr=192.0.2.7/24
  slicectl traffic load --to 192.0.2.1:9000 --profile bulk --rate 50000 --seconds 60 -- --net tap=tap3,dhcp
  slicectl traffic --to 10.0.2.2:9000 --profile voip --rate 688 --seed 7 --json -- --net tap"
    };
}

pub(super) const TRAFFIC: &str = traffic_examples!();

pub(super) const TRAFFIC_LONG: &str = concat!(
    traffic_examples!(),
    "

It is `slicectl run traffic`: the example of that name in a sliver of its own, which ends when the
time is over. What follows -- are flags of `slicectl run` for that sliver. For a load on a link that
a sliver has already, give the one that is made the same limits.

The same profile, rate and seed send the same pieces at the same moments, on any host. When the
network takes less than that, what could not be sent in time is told.

web and bulk go over TCP: something has to take connections there, such as

  slicectl run blast --net tap=tap4,addr=192.0.2.1/24 -- --listen 9000 --mode sink

voip needs nobody: its datagrams are sent, whether anybody takes them or not.

Exit code 1 if nothing could be sent."
);

pub(super) const TOP_TABLE: &str = "\
Examples:
  slicectl top
  slicectl top --sort memory web-1 web-2
  slicectl top --once
  slicectl top --json --interval 10s | jq -c '.slivers[] | [.name, .cpu_percent]'

Keys: q quits; c (cpu), t (throttled), m (memory), n (net), d (disk), u (uptime) and a (name) sort, < and
> go to the column on the left and on the right, r turns the order round.

CPU% is in percent of one processor, as is CAP; RSV is in percent of all of the host's. THR% is how much
of the time its cap held a sliver back. Memory is what its process holds, of what it was given. RX< and
TX< are the limits of what it receives and sends in a second, DISK< and IO< those of bytes and requests of
its disks; DAY% is how much of the day's allowance is used. A sliver whose monitor does not answer is
shown as silent.";

pub(super) const CAPTURE: &str = "\
Examples:
  slicectl capture web-1 -w web.pcap            until Ctrl-C; a file that is there is written over
  slicectl capture web-1 -w - | tcpdump -nr -   read along
  slicectl capture web-1 -w web.pcap --for 10s --snaplen 64

Exactly the packets that the sliver sent and was handed, after the guard, as its guest sees them. The
first 512 bytes of each at most. What it costs is charged to the sliver; packets that find no room are
dropped from the file, not from the network, and counted.";

pub(super) const LEDGER: &str = "\
Examples:
  slicectl ledger
  slicectl ledger --interval 10s
  slicectl ledger --json | jq '.[] | select(.audit == \"lies\")'

CLAIMED and USED are of the interval: what the sliver says, and what the kernel counted for its
process. AHEAD is how far its virtual time is ahead of the least of those that want to run.

Exit code 1 if an entry does not tell the truth; what is wrong is told on stderr.";

macro_rules! simulate_examples {
    () => {
        "\
Examples:
  slicectl simulate --list
  slicectl simulate reserve
  slicectl simulate theft-nap --seconds 60 --seed 7
  slicectl simulate crowd --slivers 5000 --cpus 16 --json
  slicectl simulate ./workload.json --period 100"
    };
}

pub(super) const SIMULATE: &str = simulate_examples!();

pub(super) const SIMULATE_LONG: &str = concat!(
    simulate_examples!(),
    "

The scheduler is the monitor's own; host, guests and clock are imagined, so that a minute of a
thousand slivers takes seconds and the same seed gives the same result anywhere.

DUE is what each sliver of a group could have by quotas and by what the others want, in percent of a
processor, and GOT what they used in the mean. ERROR is how far that is from what was due, THEFT what
the one with most got beyond it, both in percent of what was due. WAKE is the time from waking to
running.

A workload file has groups of slivers with the quotas of a spec:

  { \"about\": \"a hog and two that sleep\", \"groups\": [
    { \"name\": \"hog\", \"behaviour\": \"steady\", \"vcpus\": 2, \"cpu_cap\": 150 },
    { \"name\": \"io\", \"count\": 2, \"behaviour\": \"cycle\", \"run_us\": 200,
      \"sleep_us\": 5000, \"spread_pct\": 50, \"cpu_share\": 3, \"start_ms\": 1000 } ] }

Behaviours: steady; cycle (run_us, sleep_us, spread_pct); edge (sleep_us): sleeps across the end of
each of its periods; rotate (run_us): one vCPU after the other. exit_us: how long exits are put off."
);

pub(super) const COMPLETIONS: &str = "\
Examples:
  source <(slicectl completions bash)
  slicectl completions zsh > ~/.zfunc/_slicectl
  slicectl completions fish > ~/.config/fish/completions/slicectl.fish";

pub(super) const MAN: &str = "\
Examples:
  slicectl man | man -l -
  slicectl man --dir /usr/local/share/man/man1";

pub(super) const DOCTOR: &str = "\
Examples:
  slicectl doctor
  slicectl doctor --json | jq '.checks[] | select(.status != \"ok\")'

Exit code 1 if something is missing that slivers cannot do without.";

pub(super) const PS: &str = "\
Examples:
  slicectl ps
  slicectl ps --json | jq -r .[].name

Exit code 1 if one of them does not answer; it is told on stderr, with its process.";
