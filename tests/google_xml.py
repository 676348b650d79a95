"""Writes by Google's XML API, as LanceDB sends them, for fake-gcs-server, which takes them by the JSON API alone.

Reading, listing and deleting by the XML API it does itself. Uploads in parts, of objects above 5 MB, and copies are not
translated, and so refused by it.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from urllib.parse import quote, unquote, urlsplit

_BOUNDARY = "a-boundary-that-no-row-holds"
_ONLY_IF = "x-goog-if-generation-match"


def is_write(method: str, path: str, headers: Mapping[str, str]) -> bool:
    """Whether this writes a whole object. Headers are asked for in lower case."""
    return method == "PUT" and not urlsplit(path).query and "x-goog-copy-source" not in headers


def put(port: int, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, list[tuple[str, str]]]:
    """Write the object, under the condition of the request if it has one; status and headers of the answer."""
    bucket, _, name = urlsplit(path).path.removeprefix("/").partition("/")
    only_if = f"&ifGenerationMatch={headers[_ONLY_IF]}" if _ONLY_IF in headers else ""
    facts = json.dumps({"name": unquote(name)})
    parts = [
        f"--{_BOUNDARY}\r\nContent-Type: application/json\r\n\r\n{facts}\r\n".encode(),
        f"--{_BOUNDARY}\r\nContent-Type: application/octet-stream\r\n\r\n".encode(),
        body,
        f"\r\n--{_BOUNDARY}--\r\n".encode(),
    ]
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(
        "POST",
        f"/upload/storage/v1/b/{quote(bucket)}/o?uploadType=multipart{only_if}",
        body=b"".join(parts),
        headers={"Content-Type": f"multipart/related; boundary={_BOUNDARY}"},
    )
    answer = connection.getresponse()
    written = json.loads(answer.read())
    if answer.status != http.HTTPStatus.OK:
        return answer.status, []
    return answer.status, [("ETag", f'"{written["etag"]}"'), ("x-goog-generation", str(written["generation"]))]
