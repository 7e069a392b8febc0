"""Renders an OpenAPI document as one HTML page: each route, its fields, and requests to paste into a shell.

Swagger's page loads its script from a public network, which a gateway in a closed network cannot reach.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from shlex import quote
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h2 { margin-top: 2.5rem; font-size: 1.15rem; font-family: ui-monospace, monospace }
pre { background: #f4f4f4; padding: .8rem; overflow-x: auto; font-size: .85rem }
table { border-collapse: collapse } td { padding: .2rem 1rem .2rem 0; vertical-align: top }
"""


def docs_page(document: Mapping[str, Any], base_url: str) -> str:
    """The page for `document`; the requests on it go to `base_url`."""
    info = document["info"]
    sections = "".join(
        _section(document, path, method, operation, base_url)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(info['title'])}</title>"
        f"<style>{_STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"<p>{escape(info['description'])} For programs: <a href='/openapi.json'>openapi.json</a>.</p>{sections}</html>"
    )


def _section(document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any], base_url: str) -> str:
    statuses = ", ".join(f"{status} {escape(r['description'])}" for status, r in operation["responses"].items())
    return (
        f"<h2>{method.upper()} {escape(path)}</h2><p><b>{escape(operation.get('summary', ''))}.</b> "
        f"{escape(operation.get('description', ''))}</p>{_fields(document, operation)}"
        f"{''.join(_requests(path, method, operation, base_url))}<p>Answers: {statuses}.</p>"
    )


def _fields(document: Mapping[str, Any], operation: Mapping[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return ""
    return "<p>Or:</p>".join(
        _table(document, form["$ref"]) for form in content["schema"].get("anyOf", [content["schema"]])
    )


def _table(document: Mapping[str, Any], reference: str) -> str:
    properties = document["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code></td><td>{escape(about.get('description', ''))}</td></tr>"
        for field, about in properties.items()
    )
    return f"<table>{rows}</table>"


def _requests(path: str, method: str, operation: Mapping[str, Any], base_url: str) -> Iterator[str]:
    if "requestBody" not in operation:
        verb = "" if method == "get" else f"-X {method.upper()} "
        yield f"<pre>curl {verb}{escape(base_url + path)}</pre>"
        return
    for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
        body = quote(json.dumps(example["value"], ensure_ascii=False))
        command = f"curl {base_url}{path} -H 'content-type: application/json' -d {body}"
        yield f"<p>{escape(example['summary'])}</p><pre>{escape(command)}</pre>"
