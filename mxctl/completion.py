"""``mxctl completion``: the script that teaches a shell to complete mxctl's words."""

import click
from click.shell_completion import get_completion_class

from mxctl.core.verb import Verb

EXAMPLES = """
source <(mxctl completion bash)
mxctl completion zsh >~/.zfunc/_mxctl
mxctl completion fish >~/.config/fish/completions/mxctl.fish
"""


@click.command(cls=Verb, examples=EXAMPLES, short_help="Print the completion script of a shell")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    kind = get_completion_class(shell)
    assert kind is not None, "click knows the three shells of the choice"
    click.echo(kind(ctx.find_root().command, {}, "mxctl", "_MXCTL_COMPLETE").source())
