#!/bin/bash
# On a node, in a mount namespace of its own: one checkpoint and restore of a job by podman. peer.sh MEGABYTES idle|writing FILE
# The job writes its witness to FILE. Prints the unix time before the checkpoint.
set -euo pipefail
export PODMAN_IGNORE_CGROUPSV1_WARNING=1
exec 3>&1 >/dev/null

# podman wants the hierarchies as a machine has them; a node sees only its part, and not all of them.
umount -R /sys/fs/cgroup
mount -t tmpfs cgroup /sys/fs/cgroup
for controller in cpu cpuacct memory freezer pids devices blkio cpuset; do
    mkdir "/sys/fs/cgroup/$controller"
    mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" || rmdir "/sys/fs/cgroup/$controller"
done
mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd || rmdir /sys/fs/cgroup/systemd
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified || rmdir /sys/fs/cgroup/unified

run() {
    podman --root /run/peer/root --runroot /run/peer/run --storage-driver overlay --runtime runc --cgroup-manager cgroupfs "$@"
}

mkdir -p /etc/criu /run/peer
echo "network-lock skip" > /etc/criu/runc.conf # as we do; without iptables podman's default does not work
run image exists localhost/node || tar -C /shared/bench/rootfs -c . | run import - localhost/node 2>/dev/null
run rm -f -t 0 before after 2>/dev/null
trap 'run rm -f -t 0 before after 2>/dev/null; rm -f /run/peer/job.tar' EXIT
run run -d --name before --network none --security-opt seccomp=unconfined --security-opt apparmor=unconfined -v /shared:/shared \
    localhost/node python3 /shared/bench/job.py "$1" "$2" "$3"
until [ -s "$3" ]; do sleep 0.05; done
sleep 0.3
date +%s.%N >&3
run container checkpoint -e /run/peer/job.tar --compress none before
run container restore -i /run/peer/job.tar -n after
sleep 0.4
