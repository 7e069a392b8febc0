"""Third-party API clients against the real stack: `.venv/clients/bin/python -m pytest tests/compat`.

In environments without the clients there is nothing to run here, and the files are not read.
"""

from __future__ import annotations

import gc
import hashlib
import os
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.compat.network_watch import NetworkWatch
from tests.compat.plain_http import MODEL, PlainHTTP
from tests.running_stack import GATEWAY_PYTHON, ROOT, RunningStack, running_stack

HAS_CLIENTS = find_spec("openai") is not None
collect_ignore_glob = [] if HAS_CLIENTS else ["test_*.py"]
OFFLINE = {
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    # Not HF_HUB_OFFLINE: huggingface_hub then refuses every request, also one to this machine.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
FROM_A_SHELL = ("_API_KEY", "_API_BASE", "_BASE_URL", "_API_TOKEN", "HF_TOKEN", "_PROXY")
"""Ends of the names of variables by which a developer's shell would send the clients elsewhere."""
THEIR_WARNINGS = (
    # cohere 5 calls pydantic 2 by the names of pydantic 1, and by others that are on their way out.
    r"ignore::pydantic.warnings.PydanticDeprecatedSince20:cohere\.",
    r"ignore::pydantic.warnings.PydanticDeprecatedSince211:cohere\.",
    # litellm reads base64 into openai's type for numbers.
    "ignore:Pydantic serializer warnings:UserWarning:pydantic.main",
    # litellm logs after its asynchronous calls in separate tasks, which may outlive the event loop of a test.
    "ignore:coroutine 'Logging.async_success_handler' was never awaited:RuntimeWarning",
    # litellm makes an event loop where there is none, and never closes it; nor the pair of sockets that belongs to it.
    "ignore:unclosed event loop:ResourceWarning",
    r"ignore:unclosed <socket.socket fd=\d+, family=1,:ResourceWarning",
    # langchain, llama-index, haystack, litellm and cohere keep the clients they made, and never close them.
    r"ignore:unclosed <socket.socket .*raddr=\('127.0.0.1':ResourceWarning",
    "ignore:unclosed transport <_SelectorSocketTransport:ResourceWarning",
)
CL100K_URL = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
"""What tiktoken would download; the sha1 of this is the name of its copy in the cache."""
_WATCH = pytest.StashKey[NetworkWatch]()


def pytest_configure(config: pytest.Config) -> None:
    """Prepares this process before a client is imported."""
    if not HAS_CLIENTS:
        return
    for name in [name for name in os.environ if name.upper().endswith(FROM_A_SHELL)]:
        del os.environ[name]
    os.environ.update(OFFLINE)
    for line in THEIR_WARNINGS:
        config.addinivalue_line("filterwarnings", line)
    config.stash[_WATCH] = NetworkWatch()


@pytest.fixture(scope="session")
def network(pytestconfig: pytest.Config) -> NetworkWatch:
    """Whom this process talked to."""
    return pytestconfig.stash[_WATCH]


@pytest.fixture(autouse=True)
def _stays_on_this_machine(network: NetworkWatch) -> Iterator[None]:
    yield
    strangers, network.strangers[:] = list(network.strangers), []
    assert strangers == []


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The embedding bento and the gateway, for all tests."""
    with running_stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack
        # Now, while their warnings are known: what clients left open is found here and not as pytest ends.
        gc.collect()


@pytest.fixture(scope="session")
def url(stack: RunningStack) -> str:
    """Base URL of the gateway."""
    return stack.url


@pytest.fixture(scope="session")
def plain(url: str) -> PlainHTTP:
    """What the gateway answers without a client between."""
    return PlainHTTP(url)


@pytest.fixture(scope="session")
def _cl100k_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache for tiktoken, with the vocabulary that the gateway ships."""
    code = (
        "import sys; from gateway.apis.openai.cl100k import vocabulary;"
        "from gateway.apis.openai.cl100k.pack import published_form;"
        "sys.stdout.buffer.write(published_form(vocabulary().tokens()))"
    )
    published = subprocess.run([str(GATEWAY_PYTHON), "-c", code], cwd=ROOT, capture_output=True, check=True).stdout
    folder = tmp_path_factory.mktemp("tiktoken")
    (folder / hashlib.sha1(CL100K_URL.encode(), usedforsecurity=False).hexdigest()).write_bytes(published)
    return str(folder)


@pytest.fixture
def cl100k(_cl100k_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """tiktoken reads cl100k_base from disk; it checks the sha256 itself, and would else download."""
    import tiktoken.registry

    # litellm and llama-index point tiktoken at separate copies when they are imported.
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", _cl100k_folder)
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})


@pytest.fixture(scope="session")
def litellm_has_asked_huggingface(network: NetworkWatch) -> None:
    """litellm has looked for the default model at huggingface.co, as it does once to know what `huggingface/` costs.

    It does without an answer. Done here, because it also asks from threads that outlive a test.
    """
    import litellm

    for model in (MODEL, f"huggingface/{MODEL}"):
        litellm.get_model_info(model=model, custom_llm_provider="huggingface")
    assert set(network.strangers) == {"huggingface.co"}
    network.strangers.clear()
