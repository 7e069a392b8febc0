"""The embedding service, blocking."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence

from torchless.clients.call import CallContext
from torchless.clients.embedding import EmbeddingClient, EmbeddingModelInfo, Embeddings, EmbedOptions, Token
from torchless.clients.metrics import ClientMetrics
from torchless.clients.request_joining import JoiningSettings
from torchless.clients.settings import ClientSettings
from torchless.clients.sync.base import SyncClient
from torchless.contracts.errors import TorchlessError


class SyncEmbeddingClient(SyncClient[EmbeddingClient]):
    """Calls one embedding service, and waits for it; each method is that of `EmbeddingClient`.

        with SyncEmbeddingClient("localhost:50051") as client:
            answer = client.embed(["a text"])

    Every method raises `TorchlessError` and nothing else; its kind says whose fault it was.

    Args:
        settings: How the service is called, or just its address.
        metrics: Where calls and endpoints are shown; None: on Prometheus' default registry.
        joining: Whether and how small requests of several threads share calls. Of those that do, the service sees the
            id and the trace of the first.
    """

    def __init__(
        self,
        settings: ClientSettings | str,
        metrics: ClientMetrics | None = None,
        joining: JoiningSettings = JoiningSettings(enabled=False),
    ) -> None:
        super().__init__(lambda: EmbeddingClient(settings, metrics, joining))

    def join(self, joining: JoiningSettings) -> None:
        """Joins small requests as these settings have it, from now on."""

        async def join(client: EmbeddingClient) -> None:
            client.join(joining)

        self._run(join)

    def embed(
        self,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        options: EmbedOptions = EmbedOptions(),
        context: CallContext = CallContext(),
    ) -> Embeddings:
        """Vectors of `inputs`, in their order.

        Args:
            inputs: Texts, or token ids of the model's own vocabulary, without special tokens.
            options: How.
            context: For whom, and how long they wait.
        """
        return self._run(lambda client: client.embed(inputs, options, context))

    def embed_stream(
        self,
        frames: Iterable[Sequence[str]],
        options: EmbedOptions = EmbedOptions(),
        context: CallContext = CallContext(),
    ) -> Generator[Embeddings | TorchlessError, None, None]:
        """Vectors of many frames of texts, one answer a frame, in the order of the frames.

        `frames` is read in the calling thread, while that waits for an answer, and only as the service has room. A
        frame that the service refuses yields the error in its place and the stream goes on; a fault of the service
        raises, and so does what reading `frames` raises, after the answers to the frames before. Left early, the stream
        is cancelled at the service. There is no deadline unless `context` has one.
        """
        return self._iterate(lambda client, stream: client.embed_stream(stream.frames(frames), options, context))

    def count_tokens(
        self, texts: Sequence[str], options: EmbedOptions = EmbedOptions(), context: CallContext = CallContext()
    ) -> list[int]:
        """Tokens of each text before any truncation, prompt and special tokens included."""
        return self._run(lambda client: client.count_tokens(texts, options, context))

    def tokenize(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        add_special_tokens: bool = True,
        prompt_name: str = "",
        context: CallContext = CallContext(),
    ) -> list[list[Token]]:
        """The tokens of each text; see `Token` in the contract for their fields."""
        return self._run(
            lambda client: client.tokenize(
                texts, model=model, add_special_tokens=add_special_tokens, prompt_name=prompt_name, context=context
            )
        )

    def detokenize(
        self,
        token_ids: Sequence[Sequence[int]],
        *,
        model: str = "",
        skip_special_tokens: bool = True,
        context: CallContext = CallContext(),
    ) -> list[str]:
        """The text of each sequence of ids."""
        return self._run(
            lambda client: client.detokenize(
                token_ids, model=model, skip_special_tokens=skip_special_tokens, context=context
            )
        )

    def list_models(self, context: CallContext = CallContext()) -> list[EmbeddingModelInfo]:
        """The models served, the default one first; see `Model` in the contract for their fields."""
        return self._run(lambda client: client.list_models(context))
