"""What `/info` says: `Info` in text-embeddings-inference's router/src/lib.rs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from gateway.settings import GatewaySettings
from torchless import __version__
from torchless.contracts.errors import ResourceType, not_found


class InfoModel(Protocol):
    """A model as its service lists it."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def revision(self) -> str:
        """Its revision."""

    @property
    def dtype(self) -> str:
        """Type of its weights."""

    @property
    def max_tokens(self) -> int:
        """Longest input that it reads, in tokens."""

    @property
    def max_batch_tokens(self) -> int:
        """Padded tokens that one batch may hold."""


M = TypeVar("M", bound=InfoModel)


def model_of(served: Sequence[M], wanted: str) -> M:
    """The model of `served` with the id `wanted`; empty: the first.

    Raises:
        TorchlessError: NOT_FOUND.
    """
    for model in served:
        if wanted in {model.id, ""}:
            return model
    raise not_found(ResourceType.MODEL, wanted, "the model configured for these routes is not served")


def facts_of(model: InfoModel, kind: dict[str, Any], settings: GatewaySettings, *, batch: int) -> dict[str, Any]:
    """The answer of `/info`.

    Args:
        model: The model.
        kind: Its `model_type`.
        settings: The settings in force.
        batch: Most inputs in one request.
    """
    return {
        "model_id": model.id,
        "model_sha": model.revision or None,
        "model_dtype": model.dtype,
        "served_model_name": model.id,
        "model_type": kind,
        # Half, because a capability may hold at most as much as it leaves free.
        "max_concurrent_requests": max(1, settings.limits.concurrent_requests // 2),
        "max_input_length": model.max_tokens,
        "max_batch_tokens": model.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": batch,
        "auto_truncate": settings.limits.truncate,
        "tokenization_workers": 0,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }
