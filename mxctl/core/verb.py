"""A verb: a click command that shows examples in its --help and takes the global options behind its name as well as before it."""

from typing import Any

import click

from mxctl.core.settings import Settings


class Verb(click.Command):
    """``examples`` are command lines, one a line; lines that begin with # explain them."""

    def __init__(self, *args: Any, examples: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = [line.strip() for line in examples.strip().splitlines()]
        self.params += [_global("--context"), _global("--namespace", "-n")]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"  {line}\n" if line else "\n")
        super().format_epilog(ctx, formatter)


def _global(*names: str) -> click.Option:
    def keep(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None and param.name:
            setattr(ctx.ensure_object(Settings), param.name, value)

    words = {"--context": "Cluster to talk to, see mxctl config.", "--namespace": "Namespace of what is named."}
    return click.Option(list(names), expose_value=False, callback=keep, help=words[names[0]])
