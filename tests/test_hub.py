"""Loading models from a Hub: a small server on this machine, the real client."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from conftest import small_model

from jsqa_metric import JSQAModel
from jsqa_metric.hub import write_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path) -> Path:
    write_folder(small_model("spectrogram"), tmp_path / "model")
    return tmp_path / "model"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as a download needs."""

    files: dict[str, bytes]
    requests: list[str]
    broken = False

    def do_HEAD(self) -> None:  # noqa: N802
        self._answer(head=True)

    def do_GET(self) -> None:  # noqa: N802
        self._answer(head=False)

    def _answer(self, head: bool) -> None:
        path = self.path.partition("?")[0]
        type(self).requests.append(f"{self.command} {path}")
        name = path.rpartition("/")[2]
        if path.startswith("/api/models/org/model") and not path.endswith("/v9"):
            siblings = [{"rfilename": name} for name in self.files]
            tree = [{"type": "file", "path": n, "size": len(d), "oid": n} for n, d in self.files.items()]
            info = tree if "/tree/" in path else {"id": "org/model", "sha": COMMIT, "siblings": siblings}
            self._send(json.dumps(info).encode(), head)
        elif "/resolve/" in path and name in self.files and path.split("/")[4] in (COMMIT, "main"):
            self._send(self.files[name], head)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound" if "/resolve/" in path else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, data: bytes, head: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hash(data) & 0xFFFFFFFF:x}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if not head:
            self.wfile.write(data[: len(data) // 2] if self.broken and len(data) > 5000 else data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(folder):
    class Server(Hub):
        files = {p.name: p.read_bytes() for p in folder.iterdir()}
        requests: list[str] = []

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Server.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield Server
    server.shutdown()
    server.server_close()


LOAD = """
import sys, warnings, torch
from jsqa_metric import load_model
revision = sys.argv[1] if len(sys.argv) > 1 else None
torch.manual_seed(0)
print(float(load_model("org/model", revision=revision)(0.1 * torch.randn(1, 8000))))
"""


def load_in_a_new_process(tmp_path: Path, address: str, *arguments: str, wait: bool = True, **environment: str):
    process = subprocess.Popen(
        [sys.executable, "-c", LOAD, *arguments],
        env={
            **os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "PYTHONWARNINGS": "default",
            **environment,
        },
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    return _result(process) if wait else process


def _result(process) -> tuple[str, str]:
    out, err = process.communicate(timeout=240)
    return out.strip(), " ".join(err.split())  # some packages install tracebacks that wrap lines


def test_from_the_hub_first_download_then_cache_then_offline(tmp_path, hub):
    first, errors = load_in_a_new_process(tmp_path, hub.address, COMMIT)
    torch.manual_seed(0)
    expected = float(small_model_score())
    assert float(first) == pytest.approx(expected, abs=1e-6), errors
    downloads = [r for r in hub.requests if r.startswith("GET") and "/resolve/" in r]
    assert sorted(d.rpartition("/")[2] for d in downloads) == ["config.json", "model.safetensors"]
    assert load_in_a_new_process(tmp_path, hub.address, COMMIT)[0] == first
    assert [r for r in hub.requests if r.startswith("GET") and "/resolve/" in r] == downloads, "downloaded again"
    gone = "http://127.0.0.1:9"
    assert load_in_a_new_process(tmp_path, gone, COMMIT, HF_HUB_OFFLINE="1")[0] == first


def small_model_score() -> torch.Tensor:
    model = small_model("spectrogram")
    torch.manual_seed(0)
    return model(0.1 * torch.randn(1, 8000))


def test_offline_without_cache_says_what_to_do(tmp_path):
    out, err = load_in_a_new_process(tmp_path, "http://127.0.0.1:9", COMMIT, HF_HUB_OFFLINE="1")
    assert out == ""
    assert "FileNotFoundError" in err
    assert "cannot get model 'org/model'" in err
    assert "copy config.json and model.safetensors" in err


def test_without_a_revision_there_is_a_warning_with_the_commit_to_pin(tmp_path, hub):
    out, err = load_in_a_new_process(tmp_path, hub.address)
    assert out
    assert f"pin revision='{COMMIT}'" in err


def test_a_revision_that_does_not_exist(tmp_path, hub):
    out, err = load_in_a_new_process(tmp_path, hub.address, "v9", HF_HUB_DOWNLOAD_TIMEOUT="5")
    assert out == ""
    assert "cannot get model 'org/model' (revision v9)" in err


def test_an_interrupted_download_is_an_error_and_the_next_one_works(tmp_path, hub):
    hub.broken = True
    out, err = load_in_a_new_process(tmp_path, hub.address, COMMIT)
    assert out == ""
    assert "FileNotFoundError: cannot get model" in err
    hub.broken = False
    out, err = load_in_a_new_process(tmp_path, hub.address, COMMIT)
    assert float(out) == pytest.approx(float(small_model_score()), abs=1e-6), err


def test_access_is_passed_on_for_the_weights_too(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.hub_mixin.hf_hub_download", lambda **options: asked.append(options) or folder / "config.json"
    )
    monkeypatch.setattr("jsqa_metric.hub.snapshot_download", lambda _, **options: asked.append(options) or folder)
    access = {"token": "secret", "cache_dir": "elsewhere", "force_download": True, "local_files_only": False}
    JSQAModel.from_pretrained("org/model", revision=COMMIT, **access)
    for options in asked:
        assert options.items() >= access.items()
    assert len(asked) == 2


def test_two_processes_at_once(tmp_path, hub):
    both = [load_in_a_new_process(tmp_path, hub.address, COMMIT, wait=False) for _ in range(2)]
    results = [_result(process) for process in both]
    assert results[0][0] == results[1][0] != "", results
