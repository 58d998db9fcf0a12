"""All verbs. Each is in a file of its own and is imported when it is used."""

import click

from mxctl.core.group import LazyGroup
from mxctl.core.settings import Settings

VERBS = {
    "apply": ("mxctl.apply:apply", "Make the cluster as files say"),
    "get": ("mxctl.get:get", "Show objects"),
    "describe": ("mxctl.describe:describe", "Show all about an object: conditions, moves, events"),
    "delete": ("mxctl.delete:delete", "Delete objects"),
    "run": ("mxctl.run:run", "Run a program somewhere in the cluster"),
    "attach": ("mxctl.attach:attach", "Talk to a running job"),
    "exec": ("mxctl.exec:exec_", "Run a program beside a running job"),
    "logs": ("mxctl.logs:logs", "Show what a job printed"),
    "migrate": ("mxctl.migrate:migrate", "Move a running job to another node"),
    "can-migrate": ("mxctl.can_migrate:can_migrate", "Tell whether a job could be moved, and where to"),
    "plan": ("mxctl.plan:plan", "Show what the balancer would do now, and why; changes nothing"),
    "explain-move": ("mxctl.explain_move:explain_move", "Tell why a job is where it is, and what would move it"),
    "checkpoint": ("mxctl.checkpoint:checkpoint", "Keep the state of a running job on the shared storage"),
    "top": ("mxctl.top:top", "Show load by node or by job"),
    "simulate": ("mxctl.simulate:simulate", "Try a policy in virtual time, beside others"),
    "wait": ("mxctl.wait:wait", "Wait until objects are as they should be"),
    "cordon": ("mxctl.cordon:cordon", "Let no job come to a node any more"),
    "uncordon": ("mxctl.cordon:uncordon", "Let jobs come to a node again"),
    "approve": ("mxctl.approve:approve", "Make a discovered machine a node"),
    "refuse": ("mxctl.approve:refuse", "Do not want a discovered machine"),
    "drain": ("mxctl.drain:drain", "Move all jobs away from a node"),
    "rollout": ("mxctl.rollout:rollout", "Bring nodes to what they should run, without killing a job"),
    "power": ("mxctl.power:power", "Switch machines on and off"),
    "head": ("mxctl.head:head", "Make this machine the head of a cluster"),
    "token": ("mxctl.token:token", "Invite a machine that runs Linux already"),
    "join": ("mxctl.join:join_", "Make this machine a node of a cluster"),
    "leave": ("mxctl.join:leave", "Take this machine out of its cluster"),
    "events": ("mxctl.events:events", "Show what happened"),
    "doctor": ("mxctl.doctor:doctor", "Look at all parts of the cluster, and say what to do"),
    "config": ("mxctl.config:config", "Choose the cluster to talk to"),
    "image": ("mxctl.image:image", "Build what nodes run; look at its revisions"),
    "lab": ("mxctl.lab:lab", "A whole cluster on this machine"),
    "completion": ("mxctl.completion:completion", "Print the completion script of a shell"),
    "version": ("mxctl.version:version", "Show versions of client, etcd and agents"),
}


@click.group("mxctl", cls=LazyGroup, verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--context", envvar="MXCONTEXT", help="Cluster to talk to (MXCONTEXT); see mxctl config.")
@click.option("--namespace", "-n", help='Namespace of what is named; "default" unless said otherwise.')
@click.pass_context
def cli(ctx: click.Context, context: str | None, namespace: str | None) -> None:
    """MX turns a rack of machines into one computer: declare nodes and a policy, run programs, watch them move.

    Clusters are found in the file MXCONFIG names, else in ~/.config/mx/config.
    """
    settings = ctx.ensure_object(Settings)
    settings.context = context or settings.context
    settings.namespace = namespace or settings.namespace
