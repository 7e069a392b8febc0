"""The cost of a body follows its size, whatever it holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.apis.cohere import schemas as cohere
from gateway.apis.openai import schemas as openai
from gateway.apis.tei import schemas as tei
from gateway.http.exceptions import MalformedRequestError
from gateway.http.json_body import MAX_CONTAINERS, MAX_VALUES, parse
from torchless.contracts.errors import TorchlessError

MIB = 2**20
BODIES = {
    "similarity": ("tei.SimilarityRequest", '{"inputs":{"source_sentence":"a","sentences":[', "1,", "1]}}"),
    "embed": ("tei.EmbedRequest", '{"inputs":["a",', "1,", "1]}"),
    "decode": ("tei.DecodeRequest", '{"ids":[', '"a",', "1]}"),
    "texts": ("cohere.EmbedV1Request", '{"texts":[', "1,", "1]}"),
    "mixed inputs": ("cohere.EmbedV2Request", '{"inputs":[', "1,", "1]}"),
    "content": ("cohere.EmbedV2Request", '{"inputs":[{"content":[', "1,", "1]}]}"),
    "many contents": ("cohere.EmbedV2Request", '{"inputs":[', '{"content":[]},', '{"content":[]}]}'),
    "types": ("cohere.EmbedV2Request", '{"texts":["a"],"embedding_types":[', "1,", "1]}"),
    "repeated types": ("cohere.EmbedV2Request", '{"texts":["a"],"embedding_types":[', '"int8",', '"int8"]}'),
    "numbers and a text": ("openai.EmbeddingsRequest", '{"input":[', "1,", '"a"]}'),
    "texts and a number": ("openai.EmbeddingsRequest", '{"input":[', '"a",', "1]}"),
    "empty lists": ("openai.EmbeddingsRequest", '{"input":[', "[],", "1]}"),
    "documents": ("single.RerankRequest", '{"query":"a","documents":["a",', "1,", "1]}"),
    "documents as objects": ("single.RerankRequest", '{"query":"a","documents":[', '{"text":1},', "1]}"),
    "told apart": ("rerank.RerankRequest", '{"query":"a","documents":[', "1,", "1]}"),
    "pairs": ("vllm.ScoreRequest", '{"text_1":["a",', "1,", "1]}"),
    "lists of texts": ("openai.EmbeddingsRequest", '{"input":[', '["a"],', "1]}"),
}
# ru_maxrss of a new process may start at that of its parent; what the process holds is what counts.
SCRIPT = """
import resource, sys
from pathlib import Path
from gateway.http.json_body import BodyVariant, parse, several
from gateway.apis.cohere import schemas as cohere
from gateway.apis.openai import schemas as openai
from gateway.apis.rerank import schemas as rerank
from gateway.apis.rerank import schemas as single
from gateway.apis.tei import schemas as tei
from gateway.apis.vllm import schemas as vllm
from torchless.contracts.errors import TorchlessError

def peak_kib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

module, _, name = sys.argv[1].partition(".")
head, item, tail = (part.encode() for part in sys.argv[2:5])
model = getattr(globals()[module], name)
raw = bytearray(head)
raw += item * (int(sys.argv[5]) // len(item))
raw += tail
raw = bytes(raw)
before = peak_kib()
try:
    if module == "rerank":
        several({"documents": BodyVariant(None, model, None, {}, None)})(raw).validated()
    else:
        parse(model, raw)
except TorchlessError as error:
    print(len(error.violations), len(error.message), (peak_kib() - before) // 1024)
"""


@pytest.mark.parametrize("size_mib", [2, 32])
@pytest.mark.parametrize("case", BODIES)
def test_refused_bodies_cost_at_most_96_mib_and_twice_their_size(case: str, size_mib: int) -> None:
    command = [sys.executable, "-c", SCRIPT, *BODIES[case], str(size_mib * MIB)]
    ran = subprocess.run(command, cwd=Path(__file__).parents[4], capture_output=True, text=True, timeout=60, check=True)
    violations, length, grown_mib = map(int, ran.stdout.split())
    assert violations == 1
    assert length < 200
    assert grown_mib < 96 + 2 * size_mib


def test_brackets_in_texts_are_not_counted_as_lists() -> None:
    text = '[{\\"' * MAX_CONTAINERS
    assert parse(tei.EmbedRequest, f'{{"inputs":"{text}"}}'.encode()).inputs == text.replace("\\", "")


def test_unterminated_string_is_malformed() -> None:
    with pytest.raises(MalformedRequestError):
        parse(tei.EmbedRequest, b'{"inputs":"' + b'\\"[' * (2 * MAX_CONTAINERS))


def test_lists_up_to_the_limit_are_accepted() -> None:
    lists = b",".join([b"[1]"] * (MAX_CONTAINERS - 2))
    assert len(parse(openai.EmbeddingsRequest, b'{"input":[' + lists + b"]}").input) == MAX_CONTAINERS - 2
    with pytest.raises(TorchlessError, match="lists and objects"):
        parse(openai.EmbeddingsRequest, b'{"input":[[1],' + lists + b"]}")


def test_commas_in_texts_are_not_counted_as_values() -> None:
    text = "," * (MAX_VALUES + 2)
    assert parse(tei.EmbedRequest, f'{{"inputs":"{text}"}}'.encode()).inputs == text
    with pytest.raises(TorchlessError, match="values"):
        parse(tei.EmbedRequest, b'{"inputs":[' + b"1," * (MAX_VALUES + 1) + b"1]}")


def test_each_embedding_type_may_occur_once() -> None:
    body = '{"texts":["a"],"embedding_types":["float","int8","uint8","binary","ubinary","base64"]}'
    assert len(parse(cohere.EmbedV2Request, body.encode()).embedding_types) == 6
