"""Metrics for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from gateway.http.metrics import CONTENT_TYPE, Instruments

router = APIRouter(tags=["operation"])


@router.get("/metrics", response_class=PlainTextResponse, summary="Metrics in Prometheus' text format")
async def metrics(request: Request) -> Response:
    """Requests, their durations and those in flight, of all workers."""
    instruments: Instruments = request.app.state.instruments
    return Response(instruments.exposition(), media_type=CONTENT_TYPE)
