"""`python -m torchless.cli`: the same as the `torchless` command."""

from torchless.cli.main import app

app()
