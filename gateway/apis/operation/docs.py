"""The API's description as a page that needs no network and no script."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from gateway.http.docs_page import docs_page

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Every route with its fields and requests to try."""
    return HTMLResponse(docs_page(request.app.openapi(), str(request.base_url).rstrip("/")))


@router.get("/")
async def root() -> Response:
    """Leads to the description."""
    return RedirectResponse("/docs")
