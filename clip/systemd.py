"""Units for machines whose first process is systemd. They lie in every image; enabled where the spec says ``init: systemd``.

What a node's daemons are called with is known when it boots: the initramfs writes it to /etc/mx/services.json, for either init.
"""

_UNIT = """\
[Unit]
Description={description}
ConditionPathExists=/etc/mx/services.json
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/bin/python3 -ISE /usr/lib/mx/nodeagent/launch.py {service}
Restart=always
RestartSec=0.5
# jobs outlive the daemon that started them
KillMode=process
Delegate=yes
TasksMax=infinity
LimitNOFILE=524288
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
"""
MASKED = (
    "dpkg-db-backup.timer",
    "etcd.service",
    "fstrim.timer",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
)
"""Never started, though their packages are there: nodes have etcd for its client, their network from the initramfs, and no disk."""
KERNEL_ARGUMENTS = ("mx.init=systemd", "systemd.condition_needs_update=no")
"""An image is complete: without the second, linker cache and hardware database are made anew at every boot."""
UNITS = {
    "mx-nodeagent.service": _UNIT.format(description="MX node agent", service="nodeagent"),
    "mx-guard.service": _UNIT.format(description="MX guard: freezes jobs when the node lost touch", service="guard"),
}
"""File name -> text."""
