"""What all objects that people declare have in common: a status with conditions."""

from crds.meta import Resource, Status


def status_of(obj: Resource) -> Status:
    """The object's status, not a copy. Raises TypeError for events, which have none."""
    status = getattr(obj, "status", None)
    if not isinstance(status, Status):
        raise TypeError(f"{obj.label} has no status")
    return status
