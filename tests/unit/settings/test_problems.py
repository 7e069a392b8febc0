"""What is said about wrong settings: the place, the setting and what to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from bentos.embedding.settings import EmbeddingSettings
from bentos.reranking.settings import RerankingSettings
from gateway.settings import GatewaySettings
from torchless.settings import ProgramSettings
from torchless.settings.check import faults


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, where messages show files by their names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(
    settings: type[ProgramSettings], monkeypatch: pytest.MonkeyPatch, content: str | None = None, **environment: str
) -> list[str]:
    """The sentences about `settings.yaml` with this content, and variables without their prefix."""
    if content is not None:
        Path("settings.yaml").write_text(content)
        monkeypatch.setenv(f"{settings.env_prefix}CONFIG", "settings.yaml")
    for name, value in environment.items():
        monkeypatch.setenv(f"{settings.env_prefix}{name}", value)
    return list(faults(settings))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "# limits of requests\nlimits:\n  body_mib: 1\n  itmes: 5\n",
            "settings.yaml, line 4: limits.itmes is not a setting; did you mean limits.items?",
        ),
        (
            "limts:\n  items: 5\n",
            "settings.yaml, line 1: limts is not a setting; did you mean limits?",
        ),
        (
            # A right name at the wrong indentation.
            "limits:\n  body_mib: 1\nbodies_mib: 9\n",
            "settings.yaml, line 3: bodies_mib is not a setting; did you mean limits.bodies_mib?",
        ),
        (
            "auth:\n  api_keys:\n    - key: a-long-key\n      tenent: acme\n",
            "settings.yaml, line 4: auth.api_keys.0.tenent is not a setting; did you mean auth.api_keys.0.tenant?",
        ),
        (
            "clients:\n  zebra: 1\n",
            "settings.yaml, line 2: clients.zebra is not a setting",
        ),
        (
            "limits:\n  items: many\n",
            "settings.yaml, line 2: limits.items should be a valid integer, unable to parse string as an integer",
        ),
        (
            "limits: {items: 5,\n  deadline_s: 0}\n",
            "settings.yaml, line 2: limits.deadline_s should be greater than 0",
        ),
        (
            "limits:\n  body_mib: 32\n  bodies_mib: 1\n",
            "settings.yaml, line 1: limits: bodies_mib is less than body_mib; the largest body would never fit",
        ),
        (
            "auth:\n  api_keys:\n    - name: ann\n",
            "settings.yaml, line 3: auth.api_keys.0.key is required",
        ),
        (
            "limits:\n  items: 5\n\titems: 6\n",
            "settings.yaml, line 3, column 1: the file is not YAML",
        ),
        ("- 1\n", "settings.yaml: the file is not a mapping of setting names to values"),
        (
            "limits:\n  items: 5\nworkers: 1\nlimits:\n  body_mib: 1\n",
            "settings.yaml, line 4: limits is set twice",
        ),
        ("models: {aliases: {a: b, c: d, a: e}}\n", "settings.yaml, line 1: a is set twice"),
    ],
)
def test_a_fault_in_the_file_is_one_sentence_with_its_line(
    content: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(GatewaySettings, monkeypatch, content) == [sentence]


@pytest.mark.usefixtures("folder")
def test_all_faults_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    content = "models:\n  - id: a/b\n    device: gpu\n    dtyp: float16\nbatching:\n  max_items: 0\n"

    assert found(EmbeddingSettings, monkeypatch, content, TOKENIZER_THREADS="none") == [
        "settings.yaml, line 3: models.0.device should match pattern '^(cpu|cuda(:\\d+)?)$'",
        "settings.yaml, line 4: models.0.dtyp is not a setting; did you mean models.0.dtype?",
        "settings.yaml, line 6: batching.max_items should be greater than or equal to 1",
        "TORCHLESS_EMBEDDING_TOKENIZER_THREADS in the environment: tokenizer_threads should be a valid integer, "
        "unable to parse string as an integer",
    ]


@pytest.mark.usefixtures("folder")
def test_a_fault_of_the_whole_file_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    (sentence,) = found(RerankingSettings, monkeypatch, "models:\n  - {id: a/b}\n  - {id: a/b}\n")

    assert sentence == "settings.yaml: models: two have the same id"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (
            {"LIMITS__ITEMS": "0"},
            "TORCHLESS_GATEWAY_LIMITS__ITEMS in the environment: limits.items should be greater than or equal to 1",
        ),
        (
            {"LIMITS__ITMES": "1"},
            "TORCHLESS_GATEWAY_LIMITS__ITMES in the environment: limits.itmes is not a setting; "
            "did you mean limits.items?",
        ),
        (
            {"LIMITS": '{"items": 0}'},
            "TORCHLESS_GATEWAY_LIMITS in the environment: limits.items should be greater than or equal to 1",
        ),
        (
            {"LIMITS__BODIES_MIB": "1"},
            "TORCHLESS_GATEWAY_LIMITS__BODIES_MIB in the environment: limits: bodies_mib is less than body_mib; "
            "the largest body would never fit",
        ),
        (
            # pydantic-settings ignores it.
            {"LIMTS__ITEMS": "1"},
            "TORCHLESS_GATEWAY_LIMTS__ITEMS in the environment is not a setting; "
            "did you mean TORCHLESS_GATEWAY_LIMITS__ITEMS?",
        ),
        (
            {"MODELS__ALIASES": "none"},
            "TORCHLESS_GATEWAY_MODELS__ALIASES in the environment is not JSON; write lists and tables as JSON",
        ),
    ],
)
def test_a_fault_in_the_environment_names_the_variable(
    environment: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(GatewaySettings, monkeypatch, "workers: 1\n", **environment) == [sentence]


@pytest.mark.usefixtures("folder")
def test_a_variable_over_the_file_is_named_where_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    content = "limits:\n  items: many\n  documents: none\n"

    assert found(GatewaySettings, monkeypatch, content, LIMITS__ITEMS="5") == [
        "settings.yaml, line 3: limits.documents should be a valid integer, unable to parse string as an integer"
    ]


@pytest.mark.usefixtures("folder")
def test_variables_that_are_no_settings_and_resemble_none_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # The command's variable for the URL, and what Kubernetes sets for a service of this name.
    assert found(GatewaySettings, monkeypatch, None, URL="http://gateway", SERVICE_HOST="10.0.0.1", PORT="tcp") == []


@pytest.mark.usefixtures("folder")
def test_no_value_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = found(GatewaySettings, monkeypatch, "auth:\n  api_keys: [secret, 'secret value ']\n", WORKERS="secret")

    assert len(shown) == 3
    assert "secret" not in "".join(shown)
