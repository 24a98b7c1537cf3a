"""Access checks, served files, and limits of uploads."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from pa.config import Config
from pa.explore import limits
from pa.explore.safety import POLICY, is_loopback, names_of
from pa.explore.server import make_app
from pa.workspace import Workspace
from tests.explore.conftest import column

Json = dict[str, Any]
TOKEN = "a-token-of-the-test"


@pytest.fixture
def stranger(config: Config) -> Iterator[TestClient]:
    """A client, without the token, of a server that other machines reach."""
    app = make_app(Workspace(config.workspace), names=names_of("0.0.0.0"), token=TOKEN)
    with TestClient(app, "http://192.0.2.7:8642", follow_redirects=False) as opened:
        yield opened


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:9000", "127.0.0.1:8642", "LOCALHOST", "[::1]:8642", "[::1]"],
)
def test_names_of_this_machine_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/api/workspace", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil:80", "", "["]
)
def test_other_host_name_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/api/workspace", headers={"Host": host})
    assert answer.status_code == 403
    assert "--host" in answer.json()["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://["},
        {"Origin": "http://[::1"},
        {"Origin": "http://a b"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_other_origin_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/api/workspace", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_same_origin_and_links_are_accepted(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/api/workspace", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/api/workspace", "/nothing", "/api/x"])
def test_responses_have_content_security_policy(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/", "/api/workspace", "/page/main.js", "//", "/nothing"])
@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("?token=", {}),
        (f"?token={TOKEN}x", {}),
        ("?token=%ff%00", {}),
        ("", {"Authorization": "Bearer"}),
        ("", {"Authorization": f"Bearer {TOKEN}x"}),
        ("", {"Authorization": f"Basic {TOKEN}"}),
        ("", {"Cookie": f"pa-explore-8642={TOKEN[:-1]}"}),
        ("", {"Cookie": f"pa-explore-8643={TOKEN}"}),
        ("", {"Cookie": f"token={TOKEN}"}),
    ],
)
def test_request_without_token_is_refused(
    stranger: TestClient, path: str, query: str, headers: dict[str, str]
) -> None:
    answer = stranger.get(path + query, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"] == "token needed"
    assert TOKEN not in answer.text
    assert "set-cookie" not in answer.headers


def test_first_visit_moves_token_into_cookie(stranger: TestClient) -> None:
    first = stranger.get("/", params={"row": "7", "token": TOKEN, "column": ["a b", "ü"]})
    assert first.status_code == 303
    assert first.headers["location"] == "/?row=7&column=a+b&column=%C3%BC"
    assert first.headers["cache-control"] == "no-store"
    cookie = {part.strip().lower() for part in first.headers["set-cookie"].split(";")}
    assert {"httponly", "samesite=lax", "path=/"} <= cookie
    for path in ("/", "/api/workspace", "/page/main.js"):
        assert stranger.get(path).status_code == 200
    stranger.cookies.clear()
    assert stranger.get("/").status_code == 401


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example", "/%2F/evil.example"])
def test_first_visit_redirects_to_this_server(stranger: TestClient, path: str) -> None:
    location = stranger.get(f"http://192.0.2.7:8642{path}?token={TOKEN}").headers["location"]
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))


def test_token_is_accepted_in_header(stranger: TestClient) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert stranger.get("/api/workspace", headers=headers).status_code == 200
    assert stranger.post("/api/workspace", headers=headers).status_code == 405
    assert stranger.post(f"/api/workspace?token={TOKEN}").status_code == 401


def test_addresses_are_answered_and_foreign_names_are_not(stranger: TestClient) -> None:
    token = {"Authorization": f"Bearer {TOKEN}"}
    for host, status in (("10.1.2.3:8642", 200), ("[2001:db8::1]:8642", 200), ("evil.org", 403)):
        assert stranger.get("/", headers={"Host": host, **token}).status_code == status


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("127.8.8.8", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.7", False),
        ("gpu7", False),
    ],
)
def test_other_machines_reach_allowed_hosts_only(host: str, alone: bool) -> None:
    assert is_loopback(host) is alone


@pytest.mark.parametrize(
    "path",
    [
        "/page/..%2Fapp.py",
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page/",
        "/page/index.html/../../app.py",
        "/pa.toml",
        "/etc/passwd",
        "//etc/passwd",
        "/docs",
        "/redoc",
    ],
)
def test_files_are_not_served_by_path(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_page_files_are_revalidated_by_tag(client: TestClient) -> None:
    first = client.get("/page/main.js")
    assert "javascript" in first.headers["content-type"]
    again = client.get("/page/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_workspace_is_not_changed(client: TestClient, config: Config, gallery: Json) -> None:
    def seen() -> dict[Path, tuple[int, int]]:
        stats = {path: path.stat() for path in config.workspace.rglob("*")}
        return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}

    before, here = seen(), sorted(Path().iterdir())
    id, cls = gallery["id"], column(gallery, "alpha", "cls")
    for path in (
        "workspace",
        f"galleries/{id}/images?text=class",
        f"galleries/{id}/random",
        f"galleries/{id}/rows/3",
        f"galleries/{id}/rows/3/region",
        f"galleries/{id}/images/3/canvas",
        f"galleries/{id}/images/3/thumbnail",
        f"galleries/{id}/rows/3/neighbours?column={cls}",
        f"galleries/{id}/rows/3/figure?column={cls}",
        f"galleries/{id}/rows/3/command?column={cls}",
    ):
        assert client.get(f"/api/{path}").status_code == 200, path
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert client.request(method, f"/api/{path}").status_code == 405
    assert (seen(), sorted(Path().iterdir())) == (before, here)


# -- images that are sent ----------------------------------------------------------------------


def encoded(kind: str, size: tuple[int, int] = (64, 48)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "teal").save(out, kind)
    return out.getvalue()


def send(client: TestClient, gallery: Json, data: bytes, **query: Any) -> tuple[int, str]:
    asked = {"name": "mine", "box": "0,0,32,32", "column": column(gallery, "alpha", "cls"), **query}
    answer = client.post(
        f"/api/galleries/{gallery['id']}/own/neighbours", params=asked, content=data
    )
    return answer.status_code, answer.json()["message"]


@pytest.mark.parametrize("kind", ["TIFF", "EPS", "PPM", "ICO"])
def test_unsupported_formats_are_refused_unopened(
    client: TestClient, gallery: Json, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", opened)
    status, message = send(client, gallery, encoded(kind))
    assert status == 422
    assert "JPEG" in message


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8\xff\xe0", b"%PDF-1.4", b"\0" * 99])
def test_file_that_is_not_an_image_is_refused(
    client: TestClient, gallery: Json, data: bytes
) -> None:
    assert send(client, gallery, data)[0] == 422


def test_truncated_image_is_refused(client: TestClient, gallery: Json) -> None:
    data = encoded("PNG", (300, 300))
    assert send(client, gallery, data[: len(data) // 2])[0] == 422


def test_too_many_bytes_are_refused_before_they_arrive(
    client: TestClient, gallery: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_BYTES", 1 << 20)
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(40):
            sent += 1
            yield b"\0" * (1 << 16)

    url = f"/api/galleries/{gallery['id']}/own/neighbours"
    asked = {"name": "mine", "box": "0,0,9,9", "column": column(gallery, "alpha", "cls")}
    answer = client.post(url, params=asked, content=parts())
    assert answer.status_code == 413
    assert "1 MB" in answer.json()["message"]
    status, _ = send(client, gallery, b"\0" * (2 << 20))
    assert status == 413


def test_too_many_pixels_are_refused_by_header(
    client: TestClient, gallery: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", opened)
    # A PNG of a header alone, which declares 3.6 billion pixels.
    header = encoded("PNG")
    huge = header[:16] + (60_000).to_bytes(4, "big") * 2 + header[24:]
    checksum = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    status, message = send(client, gallery, huge[:29] + checksum + huge[33:])
    assert status == 422
    assert "60000×60000" in message


@pytest.mark.parametrize("box", ["0,0,65,48", "5,5,5,9", "0,0,0.2,0.2"])
def test_box_outside_image_is_refused(client: TestClient, gallery: Json, box: str) -> None:
    status, message = send(client, gallery, encoded("PNG"), box=box)
    assert status == 422
    assert "--box" in message


@pytest.mark.parametrize("box", ["", "1,2,3", "-1,0,9,9", "a,b,c,d", "1,2,3,4,5", "nan,0,1,1"])
def test_invalid_box_is_refused(client: TestClient, gallery: Json, box: str) -> None:
    status, message = send(client, gallery, encoded("PNG"), box=box)
    assert status == 422
    assert "box" in message
