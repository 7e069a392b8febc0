"""The headers that Torchless adds to every API: what a request may send, and what a response says.

A request sends `traceparent` (W3C trace context) and `x-request-timeout-s`, its deadline in seconds from its arrival;
services get what is left of it. A response says what the cache gave in `x-torchless-cache` (`hit`, `partial` or
`miss`), which fingerprint decided its vectors or scores in `x-torchless-revision`, names in `x-torchless-degraded` the
capabilities that were unavailable and that the answer does without, and counts in `x-torchless-truncated` the inputs
that were longer than the model reads and were truncated.
"""

from __future__ import annotations

import math

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Scope

from gateway.capabilities.request import Provenance, RequestContext
from gateway.http.exceptions import malformed
from gateway.settings import LimitSettings
from torchless.clients.call import TRACEPARENT_KEY
from torchless.clients.deadline import Deadline
from torchless.telemetry.request_log import trace_id

TIMEOUT_HEADER = "x-request-timeout-s"
MIN_TIMEOUT_S = 0.001
CACHE_HEADER = "x-torchless-cache"
DEGRADED_HEADER = "x-torchless-degraded"
TRUNCATED_HEADER = "x-torchless-truncated"
REVISION_HEADER = "x-torchless-revision"


def request_context(scope: Scope, limits: LimitSettings, default_s: float, tenant: str) -> RequestContext:
    """The context of the request in `scope`, arriving now.

    Args:
        scope: The request.
        limits: The longest deadline.
        default_s: Deadline of a request that sets none, in seconds.
        tenant: The tenant of its principal.

    Raises:
        MalformedRequestError: `x-request-timeout-s` is not a number of seconds from `MIN_TIMEOUT_S`.
    """
    headers = Headers(scope=scope)
    traceparent = headers.get(TRACEPARENT_KEY, "")
    timeout = headers.get(TIMEOUT_HEADER)
    seconds = default_s if timeout is None else read_seconds(TIMEOUT_HEADER, timeout, least=MIN_TIMEOUT_S)
    return RequestContext(
        request_id=scope["state"]["request_id"],
        traceparent=traceparent if trace_id(traceparent) else "",
        deadline=Deadline.after(min(seconds, limits.max_deadline_s)),
        tenant=tenant,
    )


def read_seconds(name: str, given: str, *, least: float = -math.inf, finite: bool = False) -> float:
    """The number of seconds in a header or a query parameter.

    Args:
        name: Name of the header or the parameter.
        given: Its value: the number in ASCII, without underscores.
        least: The smallest number that is accepted.
        finite: Whether infinity is refused.

    Raises:
        MalformedRequestError: It is not a number, or not one that is accepted.
    """
    seconds = _number(given)
    if not seconds >= least or (finite and math.isinf(seconds)):
        wanted = "must be a number of seconds" + ("" if math.isinf(least) else f" from {least}")
        raise malformed(name, f"{wanted}, such as 2.5")
    return seconds


def _number(given: str) -> float:
    """NaN if it is not a number. Python would also read 1_0 and digits of every script, which are more likely typos."""
    if "_" in given or not given.isascii():
        return math.nan
    try:
        return float(given)
    except ValueError:
        return math.nan


def write_provenance_headers(provenance: Provenance, headers: MutableHeaders) -> None:
    """Adds the headers for `provenance`; none, where there is nothing to say."""
    if result := provenance.cache_result:
        headers[CACHE_HEADER] = result
    if provenance.revision:
        headers[REVISION_HEADER] = provenance.revision
    if provenance.degraded:
        headers[DEGRADED_HEADER] = ", ".join(provenance.degraded)
    if provenance.truncated:
        headers[TRUNCATED_HEADER] = str(provenance.truncated)
