"""Finding a published file: the user's folder, the cache, a publisher played by a local server."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kft import data
from kft.data import fetch
from kft.data.proteins import flip

pytestmark = pytest.mark.once

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PLACE = "flip/gb1/splits.zip"


class Publisher(BaseHTTPRequestHandler):
    """Answers with CONTENT; short of its end under /truncated, refuses under /missing."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if "missing" in self.path:
            return self.send_error(404)
        self.send_response(200)
        if "unsized" not in self.path:
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:-100] if "truncated" in self.path else CONTENT)
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def publisher():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Publisher)
    server.asked = []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """KFT_DATA and KFT_CACHE in empty folders, and no proxy between us and the local server."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("KFT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("KFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path


def put(folder, content=CONTENT):
    file = folder / PLACE
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return file


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("page", ["good", "unsized"])
def test_downloads_once_into_the_cache(publisher, folders, capsys, page):
    url = f"{publisher.url}/{page}"
    path = fetch.find(PLACE, url, SHA256)
    assert path == folders / "cache" / PLACE and path.read_bytes() == CONTENT
    assert files(folders) == [path]
    shown = capsys.readouterr()
    assert "gb1/splits.zip" in shown.err and not shown.out  # progress
    assert fetch.find(PLACE, url, SHA256) == path
    assert publisher.asked == [f"/{page}"]


def test_user_folder_comes_before_the_cache_and_the_cache_before_the_publisher(publisher, folders):
    cached = put(folders / "cache")
    assert fetch.find(PLACE, publisher.url, SHA256) == cached
    own = put(folders / "data")
    assert fetch.find(PLACE, publisher.url, SHA256) == own
    assert publisher.asked == []


def test_missing_user_folder_is_an_error_even_if_the_cache_holds_the_file(folders, monkeypatch):
    put(folders / "cache")
    monkeypatch.setenv("KFT_DATA", str(folders / "typo"))
    with pytest.raises(FileNotFoundError, match="KFT_DATA names .*typo, which is not a folder"):
        fetch.find(PLACE, "http://127.0.0.1:9/", SHA256)


def test_default_cache_is_in_the_home(folders, monkeypatch):
    monkeypatch.delenv("KFT_CACHE")
    monkeypatch.setenv("KFT_DATA", "")  # as good as unset
    monkeypatch.setenv("HOME", str(folders))
    monkeypatch.setenv("USERPROFILE", str(folders))
    own = put(folders / ".cache" / "kft")
    assert fetch.find(PLACE, "http://127.0.0.1:9/", SHA256) == own


@pytest.mark.parametrize("place", ["data", "cache"])
def test_a_file_that_is_not_the_published_one_is_refused_and_kept(folders, place):
    own = put(folders / place, b"something else")
    with pytest.raises(ValueError, match=f"{PLACE} is not the published file.*{SHA256}.*Move it"):
        fetch.find(PLACE, "http://127.0.0.1:9/", SHA256)
    assert own.read_bytes() == b"something else"


def test_wrong_checksum_leaves_nothing(publisher, folders):
    with pytest.raises(ValueError, match="/good is not the published file.*expected 0000"):
        fetch.find(PLACE, f"{publisher.url}/good", "0" * 64)
    assert files(folders) == []


def test_truncated_download_leaves_nothing(publisher, folders):
    with pytest.raises(ConnectionError, match="255,900 of 256,000 bytes|IncompleteRead"):
        fetch.find(PLACE, f"{publisher.url}/truncated", SHA256)
    assert files(folders) == []


def test_interrupted_download_leaves_nothing(publisher, folders, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "_copy", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch.find(PLACE, f"{publisher.url}/good", SHA256)
    assert files(folders) == []


def test_refusal_by_the_publisher(publisher, folders):
    with pytest.raises(ConnectionError, match="404"):
        fetch.find(PLACE, f"{publisher.url}/missing", SHA256)
    assert files(folders) == []


@pytest.mark.parametrize("name", ["gb1", "secondary_structure"])
def test_offline_the_error_names_all_three_ways(folders, monkeypatch, name):
    monkeypatch.setattr(flip, "BASE_URL", "http://127.0.0.1:9/splits")  # nobody listens there
    with pytest.raises(ConnectionError) as caught:
        data.load(name)
    message = str(caught.value)
    assert f"http://127.0.0.1:9/splits/{name}/splits.zip could not be downloaded" in message
    assert f"KFT_DATA to a folder that holds flip/{name}/splits.zip" in message
    assert str(folders / "cache" / "flip" / name / "splits.zip") in message
    assert "go online" in message
    assert files(folders) == []


def test_load_downloads_from_the_publisher(publisher, folders, monkeypatch):
    """The whole way with a file of ours in place of the published one."""
    monkeypatch.setattr(flip, "BASE_URL", publisher.url)
    monkeypatch.setitem(flip.SHA256, "gb1", SHA256)
    with pytest.raises(flip.zipfile.BadZipFile):  # CONTENT is no archive, but it got there
        data.load("gb1")
    assert publisher.asked == ["/gb1/splits.zip"]
    assert files(folders) == [folders / "cache" / PLACE]
