"""`diffclean variate` as it is typed. What it writes is in variation/test_variate."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from image_files import slow_file

from diffclean.cli.main import main
from diffclean.data.journal import journal_path, read_journal
from diffclean.data.manifest import read_manifest_classes, read_run_manifest
from diffclean.errors import ExitCode
from diffclean.families.registry import load_recipe

Capture = pytest.CaptureFixture[str]
Draw = Callable[..., Path]
KEYS = ["cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png", "dog/e.png"]


@pytest.fixture
def source(tmp_path: Path, draw_photos: Draw) -> Path:
    return draw_photos(tmp_path / "data", KEYS)


@pytest.fixture
def options(tiny_model: Path, tiny_engine: Path) -> list[str]:
    """Of a quick run; asking for the engine's fixture too sees to it that it is exported only once."""
    return ["--engine", str(tiny_model), "--runtime", "onnxruntime", "--steps", "2", "--batch", "3", "--threads", "1"]


def images(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*_v*.png")}


def test_what_people_see(source: Path, options: list[str], capsys: Capture) -> None:
    assert main(["variate", str(source), *options]) == ExitCode.DONE
    out = source.with_name("data-variations")
    captured = capsys.readouterr()
    assert f"5 variations in {out} (" in captured.out
    assert "images/s, " in captured.out
    assert "windows/s, engine " in captured.out
    assert re.search(r", busy \d+% of the time\)", captured.out)
    assert len(images(out)) == 5
    assert main(["variate", str(source), *options]) == ExitCode.DONE
    captured = capsys.readouterr()
    assert f"0 variations in {out} (engine " in captured.out
    assert "busy" not in captured.out
    assert "5 variations were there already." in captured.out


def test_what_people_see_of_the_quality_gate(source: Path, options: list[str], capsys: Capture) -> None:
    gated = [*options, "--min-similarity", "1"]  # which only the source itself would have
    assert main(["variate", str(source), *gated, "--dry-run"]) == ExitCode.DONE
    assert "Similarities of a sample to their sources (coarse structure" in capsys.readouterr().out
    assert main(["variate", str(source), *gated]) == ExitCode.DONE
    out = capsys.readouterr().out
    assert "Quality gate (--min-similarity 1): it cost 10 repetitions" in out
    assert "5 of 5 variations were filtered" in out
    assert images(source.with_name("data-variations")) == {}


@pytest.mark.parametrize("typed", ["data", "./data/", "../data/../data"])
def test_the_output_lies_beside_the_source(
    source: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    (source.parent / "data").mkdir(exist_ok=True)
    monkeypatch.chdir(source.parent if not typed.startswith("..") else source)
    assert main(["variate", typed, *options]) == ExitCode.DONE
    assert len(images(source.with_name("data-variations"))) == 5


def test_inside_the_source(source: Path, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source)
    assert main(["variate", ".", *options]) == ExitCode.DONE
    assert len(images(source.with_name("data-variations"))) == 5


def test_json_is_one_document(source: Path, options: list[str], tmp_path: Path, capfd: Capture) -> None:
    (source / "dog/broken.png").write_text("no image")
    out = tmp_path / "out"
    assert main(["variate", str(source), "-o", str(out), "--json", *options]) == ExitCode.SOME_FAILED
    captured = capfd.readouterr()
    found = json.loads(captured.out)
    assert (found["total"], found["made"], found["kept"], found["out"]) == (6, 5, 0, str(out))
    assert found["failed"] == [{"key": "dog/broken.png", "variant": 0, "error": "not an image (text?)"}]
    assert found["settings"]["steps"] == 2
    assert found["settings"]["strength"] == load_recipe("micro").defaults["strength"]  # resolved
    assert found["settings"]["size"] == "source"
    assert found["engine"].endswith("/onnxruntime/fp32")
    assert "dog/broken.png: not an image" in captured.err


def test_failures_are_listed_and_many_are_cut_short(
    source: Path, options: list[str], tmp_path: Path, capsys: Capture
) -> None:
    for index in range(25):
        (source / f"dog/broken-{index:02d}.png").touch()
    assert main(["variate", str(source), "-o", str(tmp_path / "out"), *options]) == ExitCode.SOME_FAILED
    lines = capsys.readouterr().out.splitlines()
    assert "25 variations failed:" in lines
    assert "  dog/broken-00.png: empty file" in lines
    assert "  and 5 more, all in the manifest." in lines
    assert sum("empty file" in line for line in lines) == 20


def test_auto_says_which_runtime(source: Path, options: list[str], tmp_path: Path, capsys: Capture) -> None:
    options[options.index("onnxruntime")] = "auto"
    assert main(["variate", str(source), "-o", str(tmp_path / "out"), *options]) == ExitCode.DONE
    captured = capsys.readouterr()
    assert "Runtime openvino in" in captured.err
    assert "/openvino/" in captured.out


def test_dry_run(source: Path, options: list[str], tmp_path: Path, capsys: Capture) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main(["variate", str(source), "--dry-run", "--variations", "2", *options]) == ExitCode.DONE
    said = capsys.readouterr().out
    assert "5 images, 10 variations, 0 of them made already." in said
    assert "Nothing was written." in said
    assert main(["variate", str(source), "--dry-run", "--json", *options]) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    assert (found["dry_run"], found["images"], found["settings"]["batch"]) == (True, 5, 3)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--engine", "vega"], ExitCode.USAGE, "micro"),
        (["--steps", "0", "--strength", "2", "--batch", "0"], ExitCode.USAGE, "--steps 0 (1 to 1000); --strength 2.0"),
        (["--size", "0"], ExitCode.USAGE, "must be source, native, or a number"),
        (["--shard", "4/3"], ExitCode.USAGE, "The shard 4/3"),
        (["--runtime", "abacus"], ExitCode.USAGE, "abacus"),
        (["--precision", "bf16"], ExitCode.USAGE, "fp32 only"),
        (["--guidance-interval", "0.5"], ExitCode.USAGE, "'0.5' is not an interval of noise levels"),
        (["--guidance-interval", "0.8:0.2"], ExitCode.USAGE, "--guidance-interval 0.8:0.2 (low:high"),
        (["--guidance-interval", "nan:1"], ExitCode.USAGE, "--guidance-interval nan:1"),
        (["--engine", "."], ExitCode.CANNOT, "neither an engine"),
        (["-o", "data/inside"], ExitCode.CANNOT, "inside the source"),
    ],
)
def test_mistakes(
    source: Path,
    options: list[str],
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    code: ExitCode,
    said: str,
) -> None:
    monkeypatch.chdir(source.parent)
    assert main(["variate", "data", "-o", "out", *options, *more]) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert not (source.parent / "out").exists()


def test_other_settings_are_refused(source: Path, options: list[str], tmp_path: Path, capsys: Capture) -> None:
    command = ["variate", str(source), "-o", str(tmp_path / "out"), *options]
    assert main(command) == ExitCode.DONE
    assert main([*command, "--strength", "0.5"]) == ExitCode.CANNOT
    assert f"strength: {load_recipe('micro').defaults['strength']} there, 0.5 asked for" in capsys.readouterr().err


def test_the_interval_of_guidance_counts(source: Path, options: list[str], tmp_path: Path, capsys: Capture) -> None:
    made = {}
    for interval in ("0:1", "0:0", "0.2:0.8"):
        out = tmp_path / interval.replace(":", "-")
        command = ["variate", str(source), "-o", str(out), "--guidance", "5", "--guidance-interval", interval, "--json"]
        assert main([*command, *options]) == ExitCode.DONE
        made[interval] = images(out)
        settings = json.loads(capsys.readouterr().out)["settings"]
        assert settings["guidance_interval"] == [float(each) for each in interval.split(":")]
    assert made["0:1"] != made["0:0"]


def command_line(source: Path, out: Path, tiny_model: Path) -> list[str]:
    """Slow on purpose: many steps, one image at a time."""
    program = "import sys; from diffclean.cli.main import main; sys.exit(main())"
    return [
        *[sys.executable, "-c", program, "variate", str(source), "-o", str(out), "--engine", str(tiny_model)],
        *["--runtime", "onnxruntime", "--steps", "60", "--batch", "1", "--threads", "1"],
    ]


def journal_lines(out: Path) -> int:
    path = journal_path(out)
    return path.read_bytes().count(b"\n") if path.exists() else 0


def signal_at(command: list[str], out: Path, lines: int, number: signal.Signals) -> tuple[int, str]:
    """Start a run, send a signal once its journal has so many lines; its exit code and what it said."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while process.poll() is None and journal_lines(out) < lines:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    return process.returncode, said


@pytest.mark.slow
def test_killed_and_resumed(tmp_path: Path, tiny_model: Path, tiny_engine: Path, draw_photos: Draw) -> None:
    """SIGKILL in the middle, then SIGTERM, then to the end: the bytes are those of a run that nobody disturbed."""
    keys = [f"{'cat' if index % 2 else 'dog'}/{index}.png" for index in range(60)]
    source = draw_photos(tmp_path / "data", keys)
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    code, _ = signal_at(command_line(source, out, tiny_model), out, 5, signal.SIGKILL)
    assert code == -signal.SIGKILL
    done = journal_lines(out)
    assert 5 <= done < 60
    code, said = signal_at(command_line(source, out, tiny_model), out, done + 7, signal.SIGTERM)
    assert code == ExitCode.INTERRUPTED, said
    assert "variations are in" in said
    assert done + 7 <= journal_lines(out) < 60
    assert main(command_line(source, out, tiny_model)[3:]) == ExitCode.DONE
    assert main(command_line(source, undisturbed, tiny_model)[3:]) == ExitCode.DONE
    assert images(out) == images(undisturbed)
    assert len(images(out)) == 60
    assert read_run_manifest(out / "manifest.parquet") == read_run_manifest(undisturbed / "manifest.parquet")
    places = [(row.key, row.variant) for row in read_journal(journal_path(out))]
    assert len(places) == len(set(places)) == 60  # nothing lost, nothing twice
    leftovers = [path.name for path in out.rglob("*") if path.name.endswith(".part")]
    assert leftovers == []


def test_a_model_that_is_not_there(source: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["variate", str(source), "-o", str(tmp_path / "out"), "--engine", "./gone"]) == ExitCode.USAGE
    assert "There is no engine './gone'" in capsys.readouterr().err


def test_what_was_passed_over_is_told_in_every_way(
    source: Path, options: list[str], tmp_path: Path, capfd: Capture
) -> None:
    (source / "bird").mkdir()
    (source / "bird/1.psd").write_bytes(b"8BPS")
    (source / "@eaDir").mkdir()
    (source / "@eaDir/a.png").write_bytes((source / "cat/a.png").read_bytes())
    out = tmp_path / "out"
    for more in (["--dry-run"], []):
        assert main(["variate", str(source), "-o", str(out), "--json", *more, *options]) == ExitCode.DONE
        captured = capfd.readouterr()
        found = json.loads(captured.out)["passed_over"]
        assert found["kinds"] == {"psd": 1}
        assert found["folders_without_images"] == ["bird"]
        assert found["folders_no_person_made"] == ["@eaDir"]
    assert read_manifest_classes(out / "manifest.parquet") == {"bird": 0, "cat": 1, "dog": 2}


def test_one_long_name_fails_alone(source: Path, options: list[str], tmp_path: Path, capsys: Capture) -> None:
    name = "b" * 248 + ".png"
    (source / "cat" / name).write_bytes((source / "cat/a.png").read_bytes())
    out = tmp_path / "out"
    assert main(["variate", str(source), "-o", str(out), *options]) == ExitCode.SOME_FAILED
    assert "name of more than 255 bytes" in capsys.readouterr().out
    assert len(images(out)) == 5


def test_names_that_differ_in_their_extension_are_refused_or_kept(
    source: Path, options: list[str], tmp_path: Path, capsys: Capture
) -> None:
    for number in range(8):
        for extension in ("png", "webp"):
            (source / f"cat/{number}.{extension}").write_bytes((source / "cat/a.png").read_bytes())
    arguments = ["variate", str(source), "-o", str(tmp_path / "out"), "--json", *options]
    assert main(arguments) == ExitCode.CANNOT
    error = json.loads(capsys.readouterr().out)["error"]
    assert len(error["problems"]) == 8
    assert "--full-names" in error["hint"]
    assert main([*arguments, "--full-names"]) == ExitCode.DONE
    assert {"cat/0.png_v00.png", "cat/0.webp_v00.png", "cat/a.png_v00.png"} <= images(tmp_path / "out").keys()


def test_limits_and_labels_are_options(source: Path, options: list[str], tmp_path: Path, capsys: Capture) -> None:
    arguments = ["variate", str(source), "-o", str(tmp_path / "out"), *options]
    assert main([*arguments, "--time-limit", "0", "--byte-limit", "0"]) == ExitCode.USAGE
    assert "--byte-limit 0 (1 or more); --time-limit 0" in capsys.readouterr().err
    assert main([*arguments, "--byte-limit", "10"]) == ExitCode.SOME_FAILED
    assert "bytes; the limit is 10" in capsys.readouterr().out
    assert main(arguments) == ExitCode.DONE  # the same run: a limit decides no bytes
    parts = tmp_path / "parts"
    (parts / "train").mkdir(parents=True)
    (source / "cat").rename(parts / "train/cat")
    (source / "dog").rename(parts / "train/dog")
    arguments[1], arguments[3] = str(parts), str(tmp_path / "out-2")
    assert main(arguments) == ExitCode.CANNOT
    assert "--label-from subfolder" in capsys.readouterr().err
    assert main([*arguments, "--label-from", "subfolder"]) == ExitCode.DONE
    assert read_manifest_classes(tmp_path / "out-2/manifest.parquet") == {"cat": 0, "dog": 1}


def test_an_image_that_takes_too_long_fails_and_the_next_run_does_not_die_of_it(
    source: Path, options: list[str], tmp_path: Path, capsys: Capture
) -> None:
    (source / "cat/slow.bmp").write_bytes(slow_file())
    arguments = ["variate", str(source), "-o", str(tmp_path / "out"), "--time-limit", "1", *options]
    for made in (5, 0):
        assert main(arguments) == ExitCode.SOME_FAILED
        said = capsys.readouterr().out
        assert f"{made} variations in" in said
        assert "cat/slow.bmp: took more than 1 s to decode" in said
