"""`diffclean review` as it is typed, until Ctrl-C. What the page does is in report/test_review."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from suspect_set import draw_suspects, vary_suspects

from diffclean.data.suspects import JudgedImage, SuspectList


def test_a_review_until_ctrl_c(tmp_path: Path) -> None:
    data, out = draw_suspects(tmp_path / "data"), tmp_path / "out"
    out.mkdir()
    vary_suspects(data, out)
    images = [JudgedImage(f"blue/{number:03d}.png", "blue", 1, 0.9, True) for number in range(3)]
    SuspectList("isolate", "data", "", [], images, {}).write(tmp_path / "suspects.json")
    words = [sys.executable, "-m", "diffclean.cli.main", "review", str(tmp_path), "--variations", str(out), "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"Review 3 suspects: (http://127\.0\.0\.1:\d+/[\w-]{32}/)", line)
        assert found, line + process.stderr.read()
        for kind in ("original", "variation"):
            with urllib.request.urlopen(f"{found[1]}picture/{kind}/2") as answer:
                assert answer.read().startswith(b"RIFF")
        address = found[1].rsplit("/", 2)[0]
        request = urllib.request.Request(
            f"{found[1]}decide",
            b'{"row": 0, "suspect": false}',
            {"Origin": address, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200
        os.kill(process.pid, signal.SIGINT)
        said = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == 0
    assert said == {"list": str(tmp_path / "suspects.json"), "dropped": 2, "kept": 1}
