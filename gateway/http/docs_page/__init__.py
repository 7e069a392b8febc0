"""The documentation page: shows the OpenAPI document, and sends requests.

Swagger's page loads its script from a public network, which a gateway in a closed network cannot reach. This page is
one response: `page.html` with `page.css` and `page.js` inside. The script reads `openapi.json`, and builds the page
from it as text, so that nothing in the document becomes markup.
"""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path

from starlette.responses import HTMLResponse, Response

_FOLDER = Path(__file__).parent


@cache
def _page() -> tuple[str, dict[str, str]]:
    """The page, and its headers. Its policy allows its own style and script, by their hashes, and no other."""
    style, script, frame = ((_FOLDER / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js", "html"))
    policy = {
        "default-src": "'none'",
        "style-src": _hash(style),
        "script-src": _hash(script),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    headers = {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }
    return frame.replace("{style}", style).replace("{script}", script), headers


def docs_page() -> Response:
    """The page."""
    content, headers = _page()
    return HTMLResponse(content, headers=headers)


def _hash(source: str) -> str:
    """How a Content-Security-Policy names an inline style or script."""
    return f"'sha256-{b64encode(sha256(source.encode()).digest()).decode()}'"
