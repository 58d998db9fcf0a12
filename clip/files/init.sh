#!/bin/sh
# The first program of a machine. It has its network card's address, its own name and its layers from the kernel's command line
# (clip/render/ipxe.py), mounts its root over NFS and gives way to the node's own first process. What fails is said on the console
# and to the head, then the machine boots again: so a server that was away delays a boot, and nothing more.
PATH=/bin
export PATH

say() { echo "mx: $*"; }

tell() { # stage or problem, to the head; nobody waits for it
    wget -q -T 5 -O /dev/null "http://$server:$http/event?mac=$mac&$1" &
}

fail() {
    say "FAILED: $*"
    tail -n 5 /run/said 2>/dev/null
    said=$(echo "$*" | sed 's/[^A-Za-z0-9._:,/-]/+/g')
    wget -q -T 5 -O /dev/null "http://$server:$http/event?mac=$mac&problem=$said"
    say "booting again in 10 s"
    sleep 10
    reboot -f
}

attempt() { # WHAT COMMAND...: up to 30 times, once a second
    what=$1
    shift
    n=0
    until "$@" >/run/said 2>&1; do
        n=$((n + 1))
        [ $n -ge 30 ] && fail "$what: $(tail -n 1 /run/said)"
        [ $n -eq 1 ] && say "$what: $(tail -n 1 /run/said); trying again"
        sleep 1
    done
}

read_command_line() {
    for word in $(cat /proc/cmdline); do
        value=${word#*=}
        case $word in
        ip=*) network=$value ;;
        mx.mac=*) mac=$value ;;
        mx.server=*) server=$value ;;
        mx.http=*) http=$value ;;
        mx.etcd=*) etcd=$value ;;
        mx.layers=*) layers=$value ;;
        mx.image=*) image=$value ;;
        mx.dns=*) dns=$value ;;
        mx.domain=*) domain=$value ;;
        mx.mount=*) mounts="$mounts $value" ;;
        mx.init=*) init=$value ;;
        esac
    done
    old=$IFS
    IFS=:
    set -- $network
    IFS=$old
    address=$1 gateway=$3 netmask=$4 name=$5
}

find_card() { # sets card
    for directory in /sys/class/net/*; do
        [ "$(cat "$directory/address" 2>/dev/null)" = "$mac" ] && card=${directory##*/} && return 0
    done
    return 1
}

load_drivers() { # first what most have, then whatever the hardware asks for
    modprobe virtio_net 2>/dev/null # virtual machines; others lack it, or have it in the kernel
    n=0
    until find_card; do
        for alias in /sys/bus/*/devices/*/modalias; do
            modprobe -q "$(cat "$alias")"
        done 2>/dev/null
        n=$((n + 1))
        [ $n -ge 30 ] && fail "no driver for network card $mac in this initramfs"
        find_card || sleep 1
    done
}

# The address is that of a bridge, which jobs with a network of their own are plugged in; the agents expect it as mx0.
connect() {
    brctl addbr mx0
    echo 0 >/sys/class/net/mx0/bridge/forward_delay
    ip link set mx0 address "$mac"
    ip link set "$card" up
    brctl addif mx0 "$card"
    ifconfig lo 127.0.0.1 up
    ifconfig mx0 "$address" netmask "$netmask" up
    [ -n "$gateway" ] && route add default gw "$gateway"
}

mount_nfs() { # SOURCE TARGET OPTIONS; never 4.2, with which ganesha has returned zeros for data. Unshared: one is ro, others are rw
    mkdir -p "$2"
    attempt "mount $server:$1" mount -t nfs4 -o "vers=4.1,addr=$server,clientaddr=$address,hard,nosharecache,$3" "$server:$1" "$2"
}

mount_root() {
    mount_nfs /images /layers ro,nocto,actimeo=3600 # nothing in it ever changes
    mount -t tmpfs -o mode=0755,size=50% tmpfs /writable
    mkdir /writable/upper /writable/work
    lower=
    old=$IFS
    IFS=:
    for layer in $layers; do
        [ -d "/layers/$layer/root" ] || fail "image layer $layer is not on the server"
        lower=$lower${lower:+:}/layers/$layer/root
    done
    IFS=$old
    mount -t overlay -o "lowerdir=$lower,upperdir=/writable/upper,workdir=/writable/work" overlay /root || fail "overlay of $layers"
    umount -l /layers /writable # the overlay keeps them; nobody else needs to see them
}

mount_more() { # what the Cluster wants mounted: SOURCE,TARGET,TYPE,OPTION+OPTION
    for mount in $mounts; do
        old=$IFS
        IFS=,
        set -- $mount
        IFS=$old
        source=$1 target=/root$2 type=$3 options=$(echo "$4" | tr + ,)
        case $type in nfs*) options=addr=${source%%:*},clientaddr=$address,$options ;; esac
        mkdir -p "$target"
        attempt "mount $source" mount -t "$type" -o "$options" "$source" "$target"
    done
}

write_files() {
    mkdir -p /root/etc/mx /root/var/log /root/var/lib/mx/agent/log
    rm -rf /root/var/log/mx
    ln -s /var/lib/mx/agent/log /root/var/log/mx # so they outlive the machine, and are read on the head
    echo "$name" >/root/etc/hostname
    echo "$image" >/root/etc/mx/image
    : >/root/etc/mx/machine
    printf '127.0.0.1 localhost\n%s %s\n%s head\n' "$address" "$name" "$server" >/root/etc/hosts
    {
        [ -n "$domain" ] && echo "search $domain"
        for one in $(echo "$dns" | tr , ' '); do echo "nameserver $one"; done
    } >/root/etc/resolv.conf
    cat >/root/etc/mx/services.json <<JSON
[{"name": "nodeagent", "command": ["mx-nodeagent", "--node", "$name", "--address", "$address", "--endpoints", "$etcd", "--tls", "/run/mx/tls", "--invited", "/proc/cmdline"]},
 {"name": "guard", "command": ["mx-guard"]}]
JSON
}

mount_rest() {
    mount --move /sys /root/sys
    mount --move /dev /root/dev
    mkdir -p /root/dev/pts /root/dev/shm /root/dev/net
    mount -t devpts -o nosuid,noexec,newinstance,ptmxmode=0666,mode=0620 devpts /root/dev/pts
    ln -sf pts/ptmx /root/dev/ptmx
    [ -e /root/dev/net/tun ] || mknod /root/dev/net/tun c 10 200
    mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /root/dev/shm
    mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /root/tmp
    mount -t tmpfs -o nosuid,nodev,mode=0755 tmpfs /root/run
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /root/sys/fs/cgroup
    mount --move /proc /root/proc # last: busybox finds itself there
}

/bin/busybox mount -t proc proc /proc # from now on the shell runs busybox's programs by their names
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
say "kernel $(uname -r) has started its first process" # bench/boot.py waits for these words
read_command_line
load_drivers
connect
hostname "$name" # before any mount: it is how an NFS server tells its clients apart, and two of one name take each other's files away
modprobe -a nfsv4 overlay
mount_root
while read -r what memory rest; do [ "$what" = MemTotal: ] && break; done </proc/meminfo
tell "stage=root&cpus=$(nproc)&memory=$memory"
# What others put there has to be seen soon: the head a certificate, other nodes all that jobs write. By default Linux believes for
# half a minute that a file is not there which was not there before.
mount_nfs "/state/$name" /root/var/lib/mx/agent rw,actimeo=1,lookupcache=positive
mount_nfs /shared /root/shared rw,actimeo=1,lookupcache=positive
echo 100 >/proc/sys/vm/dirty_writeback_centisecs # so what a job prints is read elsewhere after a second or two, not after five
echo 100 >/proc/sys/vm/dirty_expire_centisecs
mount_more
write_files
say "$name runs $image"
mount_rest
case $init in
systemd) exec /bin/busybox switch_root /root /sbin/init ;;
*) exec /bin/busybox switch_root /root /usr/bin/python3 -ISE /usr/lib/mx/nodeagent/init.py ;;
esac || fail "switch_root"
