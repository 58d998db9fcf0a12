"""mx-shim: pid 1 of the namespaces one copy of a job lives in. Never dumped; outlives the agent.

    mx-shim RUN_DIR TMP_DIR SHM_DIR [HOST PORT BRIDGE MAC ADDRESS [GATEWAY]]

makes fresh pid, mount, ipc and uts namespaces, with HOST a network namespace too (wire.py), becomes their pid 1 in a session of
its own, mounts /proc, binds TMP_DIR over /tmp and SHM_DIR over /dev/shm, and then obeys JSON lines on the unix socket
RUN_DIR/control. It exists because this gives PIDs that cannot clash, a /proc of the job's own, a parent that learns the exit
code, and a place where criu runs *inside* the namespaces.

What always holds:
- RUN_DIR/shim.json (pid and start time as the agent's PID namespace has them) is written before pid 1 does anything.
- When the job's first process ends, RUN_DIR/exit.json is on disk before anything else happens; then pid 1 ends, and with it the
  kernel kills everything that is left of the job. A job is its first process; what it leaves behind does not outlive it.
- The first process is a child subreaper: a daemon that loses its parent becomes *its* child, not ours. Otherwise it would be
  outside the tree criu dumps, and be lost by a move.
- At most one criu runs, and it is our child: it dies with us, not with the agent.

- A job whose memory does not come whole is killed before it can read zeros in its place: RUN_DIR/lost.json is there then.

Requests, each answered by one line {"ok": true, …} or {"ok": false, "error": …}:
    start {command, env, workdir, log, groups, run_as}
                                                -> {pid} | {code, error}: why it could not be started, as the shell would say
    start_beside {command, env, workdir, groups, run_as, stdio}
                                                -> {pid} | {code, error}: a program in the job's namespaces that is no part of it
    status {}                                   -> {phase, job, criu, last_pid, stopped}
    dump {argv}                                 -> {rc}, when criu has ended; "frozen" from now on, if it succeeded or not. With a
                                                   descriptor: when criu hands out pages on it, "serving" from now on
    pre-dump {argv}                             -> {rc}, when criu has ended; it goes on running
    expect {groups}                             a restore will follow: a child enters these groups now, which takes 15 ms, and
                                                   starts criu later; so that is not part of the freeze
    restore {argv, last_pid, fetch, meeting}    -> {rc}, likewise; the namespace's last PID is set first, so that criu and its
                                                   children stay clear of the job's PIDs. With a descriptor the command ``fetch``
                                                   gets pages by it, for a restore that meets it at the socket ``meeting``
    restored {groups, stopped}                  -> {pid}: takes the restored tree as the job; "frozen" from now on. It enters the
                                                   groups after the answer: that takes 12 ms, while the caller commits
    abort {force}                               makes criu give up; unless forced, so that it puts the job in order first
    sever {}                                    kills a frozen job, but not the criu that hands out its pages: "severed"
    streamed {}                                 -> {rc}, when no pages go out or come in any more
    thaw {}                                     SIGCONT to all but those that were stopped before the freeze: "running"
    reconnect {}                                lets a running job be heard again after it was fenced; it has a network of its own
    clear {}                                    kills everything but ourselves: "empty"
    signal {number}                             to the job's first process

Standard library only, and little of it: this starts on the way into every move.
"""
