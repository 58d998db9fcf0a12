"""Who we are to a machine's controller: a JSON file on the head, which only root reads. Never in etcd, never in a message."""

from pathlib import Path

from pydantic import Field, ValidationError

from clip.power.driver import PowerError
from crds.meta import Model

DIRECTORY = Path("/etc/mx/power")


class Login(Model):
    """{"user": "mx", "password": "…"}"""

    user: str
    """Name at the controller."""
    password: str = Field(repr=False)
    """Its password."""
    verify: bool | str = True
    """Whether a controller's TLS certificate is checked (redfish), or the file of the authority it is checked against."""


def read_login(directory: Path, name: str | None) -> Login:
    """PowerError, which never says what is in the file."""
    if name is None:
        raise PowerError("spec.power.credentials is not set: put user and password into a file on the head and name it there")
    path = directory / name
    try:
        if path.stat().st_mode & 0o077:
            raise PowerError(f"{path} may be read by others than root: chmod 600 {path}")
        return Login.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PowerError(f"{path}: {error.strerror}: put user and password there, as JSON") from error
    except ValidationError:
        raise PowerError(f'{path}: has to be JSON like {{"user": "mx", "password": "…"}}') from None
