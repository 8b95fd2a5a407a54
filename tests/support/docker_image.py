"""A Docker engine and an image to test with it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGE = os.environ.get("DIFFCLEAN_TEST_IMAGE", "")
ENGINE_S = 20
RUN_S = 600


@dataclass(frozen=True)
class Docker:
    """What tests do with a Docker engine."""

    client: str
    image: str

    def __call__(self, *arguments: str, timeout_s: float = RUN_S) -> subprocess.CompletedProcess[str]:
        """Run the client, whatever comes of it."""
        command = [self.client, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)

    def run(self, workspace: Path, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """`docker run -v WORKSPACE:/workspace IMAGE ARGUMENTS` as the folder's owner, as people are told to type it."""
        owner = f"{workspace.stat().st_uid}:{workspace.stat().st_gid}"
        named = options if "--user" in options else ("--user", owner, *options)
        done = self("run", "--rm", "-v", f"{workspace}:/workspace", *named, self.image, *arguments)
        print(f"$ docker run {' '.join(named)} diffclean {' '.join(arguments)}   (exit code {done.returncode})")
        print(done.stdout + done.stderr)
        return done

    def shell(self, script: str) -> str:
        """What a shell in the image prints, as root: everything in it may be looked at."""
        done = self("run", "--rm", "--user", "0:0", "--entrypoint", "sh", self.image, "-c", script)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def inspect(self) -> dict[str, Any]:
        """What `docker image inspect` says."""
        (found,) = json.loads(self("image", "inspect", self.image).stdout)
        return dict(found)


def why_not(client: str | None) -> str:
    """Why there is nothing to test here, or ""."""
    if not IMAGE:
        return "no image is named: make docker-test builds one and runs these"
    if client is None:
        return "there is no docker client here"
    try:
        answer = Docker(client, IMAGE)("version", "--format", "{{.Server.Version}}", timeout_s=ENGINE_S)
    except subprocess.TimeoutExpired:
        return f"the Docker engine does not answer within {ENGINE_S} s"
    if answer.returncode:
        return f"no Docker engine answers: {answer.stderr.strip()}"
    return "" if Docker(client, IMAGE)("image", "inspect", IMAGE).returncode == 0 else f"there is no image {IMAGE}"
