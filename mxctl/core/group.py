"""The command group: verbs are imported when they are used, so that ``mxctl --help`` and completion are quick."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click

from mxctl.core.failures import FAILED, INTERRUPTED, innermost, tell


class LazyGroup(click.Group):
    """``verbs`` says for each verb where its command is (``module:name``) and, for --help, what it does."""

    def __init__(self, *args: Any, verbs: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*args, **options)
        self.verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = self.verbs.get(cmd_name)
        if found is None:
            return None
        module, _, name = found[0].partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in self.verbs.items()])

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Ends the process: 0, 1 for anything wrong (kubectl's codes, not click's 2), 130 for Ctrl-C, or what a job ended with."""
        standalone = extra.pop("standalone_mode", True)
        try:
            code = super().main(args, prog_name or "mxctl", standalone_mode=False, **extra)
        except click.Abort:
            code = INTERRUPTED
        except click.ClickException as error:
            error.show()
            code = FAILED
        except Exception as error:  # noqa: BLE001 - tell raises again what is a defect of ours
            cause = innermost(error)
            for line in tell(cause):
                click.echo(line, err=True)
            code = getattr(cause, "exit_code", FAILED)
        if not standalone:
            return code
        sys.exit(code if isinstance(code, int) else 0)
