#!/bin/sh
# Process 1 of a guest of `cargo xtask kernels`. What it has to say goes to the second serial port,
# one line each, with a tag: phase, ledger (the traffic's own count), span, log, exit, end.
# What is in /tools busybox has too, but not well enough: it is called by its path.
export PATH=/bin

# A container's view: a cgroup namespace and a cgroup2 mount that show only our own cgroup.
if [ "$1" = boxed ]; then
    umount /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    echo "boxed in $(cat /proc/self/cgroup), $(ls /sys/fs/cgroup | wc -l) files" >&2
    exec tap --admin off --log-format json run
fi

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
stty -F /dev/ttyS1 raw -echo
for module in /modules/*.ko; do
    [ ! -e "$module" ] || insmod "$module"
done
ulimit -n 4096

tell() { sed "s/^/$1 /" >/dev/ttyS1; }

# start_tap COMMAND...: in the background, until it traces or is gone.
start_tap() {
    "$@" >/run/spans 2>/run/log &
    tap=$!
    for _ in $(seq 600); do
        grep -q '"Tracing\."' /run/log && return
        [ -d /proc/$tap ] || return
        sleep 0.1
    done
}

stop_tap() {
    sleep "$1"
    kill -TERM $tap
    wait $tap
    echo $? | tell exit
    tell span </run/spans
    tell log </run/log
}

# traffic ADDRESS COUNT FACTOR SERVER-PREFIX CLIENT-PREFIX: both ends, each with a ledger.
traffic() {
    rm -f /run/ready
    $4 xtask traffic serve "$1:7000" "$2" --ready /run/ready >/run/served &
    server=$!
    for _ in $(seq 300); do
        [ -e /run/ready ] && break
        sleep 0.1
    done
    $5 xtask traffic drive "$1:7000" "$2" --factor "$3" | tell ledger
    wait $server
    tell ledger </run/served
}

loopback() {
    start_tap tap --admin off --log-format json run
    traffic 127.0.0.1 20 1
    stop_tap 0.3
}

namespace() {
    mkdir /sys/fs/cgroup/box /sys/fs/cgroup/elsewhere
    start_tap sh -c 'echo 0 >/sys/fs/cgroup/box/cgroup.procs; exec /tools/unshare --cgroup --mount /init boxed'
    (
        echo 0 >/sys/fs/cgroup/elsewhere/cgroup.procs
        traffic 127.0.0.1 20 1
    )
    stop_tap 0.3
}

netem() {
    mkdir -p /run/netns
    for side in 1 2; do
        /tools/ip netns add n$side
    done
    /tools/ip link add v1 netns n1 type veth peer name v2 netns n2
    for side in 1 2; do
        /tools/ip -n n$side addr add 10.77.0.$side/24 dev v$side
        /tools/ip -n n$side link set v$side up
        /tools/tc -n n$side qdisc add dev v$side root netem delay 2ms loss 3% duplicate 5% reorder 25% 50%
    done
    start_tap tap --admin off --log-format json run
    traffic 10.77.0.2 8 8 "nsenter --net=/run/netns/n2" "nsenter --net=/run/netns/n1"
    stop_tap 2
    /tools/tc -n n1 -s qdisc show dev v1 | tell log
}

for phase in $(echo "$phases" | tr , ' '); do
    echo "$phase" | tell phase
    $phase
done
cut -d' ' -f1 /proc/uptime | tell end
sync
poweroff -f
