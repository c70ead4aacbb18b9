"""``nrh serve``: photos through a real browser, and what a page that is not ours may ask for."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import photo_files
import pytest
from aiohttp import web
from browsers import DESK, PHONE
from choices import make_real_run
from networks import brighter, idle
from PIL import Image

from nrh_dist.errors import UserError
from nrh_dist.workflows import serve
from nrh_dist.workflows.serve import HOST, Studio, application


class Server:
    """The application in a thread of its own, on a free port."""

    def __init__(self, model, folder):
        self.folder, self.loop = folder, asyncio.new_event_loop()
        started = threading.Event()

        def run():
            asyncio.set_event_loop(self.loop)
            runner = web.AppRunner(application(Studio(model, folder)))
            self.loop.run_until_complete(runner.setup())
            self.loop.run_until_complete(web.TCPSite(runner, HOST, 0).start())
            self.port = runner.addresses[0][1]
            started.set()
            self.loop.run_forever()
            self.loop.run_until_complete(runner.cleanup())

        self.thread = threading.Thread(target=run)
        self.thread.start()
        assert started.wait(20)

    def ask(self, method, path, body=None, **headers):
        """Status, headers and body of an answer."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        headers = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()

    def send(self, content, name="a.jpg"):
        """What is told of a photo that the page sends."""
        status, _, body = self.ask("POST", "/photos", content, X_From_Page=name)
        return status, json.loads(body)

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


@pytest.fixture
def started(tmp_path):
    servers = []

    def start(model=None):
        folder = tmp_path / f"served-{len(servers)}"
        folder.mkdir()
        servers.append(Server(model or brighter(), folder))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def photo(tmp_path):
    return photo_files.write(tmp_path / "a photo.jpg", "jpeg", photo_files.picture(640, 480), 1, photo_files.profile())


def test_who_leaves_while_sending_leaves_nothing_behind(started):
    server = started()
    with socket.create_connection((HOST, server.port)) as client:
        head = f"POST /photos HTTP/1.1\r\nHost: {HOST}:{server.port}\r\nX-From-Page: a.jpg\r\nContent-Length: 999999"
        client.sendall(head.encode() + b"\r\n\r\n" + bytes(300_000))
        wait_for(lambda: any(server.folder.iterdir()))
    wait_for(lambda: not any(server.folder.iterdir()))


def test_a_full_disk_is_said(started, photo, monkeypatch):
    async def full(request, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serve, "_received", full)
    status, told = started().send(photo.read_bytes())
    assert status == 507 and "is full: make room" in told["problem"]


def wait_for(holds):
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_photo_comes_back_with_all_it_says(started, photo):
    server = started()
    status, told = server.send(photo.read_bytes(), "a%20photo.jpg")
    assert status == 200 and told["name"] == "a photo.jpg" and told["changed"] and told["size"] == "640 × 480"
    assert told["pictures"] == ["after.jpg", "before.jpg", "found.png"]
    for name in told["pictures"]:
        status, headers, body = server.ask("GET", f"/photos/{told['photo']}/{name}")
        kind, start = ("jpeg", b"\xff\xd8") if name.endswith(".jpg") else ("png", b"\x89PNG")
        assert status == 200 and headers["Content-Type"] == f"image/{kind}" and body.startswith(start)
    status, headers, whole = server.ask("GET", f"/photos/{told['photo']}?strength=1")
    assert status == 200 and headers["Content-Disposition"] == "attachment; filename*=UTF-8''a%20photo.jpg"
    _, _, half = server.ask("GET", f"/photos/{told['photo']}?strength=0.5")
    images = []
    for content in (photo.read_bytes(), half, whole):
        path = server.folder / "check.jpg"
        path.write_bytes(content)
        with Image.open(path) as image:
            assert image.info["icc_profile"] == photo_files.profile() and image.getexif()[271] == "Maker"
            images.append(np.asarray(image).astype(int)[150:330, 230:570])
    before, middle, after = images
    assert (after - before).mean() > 1.7 * (middle - before).mean() > 20


def test_a_photo_that_needs_nothing_is_told_so(started, photo):
    server = started(idle())
    _, told = server.send(photo.read_bytes())
    assert not told["changed"] and told["said"].startswith("nothing that it would correct")
    assert server.ask("GET", f"/photos/{told['photo']}")[2] == photo.read_bytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"<html></html>", "is not a JPEG, PNG, TIFF or WebP image"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "is truncated or damaged"),
    ],
)
def test_what_is_no_photo_gets_one_line(started, content, said):
    status, told = started().send(content)
    assert status == 415 and told["problem"].startswith(said)


def test_bombs_and_large_files_are_refused(started, tmp_path, monkeypatch):
    server = started()
    bomb = photo_files.bomb(tmp_path / "bomb.png").read_bytes()
    status, told = server.send(bomb)
    assert status == 415 and "above the limit 100000000" in told["problem"] and len(bomb) < 10_000
    monkeypatch.setattr(serve, "BYTES_LIMIT", 1000)
    status, told = server.send(bytes(5000))
    assert status == 413 and told["problem"].startswith("the file is larger than")
    assert os.listdir(server.folder) == []


def test_other_pages_and_other_names_get_nothing(started, photo):
    server = started()
    content = photo.read_bytes()
    assert server.ask("POST", "/photos", content)[0] == 403, "a form of another page cannot send the header"
    for host in ("evil.example", f"evil.example:{server.port}", "192.168.0.7", "127.0.0.1.evil.example"):
        assert server.ask("GET", "/", Host=host)[0] == 403
    for host in (f"localhost:{server.port}", "127.0.0.1"):
        assert server.ask("GET", "/", Host=host)[0] == 200
    status, headers, _ = server.ask("OPTIONS", "/photos", Origin="https://evil.example")
    assert status == 405 and not [key for key in headers if key.lower().startswith("access-control")]
    _, headers, _ = server.ask("GET", "/")
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-store"
    for path in ("/../pyproject.toml", "/photos/..%2f..%2fetc%2fpasswd", "/photos/none", "/photos/none/before.jpg"):
        assert server.ask("GET", path)[0] == 404
    assert os.listdir(server.folder) == []


def test_odd_wishes_of_a_download(started, photo):
    server = started()
    _, told = server.send(photo.read_bytes(), "..%2F..%2Fetc%2Fpasswd")
    assert told["name"] == "passwd"
    for strength in ("2", "-1", "nan", "much"):
        assert server.ask("GET", f"/photos/{told['photo']}?strength={strength}")[0] == 400
    assert server.ask("GET", f"/photos/{told['photo']}/other.jpg")[0] == 404


def test_the_last_photos_are_kept(started, photo, monkeypatch):
    monkeypatch.setattr(serve, "KEPT", 2)
    server = started()
    keys = [server.send(photo.read_bytes())[1]["photo"] for _ in range(3)]
    assert [server.ask("GET", f"/photos/{key}")[0] for key in keys] == [404, 200, 200]
    assert {name.split("-after")[0].split("-1.000")[0] for name in os.listdir(server.folder)} == set(keys[1:])


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_page_in_a_browser(started, photo, browser, tmp_path, size, monkeypatch):
    """Upload, slider, overlay, strength and download; then a non-image, a bomb and a file that is too large."""
    server = started()
    context = browser.new_context(viewport=size, accept_downloads=True)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"http://{HOST}:{server.port}/")
    page.set_input_files("#file", str(photo))
    page.wait_for_selector("#result:not([hidden])")
    assert page.inner_text("#title") == "a photo.jpg" and "of the photo changes" in page.inner_text("#status")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = page.locator("#pair").bounding_box()
    assert box["width"] > 300
    page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    assert abs(int(page.input_value("#border")) - 25) <= 1
    page.focus("#border")
    page.keyboard.press("Home")
    assert page.input_value("#border") == "0"
    assert page.evaluate("getComputedStyle(document.getElementById('after')).clipPath") == "inset(0px 0px 0px 0%)"
    assert page.locator("#found").is_hidden()
    page.focus("#show-found")
    page.keyboard.press("Space")
    assert page.locator("#found").is_visible()
    page.focus("#strength")
    for _ in range(3):
        page.keyboard.press("PageDown")
    assert page.input_value("#strength") == "70"
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "down.jpg")
    assert download.value.suggested_filename == "a photo.jpg"
    with Image.open(tmp_path / "down.jpg") as image:
        assert image.size == (640, 480) and image.info["icc_profile"] == photo_files.profile()
    if folder := os.environ.get("NRH_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"serve-{size['width']}.png", full_page=True)
    assert complaints == []
    (tmp_path / "text.jpg").write_text("no photo")
    photo_files.bomb(tmp_path / "bomb.png")
    (tmp_path / "large.jpg").write_bytes(bytes(3 << 20))
    monkeypatch.setattr(serve, "BYTES_LIMIT", 2 << 20)
    for name, said in (("text.jpg", "is not a JPEG"), ("bomb.png", "above the limit"), ("large.jpg", "larger than")):
        page.set_input_files("#file", str(tmp_path / name))
        page.wait_for_selector("#status.problem")
        page.wait_for_function(f"document.getElementById('status').textContent.includes({said!r})")
        assert page.locator("#result").is_hidden()
        page.evaluate("tell('')")
    context.close()


def test_models_that_need_a_mask_are_refused(tmp_path):
    path = make_real_run(tmp_path, "run", "dih_m")
    with pytest.raises(UserError, match="dih_m, which needs the object's mask"):
        serve.serve(str(path), 0, print)


def test_the_verb_ends_with_ctrl_c_and_tells_of_a_port_in_use(tmp_path):
    path = make_real_run(tmp_path, "run", "dih_nm")
    words = [sys.executable, "-m", "nrh_dist", "serve", "--checkpoint", str(path), "--port"]
    process = subprocess.Popen([*words, "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    port = line.split(":")[2].split()[0]
    assert line.startswith(f"open http://127.0.0.1:{port} ")
    done = subprocess.run([*words, port], capture_output=True, text=True)
    assert (
        done.returncode == 1
        and f"cannot listen on port {port}" in done.stderr
        and "--port names another" in done.stderr
    )
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0 and said == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_no_photo_stays_behind_however_it_is_ended(tmp_path, number):
    path = make_real_run(tmp_path, "run", "dih_nm")
    words = [sys.executable, "-m", "nrh_dist", "serve", "--checkpoint", str(path), "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, env=environment)
    process.stdout.readline()
    assert [*tmp_path.glob("nrh-serve-*")]
    process.send_signal(number)
    assert process.wait(timeout=20) == 0 and not [*tmp_path.glob("nrh-serve-*")]
