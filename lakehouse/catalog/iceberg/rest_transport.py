"""How requests to a REST catalog travel: with a limit of time, and back without what a careless server repeats.

Texts of errors end up in logs and in what Dagster keeps of a run. Some servers write into them what they were shown,
tokens included, which no list of our settings knows.
"""

import io
import json
import re
from http import HTTPStatus
from typing import Any

import requests
from requests.adapters import HTTPAdapter

TIMEOUT_S = 60.0
_FIRST_ERROR = 400
_TYPE = re.compile(r"[A-Za-z]{1,60}(Exception|Error)")


class CatalogTransport(HTTPAdapter):
    """Of an error that the server answers with, only status and type come through (REST API, `ErrorModel`)."""

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: dict[str, str] | None = None,
    ) -> requests.Response:
        answer = super().send(request, stream, timeout or TIMEOUT_S, verify, cert, proxies)
        return answer if answer.status_code < _FIRST_ERROR else _without_texts(answer)


def _without_texts(answer: requests.Response) -> requests.Response:
    status = answer.status_code
    error = {"message": f"HTTP status {status}", "type": _error_type(answer), "code": status}
    bare = requests.Response()
    bare.status_code, bare.url, bare.request = status, answer.url, answer.request
    bare.reason = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    bare.raw = io.BytesIO(json.dumps({"error": error}).encode())
    return bare


def _error_type(answer: requests.Response) -> str:
    try:
        kind = str(answer.json()["error"]["type"])
    except (requests.JSONDecodeError, KeyError, TypeError):
        return "error"
    return kind if _TYPE.fullmatch(kind) else "error"
