"""What an entry is found by."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchless.clients.cache.entry import Entry, ModelRevision, Scope, Scopes, UncacheableInputError, pack, unpack
from torchless.clients.embedding import EmbedOptions, InputType, Truncation

MODEL = ModelRevision("m", "r")
OPTIONS = EmbedOptions()
DIFFERENT = [
    ("a", MODEL, OPTIONS),
    ("b", MODEL, OPTIONS),
    ("", MODEL, OPTIONS),
    ("a", ModelRevision("m", "s"), OPTIONS),
    ("a", ModelRevision("n", "r"), OPTIONS),
    ("a", ModelRevision("mr", ""), OPTIONS),
    ("am", ModelRevision("", "r"), OPTIONS),
    ("a", MODEL, replace(OPTIONS, input_type=InputType.QUERY)),
    ("a", MODEL, replace(OPTIONS, input_type=InputType.DOCUMENT)),
    ("a", MODEL, replace(OPTIONS, prompt_name="query")),
    ("a", MODEL, replace(OPTIONS, normalize=False)),
    ("a", MODEL, replace(OPTIONS, dimensions=8)),
    ("a", MODEL, replace(OPTIONS, truncation=Truncation.LEFT)),
    ("a", MODEL, replace(OPTIONS, truncation=Truncation.NONE)),
]


def test_digest_depends_on_everything_that_decides_a_vector() -> None:
    found = [Scope(*each).digests(given)[0] for each in DIFFERENT for given in (["text"], [[1, 2]], ["textt"], [[1]])]
    assert len(set(found)) == len(found)
    assert all(len(each) == 32 for each in found)


def test_texts_and_token_ids_have_different_digests() -> None:
    scope = Scope("a", MODEL, OPTIONS)
    assert scope.digests(["\x01\x00\x00\x00"]) != scope.digests([[1]])


def test_digest_uses_the_model_id_and_the_prompt_name() -> None:
    scope = Scope("a", MODEL, OPTIONS)
    assert scope.digests(["x"]) == Scope("a", MODEL, replace(OPTIONS, model="m")).digests(["x"])
    by_name = [Scope("a", MODEL, replace(OPTIONS, prompt_name="p", input_type=each)) for each in InputType]
    assert len({each.digests(["x"])[0] for each in by_name}) == 1


@given(st.tuples(*[st.text(max_size=3)] * 4), st.tuples(*[st.text(max_size=3)] * 4))
def test_parts_of_a_digest_never_overlap(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    def digest(tenant: str, model: str, revision: str, prompt: str) -> bytes:
        return Scope(tenant, ModelRevision(model, revision), EmbedOptions(prompt_name=prompt)).digests(["x"])[0]

    assert (digest(*one) == digest(*other)) is (one == other)


@pytest.mark.parametrize("inputs", [["a", 3], [[1], [-1]], [[2**32]], [["1"]], [None], ["a", [1]]])
def test_invalid_inputs_have_no_key(inputs: list[object]) -> None:
    with pytest.raises(UncacheableInputError):
        Scope("a", MODEL, OPTIONS).digests(inputs)  # type: ignore[arg-type]


def test_scopes_are_reused_and_bounded() -> None:
    scopes = Scopes()
    first = scopes.of("a", MODEL, OPTIONS)
    assert scopes.of("a", MODEL, OPTIONS) is first
    for number in range(5000):
        scopes.of(str(number), MODEL, OPTIONS)
    assert len(scopes._scopes) <= 1024


entries = st.builds(
    Entry, st.binary(min_size=4, max_size=64).map(lambda raw: raw[: len(raw) // 4 * 4]), st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1), st.booleans(),
)  # fmt: skip


@given(entries, st.binary(min_size=1))
def test_packed_entry_unpacks_to_the_same(entry: Entry, key: bytes) -> None:
    assert unpack(pack(entry, key), key) == entry


@given(entries, st.data())
def test_unpacking_detects_any_changed_byte(entry: Entry, data: st.DataObject) -> None:
    value = bytearray(pack(entry, b"key"))
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    assert unpack(bytes(value), b"key") is None


@given(entries)
def test_truncated_value_or_value_of_another_key_is_detected(entry: Entry) -> None:
    value = pack(entry, b"key")
    assert unpack(value, b"other") is None
    assert all(unpack(value[:length], b"key") is None for length in range(len(value)))
    assert unpack(value + bytes(4), b"key") is None


@pytest.mark.parametrize("value", [None, "text", 3, b"", b"tle1", b"foreign value of some length...."])
def test_invalid_value_is_no_entry(value: object) -> None:
    assert unpack(value, b"key") is None


def test_scopes_with_very_long_names_are_not_kept() -> None:
    scopes, model = Scopes(), ModelRevision("m", "r")
    for field in ("model", "prompt_name"):
        long = EmbedOptions(**{field: "x" * 10_000})  # type: ignore[arg-type]
        assert scopes.of("t", model, long) is not scopes.of("t", model, long)
        assert scopes.of("t", model, long).digests(["a"]) == scopes.of("t", model, long).digests(["a"])
