"""Admission control of the batcher."""

from __future__ import annotations

import pytest

from bentos.serving.batching import BatchingSettings
from bentos.serving.batching.admission import Admission, DrainRate
from torchless.contracts.errors import ErrorKind, TorchlessError


def admission(**settings: int) -> Admission:
    return Admission(BatchingSettings.model_validate(settings))


def test_nearly_full_queue_admits_only_requests_known_to_fit() -> None:
    nearly_full = admission(max_waiting_tokens=1600)
    nearly_full.admit(1500)
    nearly_full.refuse_if_full()  # a sixteenth is free
    nearly_full.admit(1)
    with pytest.raises(TorchlessError) as caught:
        nearly_full.refuse_if_full()
    assert caught.value.kind is ErrorKind.OVERLOADED
    assert caught.value.retry_after_s is not None
    nearly_full.admit(99)
    assert nearly_full.tokens == 1600
    nearly_full.release_tokens(100)
    nearly_full.refuse_if_full()


@pytest.mark.parametrize("most", [2, 15, 16])
def test_smallest_capacity_admits_a_request(most: int) -> None:
    small = admission(max_waiting_tokens=most)
    small.refuse_if_full()
    small.admit(most)


def test_admission_limits_waiting_requests() -> None:
    one = admission(max_waiting_requests=1)
    one.admit(1)
    with pytest.raises(TorchlessError) as caught:
        one.refuse_if_full()
    assert caught.value.kind is ErrorKind.OVERLOADED
    one.release_request()
    one.refuse_if_full()


def test_first_batch_does_not_count_for_the_drain_rate() -> None:
    rate = DrainRate()
    rate.observe(6, 30.0)
    assert rate.seconds_for(1000) == 0
    rate.observe(1000, 0.5)
    assert rate.seconds_for(1000) == pytest.approx(0.5)
    rate.observe(1000, 1.0)
    assert 0.5 < rate.seconds_for(1000) < 1.0
