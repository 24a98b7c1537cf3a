"""Who may ask, what is served, and how much is taken."""

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
from pa.explore import uploads
from pa.explore.app import make_app
from pa.explore.safety import POLICY, is_loopback, names_of

from .conftest import column

Json = dict[str, Any]
TOKEN = "a-token-of-the-test"


@pytest.fixture(scope="module")
def public(config: Config) -> Iterator[TestClient]:
    """The server as others reach it: with a token."""
    app = make_app(config, names=names_of("0.0.0.0"), token=TOKEN)
    with TestClient(app, "http://192.0.2.7:8642", follow_redirects=False) as opened:
        yield opened


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:9000", "127.0.0.1:8642", "LOCALHOST", "[::1]:8642", "[::1]"],
)
def test_names_of_this_machine_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/api/workspace", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "192.0.2.7", "127.0.0.1.evil:80", "", "::"]
)
def test_another_name_for_this_machine_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/api/workspace", headers={"Host": host})
    assert answer.status_code == 403
    assert "--host" in answer.json()["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_a_page_of_another_origin_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/api/workspace", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_its_own_page_and_a_followed_link_are_answered(
    client: TestClient, headers: dict[str, str]
) -> None:
    assert client.get("/api/workspace", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/api/workspace", "/nothing", "/api/x"])
def test_every_answer_has_the_policy(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_others_need_the_token(public: TestClient) -> None:
    for path in ("/", "/api/workspace", "/page/main.js", f"/{TOKEN}x/", "/x/", "//"):
        answer = public.get(path)
        assert answer.status_code == 404
        assert "token" in answer.json()["message"]
    for path in ("/", "/api/workspace", "/page/main.js"):
        assert public.get(f"/{TOKEN}{path}").status_code == 200
    assert public.get(f"/{TOKEN}").headers["location"] == f"/{TOKEN}/"


def test_with_a_token_addresses_are_answered_and_foreign_names_are_not(public: TestClient) -> None:
    for host, status in (("10.1.2.3:8642", 200), ("[2001:db8::1]:8642", 200), ("evil.org", 403)):
        assert public.get(f"/{TOKEN}/", headers={"Host": host}).status_code == status


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
def test_what_other_machines_can_reach(host: str, alone: bool) -> None:
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
def test_no_file_is_served_by_its_path(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_files_of_the_page_are_asked_for_again_by_their_tag(client: TestClient) -> None:
    first = client.get("/page/main.js")
    assert first.headers["content-type"].startswith("text/javascript")
    again = client.get("/page/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_nothing_in_the_workspace_changes(
    client: TestClient, config: Config, gallery: Json
) -> None:
    def seen() -> dict[Path, tuple[int, int]]:
        found = {path: path.stat() for path in config.workspace.rglob("*")}
        return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in found.items()}

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
def test_other_formats_are_refused_unopened(
    client: TestClient, gallery: Json, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", opened)
    status, message = send(client, gallery, encoded(kind))
    assert status == 422
    assert "JPEG" in message


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8\xff\xe0", b"%PDF-1.4", b"\0" * 99])
def test_what_is_no_image_is_refused(client: TestClient, gallery: Json, data: bytes) -> None:
    assert send(client, gallery, data)[0] == 422


def test_half_an_image_is_refused(client: TestClient, gallery: Json) -> None:
    data = encoded("PNG", (300, 300))
    assert send(client, gallery, data[: len(data) // 2])[0] == 422


def test_too_many_bytes_are_refused_before_they_are_all_there(
    client: TestClient, gallery: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MOST_BYTES", 1 << 20)
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(40):
            sent += 1
            yield b"\0" * (1 << 16)

    place = f"/api/galleries/{gallery['id']}/own/neighbours"
    asked = {"name": "mine", "box": "0,0,9,9", "column": column(gallery, "alpha", "cls")}
    answer = client.post(place, params=asked, content=parts())
    assert answer.status_code == 413
    assert "1 MB" in answer.json()["message"]
    status, _ = send(client, gallery, b"\0" * (2 << 20))
    assert status == 413


def test_too_many_pixels_are_refused_by_the_header(
    client: TestClient, gallery: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", opened)
    # A PNG of a header alone, which says that a terabyte of pixels follows.
    header = encoded("PNG")
    huge = header[:16] + (60_000).to_bytes(4, "big") * 2 + header[24:]
    checksum = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    status, message = send(client, gallery, huge[:29] + checksum + huge[33:])
    assert status == 422
    assert "60000×60000" in message


@pytest.mark.parametrize("box", ["0,0,65,48", "5,5,5,9", "0,0,0.2,0.2"])
def test_a_box_outside_the_image_is_refused(client: TestClient, gallery: Json, box: str) -> None:
    status, message = send(client, gallery, encoded("PNG"), box=box)
    assert status == 422
    assert "--box" in message


@pytest.mark.parametrize("box", ["", "1,2,3", "-1,0,9,9", "a,b,c,d", "1,2,3,4,5", "nan,0,1,1"])
def test_what_is_no_box_is_refused(client: TestClient, gallery: Json, box: str) -> None:
    status, message = send(client, gallery, encoded("PNG"), box=box)
    assert status == 422
    assert "box" in message
