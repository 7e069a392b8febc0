"""The `torchless` command. Commands import what they need when they run, so that `--help` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

import torchless

if TYPE_CHECKING:
    from rich.console import Console

PROJECT = Path(torchless.__file__).parents[1]
"""The checkout that this package runs from."""

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
        help="Key, where the gateway asks for one; others can see it in a command, not in the variable.",
    ),
]


@app.command()
def up(
    *,
    host: Annotated[str, typer.Option(help="Interface to listen on; 0.0.0.0 for all of them.")] = "127.0.0.1",
    gateway_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the gateway's HTTP API.")] = 3000,
    embedding_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the embedding service, gRPC.")] = 50051,
    reranking_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the reranking service, gRPC.")] = 50052,
    gpu_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the GPU service, gRPC.")] = 50056,
    metrics_port: Annotated[
        int,
        typer.Option(min=0, max=65533, help="First of three ports of the services' metrics, on loopback; 0 for none."),
    ] = 9101,
    state: Annotated[
        Path,
        typer.Option(file_okay=False, show_default=".torchless", help="Folder for logs and state; one stack each."),
    ] = PROJECT / ".torchless",
    gateway_python: Annotated[
        Path, typer.Option(show_default="the one that runs this", help="Python of the environment without torch.")
    ] = Path(sys.executable),
    bentos_python: Annotated[
        Path, typer.Option(show_default=".venv/bentos/bin/python", help="Python of the environment with torch.")
    ] = PROJECT / ".venv/bentos/bin/python",
    gpu_python: Annotated[
        Path, typer.Option(show_default=".venv/gpu/bin/python", help="Python of the GPU service's environment.")
    ] = PROJECT / ".venv/gpu/bin/python",
) -> None:
    """Start the stack on this machine and keep it up until Ctrl-C or SIGTERM.

    A service that dies is named with the end of its log and started again. Each option can also be given as an
    environment variable: TORCHLESS_UP_ and its name, for instance TORCHLESS_UP_GATEWAY_PORT.
    """
    import asyncio

    from torchless.cli.errors import StackError
    from torchless.cli.services import StackSettings, stack_services
    from torchless.cli.stack import Stack
    from torchless.cli.up import up as run

    settings = StackSettings(
        project=PROJECT,
        state=state,
        gateway_python=gateway_python,
        bentos_python=bentos_python,
        gpu_python=gpu_python,
        host=host,
        gateway_port=gateway_port,
        embedding_port=embedding_port,
        reranking_port=reranking_port,
        gpu_port=gpu_port,
        metrics_port=metrics_port,
    )
    try:
        run(Stack(stack_services(settings), state, directory=PROJECT), _console())
    except StackError as error:
        _fail(str(error))
    except asyncio.CancelledError as error:  # a second signal: everything was ended at once
        raise typer.Exit(130) from error


@app.command()
def status(gateway: Gateway = "http://127.0.0.1:3000", key: Key = "") -> None:
    """Show how the gateway and the services behind it are; exit status 1 unless all are ready."""
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
        list[str] | None, typer.Argument(help="Texts to embed; without any, one a line from standard input.")
    ] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help='One line a text, {"text": ..., "vector": [...]}, with every number.')
    ] = False,
    model: Annotated[str, typer.Option(help="Model id; the service's default if not given.")] = "",
    dimensions: Annotated[int, typer.Option(min=0, help="Leading dimensions to keep; 0 for all.")] = 0,
    gateway: Gateway = "http://127.0.0.1:3000",
    key: Key = "",
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Ask this embedding service over gRPC, without the gateway.")
    ] = "",
) -> None:
    """Embed texts and print their vectors."""
    from torchless.cli.embed import Source, embed_texts, print_json, print_table
    from torchless.cli.gateway_api import GatewayError
    from torchless.contracts.errors import TorchlessError

    wanted = texts or [line.rstrip("\n") for line in sys.stdin]
    if not wanted:
        _fail("there is nothing to embed: give texts as arguments, or one a line on standard input")
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
    query: Annotated[str, typer.Argument(help="What the documents are to be put in order for.")],
    documents: Annotated[
        list[str] | None, typer.Argument(help="Documents; without any, one a line from standard input.")
    ] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help='One line a document, {"index": ..., "score": ..., "document": ...}.')
    ] = False,
    model: Annotated[str, typer.Option(help="Model id; the service's default if not given.")] = "",
    gateway: Gateway = "http://127.0.0.1:3000",
    key: Key = "",
) -> None:
    """Put documents in order for a query, the most relevant first; scores are from 0 to 1."""
    from torchless.cli.gateway_api import GatewayError
    from torchless.cli.rerank import print_json, print_table, rerank_documents

    wanted = documents or [line.rstrip("\n") for line in sys.stdin]
    if not wanted:
        _fail("there is nothing to put in order: give documents as arguments, or one a line on standard input")
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
    """Show the version of torchless and of the Python that runs it."""
    print(f"torchless {torchless.__version__}, Python {sys.version.split()[0]}")


def _console() -> Console:
    from rich.console import Console

    return Console()


def _fail(message: str) -> NoReturn:
    from rich.console import Console

    Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1)
