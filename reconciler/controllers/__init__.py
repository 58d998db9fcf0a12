"""One controller a file: read, plan, write."""

from reconciler.controllers.balance import balance
from reconciler.controllers.checkpoint import reconcile_checkpoint
from reconciler.controllers.cluster import reconcile_cluster, reconcile_image
from reconciler.controllers.garbage import sweep
from reconciler.controllers.idle import keep_idle
from reconciler.controllers.interval import keep_interval
from reconciler.controllers.job import reconcile_job
from reconciler.controllers.leaving import reconcile_leaving
from reconciler.controllers.migration import reconcile_migration
from reconciler.controllers.node import reconcile_node
from reconciler.controllers.nodeset import give_address, reconcile_nodeset
from reconciler.controllers.programs import ask_for_files
from reconciler.controllers.rollout import reconcile_rollout
from reconciler.controllers.validity import reconcile_validity
from reconciler.runtime.declare import Controller

ALL: tuple[Controller, ...] = (
    reconcile_node,
    reconcile_job,
    reconcile_migration,
    reconcile_checkpoint,
    reconcile_rollout,
    reconcile_leaving,
    reconcile_nodeset,
    give_address,
    ask_for_files,
    keep_idle,
    keep_interval,
    balance,
    sweep,
    reconcile_validity,
    reconcile_cluster,
    reconcile_image,
)
"""All controllers of the reconciler."""
