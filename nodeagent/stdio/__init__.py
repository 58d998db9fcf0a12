"""mx-stdio: the first process of a job that people talk to. It holds the job's terminal (or pipes), and moves with the job.

    mx-stdio NAME        what to run stands as JSON on its standard input, see program.py

It starts the command in a session of its own, on a pty or on pipes, listens on a unix socket in a directory that every sandbox has
at the same path (SOCKETS below), and ends with the command's exit code. All output also goes to its own stdout, the job's log.

Nothing is lost or doubled when a connection breaks, because the job moves or for any other reason: both directions count their
bytes. What a client has not acknowledged is kept, and sent again from there when it comes back; the counts live in this process's
memory, so they are frozen and restored together with the terminal. Before a freeze every connection must be closed (criu cannot
dump a socket whose other end is outside): whoever holds the other end shuts it down and waits until this end is closed, too.

What always holds:
- Output waits (the program stands still) when a client that is attached, or was until a moment ago, is behind by RING bytes.
  When nobody is attached it never waits: the oldest is dropped then; the log has it.
- A client sends at most WINDOW bytes more than were taken by the program, so connections are always read, and acknowledgements
  never stick behind input.
- When the command has ended, its descendants are killed, what they wrote is read to the end, and this process stays until every
  client has all of it, or has been away for GRACE seconds.

frames.py: what is said.  ring.py, session.py: this end, without any I/O.  client.py: the other end, likewise.  program.py: the
command.  loop.py: the system calls around them. Standard library only, and little of it: this is dumped with every such job.
"""

SOCKETS = "/run/mx-job"
"""Every sandbox has a directory of its own there; the same path on all nodes, as criu binds the socket again by its path."""
JOB = "job"
"""The socket of the job's first process."""
