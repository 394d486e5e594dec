"""What a device says before it starts, and when it does not start at all."""

import http.client
import http.server
import re
import runpy
import shutil
import ssl
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest


@pytest.fixture
def device(deployed):
    return deployed(1, "--host", "127.0.0.1") / "device-0"


@pytest.fixture
def serving():
    """Start servers with a certificate or in plain text, whose clocks are off; returns where."""
    running = []

    def serve(folder=None, off=0.0):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(403)
                self.end_headers()

            def date_time_string(self, timestamp=None):
                return formatdate(time.time() + off, usegmt=True)

            def log_message(self, *words):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.handle_error = lambda *_: None  # a refused handshake is what is tested
        if folder:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / "server.pem", folder / "server.key")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return f"127.0.0.1:{server.server_port}"

    yield serve
    for server in running:
        server.shutdown()
        server.server_close()


def said(device, where, status):
    words = [sys.executable, device / "preflight.py", where]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_device_with_all_it_needs_has_nothing_to_say(device, serving):
    assert said(device, serving(device.parent / "server"), 0) == ""


@pytest.mark.parametrize(
    ("off", "complaint"),
    [
        (600, r"the clock is (599|600|601) s behind the server's"),
        (-60, r"the clock is (59|60|61) s ahead of the server's"),
        (200, ""),
    ],
)
def test_a_wrong_clock_is_named(device, serving, off, complaint):
    answer = said(device, serving(device.parent / "server", off), 1 if complaint else 0)
    assert re.search(complaint, answer)
    assert answer.count("\n") == bool(complaint)


def test_another_server_is_not_believed(device, deployed, serving, tmp_path):
    device.parent.rename(tmp_path / "mine")
    where = serving(deployed(1, "--host", "127.0.0.1") / "server")
    answer = said(tmp_path / "mine" / "device-0", where, 1)
    assert f"{where} is not the server that ca.pem is of" in answer


def test_a_server_without_tls_is_not_believed(device, serving):
    assert "does not speak TLS" in said(device, serving(), 1)


def test_missing_data_are_named(device):
    shutil.rmtree(device / "data")
    answer = said(device, "127.0.0.1:1", 1)
    assert "data holds nothing to train on; copy the device's folder again" in answer


def test_a_device_is_asked_for_files_of_its_own(deployed):
    device = deployed(1, "--set", "data.name=devices") / "device-0"
    answer = said(device, "127.0.0.1:1", 1)
    assert "data holds nothing to train on; put this device's own files there" in answer


def test_missing_packages_are_named_and_other_versions_said(device, serving):
    (device / "requirements.txt").write_text("numpy==1.0\n")
    assert "and 1.0 at the server" in said(device, serving(device.parent / "server"), 0)
    (device / "requirements.txt").write_text("no-such-package==1.0\n")
    assert "no-such-package is not installed; pip install -r" in said(device, "127.0.0.1:1", 1)


def test_a_server_that_is_away_is_waited_for(device):
    words = [sys.executable, device / "preflight.py", "127.0.0.1:1"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as waiting:
        assert "127.0.0.1:1 does not answer yet" in waiting.stderr.readline()
        assert waiting.poll() is None
        waiting.kill()


def test_waiting_for_a_server_does_not_make_the_clock_wrong(device, monkeypatch, capsys):
    """A made-up clock, by which the server is away for ten minutes."""
    begun = now = time.time()

    def sleep(seconds):
        nonlocal now
        now += seconds

    class Connection:
        def __init__(self, *words, **more):
            pass

        def request(self, *words):
            if now < begun + 600:
                raise ConnectionRefusedError("away")

        def getresponse(self):
            return SimpleNamespace(headers={"Date": formatdate(now, usegmt=True)})

        def close(self):
            pass

    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(http.client, "HTTPSConnection", Connection)
    monkeypatch.setattr(sys, "argv", ["preflight.py", "fed.example:8000"])
    runpy.run_path(str(device / "preflight.py"))
    assert now >= begun + 600
    assert capsys.readouterr().err == "fednf device: fed.example:8000 does not answer yet: away\n"
