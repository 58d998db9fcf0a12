"""Which BalancePolicy is in force: the first by name."""

from crds.balancepolicy import BalancePolicy, Guests
from reconciler.world import World


def in_force(world: World) -> BalancePolicy | None:
    """None when there is no policy; then nothing moves by itself."""
    policies = [policy for policy in world.all(BalancePolicy) if policy.metadata.deletion_timestamp is None]
    return policies[0] if policies else None


def guests(world: World) -> Guests:
    """What becomes of jobs of others on a node whose owner is there."""
    policy = in_force(world)
    return policy.spec.guests if policy else Guests.KEEP
