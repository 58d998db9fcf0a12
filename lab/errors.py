"""What can go wrong with a lab.

LabError
├── LabExists    the name is taken
└── NoSuchLab    there is no lab, or no node in it, of this name
"""


class LabError(Exception):
    """Root of all errors of this room; one line: what failed, why, what to do next."""


class LabExists(LabError):  # noqa: N818 - reads as what it says
    """A lab of this name is there already."""


class NoSuchLab(LabError):  # noqa: N818
    """No lab or no node of this name."""
