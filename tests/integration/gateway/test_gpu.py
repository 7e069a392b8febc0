"""The GPU routes, in front of the real GPU service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.fake_gpu_driver import GIB, device
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.gpu_server import GPUServer
from tests.waiting import wait_until

pytestmark = pytest.mark.filterwarnings("error")
WANTED = {"memory_mb": 4 * GIB, "holder": "trainer"}


def allocate(http: httpx.Client, **more: Any) -> httpx.Response:
    return http.post("/v1/gpu/allocations", json={**WANTED, **more})


def error_of(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def events(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in answer.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def test_status_and_devices_are_answered(http: httpx.Client) -> None:
    status = http.get("/v1/gpu/status")
    assert status.status_code == 200
    assert (status.json()["available"], status.json()["unavailable_reason"]) == (True, "")
    assert (status.json()["driver_version"], status.json()["cuda_version"]) == ("1.2.3", "12.8")
    devices = http.get("/v1/gpu/devices").json()["devices"]
    assert [(each["uuid"], each["memory_total_mb"]) for each in devices] == [("GPU-a", 10 * GIB), ("GPU-b", 20 * GIB)]
    assert status.json()["devices"] == devices
    assert devices[0]["temperature_c"] is None, "what is not told is null, not zero"


def test_a_lease_is_made_renewed_and_released(http: httpx.Client) -> None:
    made = allocate(http, ttl_s=60, pid=4242)
    assert made.status_code == 200
    lease = made.json()
    assert [each["uuid"] for each in lease["devices"]] == ["GPU-a"], "the device that fits best"
    assert (lease["holder"], lease["tenant"], lease["state"], lease["pid"]) == ("trainer", "", "active", 4242)
    assert lease["expires"] - lease["created"] == pytest.approx(60, abs=0.1)
    assert [each["id"] for each in http.get("/v1/gpu/status").json()["allocations"]] == [lease["id"]]
    renewed = http.post(f"/v1/gpu/allocations/{lease['id']}/renew", json={"ttl_s": 600})
    assert renewed.json()["expires"] > lease["expires"] + 500
    as_before = http.post(f"/v1/gpu/allocations/{lease['id']}/renew", json={})
    assert as_before.json()["expires"] >= renewed.json()["expires"]
    released = http.delete(f"/v1/gpu/allocations/{lease['id']}")
    assert (released.status_code, released.json()["id"]) == (200, lease["id"])
    assert http.get("/v1/gpu/status").json()["allocations"] == []


def test_exclusive_lease_takes_several_devices(http: httpx.Client) -> None:
    lease = allocate(http, device_count=2, exclusive=True).json()
    assert {each["uuid"] for each in lease["devices"]} == {"GPU-a", "GPU-b"}
    full = allocate(http, memory_mb=1)
    assert (full.status_code, error_of(full)["code"]) == (429, "overloaded")
    assert int(full.headers["retry-after"]) >= 1


def test_the_same_key_is_the_same_lease(http: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: allocate(http, idempotency_key="k1").json()["id"], range(24)))
    assert len(set(made)) == 1
    other = allocate(http, idempotency_key="k1", memory_mb=1)
    assert (other.status_code, error_of(other)["code"]) == (409, "already_exists")


def test_many_callers_never_get_more_than_there_is(http: httpx.Client) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: allocate(http, memory_mb=3 * GIB), range(40)))
    made = [answer for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} == {200, 429}
    # 9.5 and 19.5 GiB, three at a time.
    assert len(made) == 3 + 6


def test_without_a_gpu_the_truth_is_told(http: httpx.Client, gpu: GPUServer) -> None:
    gpu.driver.missing = "there is no driver here"
    gpu.settle(uuids=set())
    status = http.get("/v1/gpu/status")
    assert status.status_code == 200
    assert status.json()["available"] is False
    assert "there is no driver here" in status.json()["unavailable_reason"]
    assert http.get("/v1/gpu/devices").json() == {"devices": []}
    refused = allocate(http)
    assert (refused.status_code, error_of(refused)["code"]) == (503, "gpu_unavailable")
    assert http.get("/health/ready").status_code == 200, "the service is there, and says so"
    gpu.reset()
    gpu.settle(uuids={"GPU-a", "GPU-b"})
    assert allocate(http).status_code == 200


def test_a_gpu_that_falls_off_the_bus_takes_its_leases_along(http: httpx.Client, gpu: GPUServer) -> None:
    lost, kept = allocate(http).json(), allocate(http, device_uuids=["GPU-b"]).json()
    gpu.driver.devices = gpu.driver.devices[1:]
    gpu.settle(uuids={"GPU-b"})
    leases = {each["id"]: each for each in http.get("/v1/gpu/status").json()["allocations"]}
    assert (leases[lost["id"]]["state"], leases[kept["id"]]["state"]) == ("lost", "active")
    renewed = http.post(f"/v1/gpu/allocations/{lost['id']}/renew", json={})
    assert (renewed.status_code, error_of(renewed)["code"]) == (503, "gpu_unavailable")
    assert http.delete(f"/v1/gpu/allocations/{lost['id']}").status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"memory_mb": -1}, 400, "memory_mb"),
        ({"memory_mb": 0}, 400, "memory_mb"),
        ({"memory_mb": 2**63}, 400, "memory_mb"),
        ({"memory_mb": 1.5}, 400, "memory_mb"),
        ({"memory_mb": "100"}, 400, "memory_mb"),
        ({"memory_mb": None}, 400, "memory_mb"),
        ({"memory_mb": 19 * GIB + 513}, 413, "memory_mb"),
        ({"holder": ""}, 400, "holder"),
        ({"holder": "x" * 257}, 400, "holder"),
        ({"holder": "\ud800"}, 400, None),
        ({"ttl_s": 0.01}, 400, "ttl_s"),
        ({"ttl_s": -1}, 400, "ttl_s"),
        ({"ttl_s": 1e12}, 400, "ttl_s"),
        ({"device_count": 0}, 400, "device_count"),
        ({"device_count": 3}, 413, "device_count"),
        ({"pid": 0}, 400, "pid"),
        ({"device_uuids": "GPU-a"}, 400, "device_uuids"),
        ({"device_uuids": ["GPU-z"]}, 404, None),
    ],
    ids=repr,
)
def test_bad_input_is_named_and_costs_nothing(
    http: httpx.Client, body: dict[str, Any], status: int, param: str | None
) -> None:
    answer = http.post(
        "/v1/gpu/allocations", content=json.dumps({**WANTED, **body}), headers={"content-type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert param is None or error_of(answer)["param"].startswith(param)
    assert http.get("/v1/gpu/status").json()["allocations"] == []
    assert allocate(http).status_code == 200


def test_unknown_expired_and_released_leases_are_not_found(http: httpx.Client) -> None:
    expired, released = allocate(http, ttl_s=0.2).json()["id"], allocate(http).json()["id"]
    http.delete(f"/v1/gpu/allocations/{released}")
    wait_until(lambda: http.get("/v1/gpu/status").json()["allocations"] == [], "the lease has expired")
    for lease, code in (("nobodys", "not_found"), (expired, "expired"), (released, "released")):
        for answer in (
            http.post(f"/v1/gpu/allocations/{lease}/renew", json={}),
            http.delete(f"/v1/gpu/allocations/{lease}"),
        ):
            assert (answer.status_code, error_of(answer)["code"]) == (404, code)
    nan = http.post("/v1/gpu/allocations/nobodys/renew", content=b'{"ttl_s": NaN}')
    assert (nan.status_code, error_of(nan)["param"]) == (400, "ttl_s")


def test_watch_tells_of_changes_as_they_come(http: httpx.Client, gpu: GPUServer) -> None:
    with http.stream("GET", "/v1/gpu/watch", params={"interval_s": 60}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        told = events(answer)
        name, first = next(told)
        assert (name, first["events"], len(first["status"]["devices"])) == ("status", [], 2)
        lease = allocate(http).json()
        name, update = next(told)
        assert [(each["kind"], each["allocation_id"]) for each in update["events"]] == [("allocated", lease["id"])]
        assert [each["id"] for each in update["status"]["allocations"]] == [lease["id"]]
        gpu.driver.devices = [device("GPU-b", total_mb=20 * GIB)]
        kinds: list[str] = []
        while "allocation_lost" not in kinds:
            kinds += [each["kind"] for each in next(told)[1]["events"]]
        assert "device_lost" in kinds


def test_watch_comes_at_every_interval(http: httpx.Client) -> None:
    with http.stream("GET", "/v1/gpu/watch?interval_s=0.05") as answer:
        told = events(answer)
        assert [next(told)[0] for _ in range(4)] == ["status"] * 4


@pytest.mark.parametrize("given", ["x", "nan", "inf", "-1", "0.001", "", "1_0", "\uff11\uff10"])
def test_watch_refuses_what_is_no_interval(http: httpx.Client, given: str) -> None:
    answer = http.get("/v1/gpu/watch", params={"interval_s": given})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "interval_s")


def test_watch_ends_at_the_service_when_the_caller_leaves(http: httpx.Client) -> None:
    # More than may watch at once, one after another.
    for _ in range(70):
        with http.stream("GET", "/v1/gpu/watch") as answer:
            assert answer.status_code == 200
            next(events(answer))


def test_routes_answer_503_without_the_service(gateway: Gateway, free_address: str) -> None:
    with gateway(gpu={"address": free_address}) as http:
        for path in ("/v1/gpu/status", "/v1/gpu/devices", "/v1/gpu/watch"):
            answer = http.get(path)
            assert (answer.status_code, error_of(answer)["code"]) == (503, "service_unavailable")
            assert free_address not in answer.text
    with gateway() as http:
        answer = http.get("/v1/gpu/status")
        assert (answer.status_code, error_of(answer)["code"]) == (503, "service_unavailable")
        assert "gpu.address" in error_of(answer)["message"]
