"""What the balancer decides now. The balance controller acts on it; mxctl plan and explain-move show it: nobody decides otherwise.

It is a function of what stands in etcd and of the time, so that whoever reads the same revision comes to the same plan.
"""

from datetime import datetime

from crds.balancepolicy import BalancePolicy
from reconciler.controllers.snapshot import take_snapshot
from reconciler.planning.balance import plan_moves
from reconciler.planning.types import Plan
from reconciler.world import World


def outlook(world: World, policy: BalancePolicy, now: datetime) -> Plan:
    """The plan under this policy, whether it is the one in force or not."""
    return plan_moves(take_snapshot(world, now), policy.spec)
