"""The `torchless` command. Its subcommands import what they need when they run, so that `--help` is fast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

import torchless
from torchless.cli.bento_options import with_bento_options
from torchless.cli.bentos import BENTOS, METRICS_PORT

if TYPE_CHECKING:
    from rich.console import Console

PROJECT = Path(torchless.__file__).parents[1]
"""The checkout that contains this package."""

app = typer.Typer(
    help="A retrieval stack as BentoML services, with no PyTorch in the API tier.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "TORCHLESS", "help_option_names": ["-h", "--help"]},
)

Gateway = Annotated[
    str, typer.Option("--gateway", envvar="TORCHLESS_GATEWAY_URL", metavar="URL", help="Base URL of the gateway.")
]
Key = Annotated[
    str,
    typer.Option(
        "--key",
        envvar="TORCHLESS_API_KEY",
        metavar="KEY",
        show_default=False,
        help="API key of the gateway. Prefer the variable: other users can see the arguments of a command.",
    ),
]


@app.command()
@with_bento_options(PROJECT)
def up(
    *,
    host: Annotated[str, typer.Option(help="Interface to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    gateway_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the gateway's HTTP API.")] = 3000,
    ports: dict[str, int],
    metrics_port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65536 - len(BENTOS),
            help=f"First of {len(BENTOS)} consecutive ports for the services' metrics, on 127.0.0.1; 0 for no metrics.",
        ),
    ] = METRICS_PORT,
    state: Annotated[
        Path,
        typer.Option(file_okay=False, show_default=".torchless", help="Folder for logs and state, of one stack."),
    ] = PROJECT / ".torchless",
    gateway_python: Annotated[
        Path, typer.Option(show_default="the one that runs this command", help="Python that runs the gateway.")
    ] = Path(sys.executable),
    pythons: dict[str, Path],
) -> None:
    """Start the stack on this machine, and keep it running until Ctrl-C or SIGTERM.

    A service that dies is restarted, and the end of its log is printed.
    Every option is also an environment variable, for example
    TORCHLESS_UP_GATEWAY_PORT.
    """
    import asyncio

    from torchless.cli.errors import StackError
    from torchless.cli.services import StackSettings, stack_services
    from torchless.cli.stack import Stack
    from torchless.cli.up import up as run

    settings = StackSettings(
        project=PROJECT,
        state=state,
        pythons={"gateway": gateway_python, **pythons},
        host=host,
        gateway_port=gateway_port,
        ports=ports,
        metrics_port=metrics_port,
    )
    try:
        run(Stack(stack_services(settings), state, directory=PROJECT), _console())
    except StackError as error:
        _fail(str(error))
    except asyncio.CancelledError as error:  # by a second signal
        raise typer.Exit(130) from error


@app.command()
def status(gateway: Gateway = "http://127.0.0.1:3000", key: Key = "") -> None:
    """Show the health of the gateway and its services; exit with 1 unless all are ready."""
    from torchless.cli.gateway_api import GatewayError
    from torchless.cli.status import status as run

    try:
        ready = run(gateway, _console(), key=key)
    except GatewayError as error:
        _fail(str(error))
    raise typer.Exit(0 if ready else 1)


@app.command()
def embed(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to embed; by default one per line of standard input.")
    ] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help='Print one JSON object per line: {"text": ..., "vector": [...]}.')
    ] = False,
    model: Annotated[str, typer.Option(help="Model id; by default the service's default model.")] = "",
    dimensions: Annotated[int, typer.Option(min=0, help="Number of leading dimensions to keep; 0 for all.")] = 0,
    gateway: Gateway = "http://127.0.0.1:3000",
    key: Key = "",
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Call this embedding service over gRPC, without the gateway.")
    ] = "",
) -> None:
    """Embed texts and print their vectors."""
    from torchless.cli.embed import Source, embed_texts, print_json, print_table
    from torchless.cli.gateway_api import GatewayError
    from torchless.contracts.errors import TorchlessError

    wanted = texts or [line.rstrip("\n") for line in sys.stdin]
    if not wanted:
        _fail("there are no texts to embed: give them as arguments, or one per line on standard input")
    try:
        vectors = embed_texts(wanted, Source(gateway, address, key), model=model, dimensions=dimensions)
    except (GatewayError, TorchlessError) as error:
        _fail(str(error))
    if as_json:
        print_json(wanted, vectors)
    else:
        print_table(wanted, vectors, _console())


@app.command()
def rerank(
    query: Annotated[str, typer.Argument(help="The query.")],
    documents: Annotated[
        list[str] | None, typer.Argument(help="Documents to rerank; by default one per line of standard input.")
    ] = None,
    *,
    as_json: Annotated[
        bool,
        typer.Option("--json", help='Print one JSON object per line: {"index": ..., "score": ..., "document": ...}.'),
    ] = False,
    model: Annotated[str, typer.Option(help="Model id; by default the service's default model.")] = "",
    gateway: Gateway = "http://127.0.0.1:3000",
    key: Key = "",
) -> None:
    """Sort documents by their relevance to a query, with scores from 0 to 1."""
    from torchless.cli.gateway_api import GatewayError
    from torchless.cli.rerank import print_json, print_table, rerank_documents

    wanted = documents or [line.rstrip("\n") for line in sys.stdin]
    if not wanted:
        _fail("there are no documents to rerank: give them as arguments, or one per line on standard input")
    try:
        ranked = rerank_documents(query, wanted, gateway, key=key, model=model)
    except GatewayError as error:
        _fail(str(error))
    if as_json:
        print_json(wanted, ranked)
    else:
        print_table(wanted, ranked, _console())


@app.command()
def version() -> None:
    """Print the versions of torchless and of Python."""
    print(f"torchless {torchless.__version__}, Python {sys.version.split()[0]}")


def _console() -> Console:
    from rich.console import Console

    return Console()


def _fail(message: str) -> NoReturn:
    from rich.console import Console

    Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1)
