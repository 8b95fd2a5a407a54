"""The streaming pipeline, with stages that only count."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from diffclean.data.atomic import WriteError
from diffclean.data.manifest import Row, Status
from diffclean.families.seeds import window_seed
from diffclean.variation.picture import Slot
from diffclean.variation.pipeline import Stages, stream
from diffclean.variation.windows import Windows

SIZE = 2


class Inverting:
    """Gives back 255 - pixels, and says that images with the seeds in `bad` are not finite."""

    image_size = SIZE

    def __init__(self, bad: set[int] | None = None, each: Callable[[int], None] | None = None) -> None:
        self.bad = bad or set()
        self.each = each
        self.calls: list[list[int]] = []
        self.shapes: set[tuple[int, ...]] = set()

    def generate(
        self, pixels: Tensor, seeds: Sequence[int], own: Sequence[tuple[float, float]] | None = None
    ) -> tuple[Tensor, Tensor]:
        self.calls.append(list(seeds))
        self.shapes.add(tuple(pixels.shape))
        if self.each is not None:
            self.each(len(self.calls))
        finite = torch.tensor([seed not in self.bad for seed in seeds])
        made = 255 - pixels
        made[~finite] = 0  # what a cast of NaN gives: a black image
        return made, finite


@dataclass
class Bench:
    """Stages for jobs that are numbers.

    Job n has `variants(n)` slots; with none it is a row of a failure. A slot has `columns(n)` windows, one pixel apart.
    """

    generator: Inverting = field(default_factory=Inverting)
    fallback: Callable[[], Inverting] | None = None
    variants: Callable[[int], int] = lambda job: 1
    columns: Callable[[int], int] = lambda job: 1
    told: list[tuple[int, float, float]] = field(default_factory=list)
    prepared: list[int] = field(default_factory=list)
    finished: dict[str, np.ndarray] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    commits: int = 0

    def prepare(self, job: int) -> list[Slot | Row]:
        self.prepared.append(job)
        if not self.variants(job):
            return [Row(f"{job}", status=Status.FAILED, error="unreadable")]
        columns = self.columns(job)
        canvas = np.full((SIZE, SIZE + columns - 1, 3), job % 250, np.uint8)
        windows = Windows(SIZE, (0,), tuple(range(columns)))
        return [
            replace(self.slot(Row(f"{job}", variant, seed=self.seed(job, variant)), canvas), windows=windows)
            for variant in range(self.variants(job))
        ]

    @staticmethod
    def seed(job: int, variant: int = 0) -> int:
        return 1000 + 10 * job + variant

    def slot(self, row: Row, square: np.ndarray) -> Slot:
        def finish(pixels: np.ndarray) -> Row:
            self.finished[f"{row.key}/{row.variant}"] = pixels.copy()
            return replace(row, width=SIZE, height=SIZE)

        return Slot(row, square, finish)

    def commit(self, rows: Sequence[Row]) -> None:
        self.commits += 1
        self.rows += rows

    def tell(self, *figures: *tuple[int, float, float]) -> None:
        self.told.append(figures)

    def run(self, jobs: int, batch: int = 4, workers: int = 2, stop: threading.Event | None = None) -> None:
        """`stream` in a thread of its own, so that a hang fails the test and not the whole run."""
        raised: list[BaseException] = []

        def work() -> None:
            try:
                stages = Stages(self.prepare, self.generator, self.fallback, self.commit, self.tell)
                stream(range(jobs), stages, batch, workers, stop)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(timeout=60)
        assert not thread.is_alive(), "stream hangs"
        if raised:
            raise raised[0]


@hypothesis_settings(max_examples=40)
@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 5), st.sampled_from([1, 4]))
def test_every_job_once_and_in_order(variants: list[int], batch: int, workers: int) -> None:
    bench = Bench(variants=variants.__getitem__)
    bench.run(len(variants), batch, workers)
    expected = [(str(job), variant) for job, count in enumerate(variants) for variant in range(max(1, count))]
    found = [(row.key, row.variant) for row in bench.rows if row.status is Status.OK]
    assert found == [place for place in expected if variants[int(place[0])]]
    assert sorted((row.key, row.variant) for row in bench.rows) == sorted(expected)
    assert sorted(bench.prepared) == list(range(len(variants)))
    for key, pixels in bench.finished.items():
        assert (pixels == 255 - int(key.split("/")[0]) % 250).all()
    assert len(bench.finished) == sum(variants)


def test_the_engine_sees_its_fixed_batch() -> None:
    """Also at the end, where the rest of the batch is padding that nobody gets to see."""
    bench = Bench()
    bench.run(10, batch=4)
    assert bench.generator.shapes == {(4, SIZE, SIZE, 3)}
    assert bench.generator.calls[-1] == [Bench.seed(8), Bench.seed(9), 0, 0]
    assert len(bench.generator.calls) == 3
    assert len(bench.rows) == 10


def test_the_time_of_the_engine_is_told_beside_all_time() -> None:
    """The engine's time holds what the engine takes, and none of the waiting for an image."""
    slow = Bench(generator=Inverting(each=lambda call: time.sleep(0.05)))
    slow.run(8, batch=4)
    assert [windows for windows, _, _ in slow.told] == [4, 4]
    assert all(0.05 <= engine_s <= elapsed_s for _, engine_s, elapsed_s in slow.told)

    def late(job: int) -> int:
        time.sleep(0.1)
        return 1

    waiting = Bench(variants=late)
    waiting.run(1)
    [(_, engine_s, elapsed_s)] = waiting.told
    assert elapsed_s - engine_s >= 0.1


@hypothesis_settings(max_examples=40)
@given(st.lists(st.integers(1, 7), max_size=20), st.integers(1, 5), st.sampled_from([1, 4]))
def test_windows_fill_batches_across_pictures(columns: list[int], batch: int, workers: int) -> None:
    """No batch but the last is padded; each window has its own seed; each picture is whole when it is written."""
    bench = Bench(columns=columns.__getitem__)
    bench.run(len(columns), batch, workers)
    assert [row.key for row in bench.rows] == [str(job) for job in range(len(columns))]
    seeds = [window_seed(Bench.seed(job), number) for job, count in enumerate(columns) for number in range(count)]
    assert len(set(seeds)) == len(seeds)
    asked = [seed for call in bench.generator.calls for seed in call]
    assert asked == seeds + [0] * (len(asked) - len(seeds))
    assert len(asked) - len(seeds) < batch
    assert sum(windows for windows, _, _ in bench.told) == len(seeds)
    for job, count in enumerate(columns):
        assert bench.finished[f"{job}/0"].shape == (SIZE, SIZE + count - 1, 3)
        assert (bench.finished[f"{job}/0"] == 255 - job).all()


def test_a_window_that_is_not_finite_fails_its_picture_alone() -> None:
    bad = window_seed(Bench.seed(1), 2)
    bench = Bench(generator=Inverting({bad}), columns=lambda job: 5)
    bench.run(3, batch=4)
    assert [row.status for row in bench.rows] == [Status.OK, Status.FAILED, Status.OK]
    assert bench.rows[1].error == "the engine gave values that are not finite"
    assert set(bench.finished) == {"0/0", "2/0"}


def test_a_window_that_is_finite_in_fp32_saves_its_picture() -> None:
    fallbacks = Fallbacks(set())
    bench = Bench(generator=Inverting({window_seed(Bench.seed(0), 3)}), fallback=fallbacks, columns=lambda job: 5)
    bench.run(1, batch=4)
    assert fallbacks.made[0].calls == [[window_seed(Bench.seed(0), 3), 0, 0, 0]]
    assert (bench.finished["0/0"] == 255).all()


@pytest.mark.parametrize("workers", [1, 3])
def test_few_large_pictures_are_in_flight(workers: int) -> None:
    """However many windows a picture has: one is with the sampler, one waits, and each reader holds one."""
    changed, most = threading.Condition(), 0
    bench = Bench(columns=lambda job: 50)
    prepare, commit = bench.prepare, bench.commit

    def counted(job: int) -> list[Slot | Row]:
        nonlocal most
        made = prepare(job)
        with changed:
            most = max(most, len(bench.prepared) - len(bench.rows))
            changed.notify_all()
        return made

    def slow(rows: Sequence[Row]) -> None:
        with changed:  # until the readers have done all that they may
            assert changed.wait_for(
                lambda: len(bench.prepared) - len(bench.rows) > workers or len(bench.prepared) == 40, timeout=30
            )
        commit(rows)

    bench.prepare, bench.commit = counted, slow  # type: ignore[method-assign]
    bench.run(40, batch=4, workers=workers)
    assert len(bench.rows) == 40
    # Beside those: up to three whole ones are being written.
    assert workers + 1 <= most <= workers + 5


def test_stop_gives_up_a_picture_that_would_take_long() -> None:
    """It is begun anew by the next run; one that is nearly whole is finished."""
    stop = threading.Event()
    bench = Bench(
        columns=lambda job: 3 if job == 0 else 1000,
        generator=Inverting(each=lambda call: stop.set() if call == 5 else None),
    )
    bench.run(5, batch=4, stop=stop)
    assert [row.key for row in bench.rows] == ["0"]
    assert len(bench.generator.calls) == 5
    stop = threading.Event()
    bench = Bench(columns=lambda job: 10, generator=Inverting(each=lambda call: stop.set() if call == 2 else None))
    bench.run(5, batch=4, stop=stop)
    assert [row.key for row in bench.rows] == ["0"]


@pytest.mark.parametrize("jobs", [0, 1, 4, 8])
def test_few_jobs(jobs: int) -> None:
    bench = Bench()
    bench.run(jobs, batch=4)
    assert [row.key for row in bench.rows] == [str(job) for job in range(jobs)]


def test_workers_make_no_difference() -> None:
    one, four = Bench(variants=lambda job: job % 3), Bench(variants=lambda job: job % 3)
    one.run(50, workers=1)
    four.run(50, workers=4)
    assert one.rows == four.rows
    assert one.generator.calls == four.generator.calls


def test_only_failures() -> None:
    """A source of nothing but broken files: they are recorded as they come, not at the end, and no batch is run."""
    bench = Bench(variants=lambda job: 0)
    bench.run(100, batch=2)
    assert len(bench.rows) == 100
    assert bench.commits > 5
    assert bench.generator.calls == []


@pytest.mark.parametrize("workers", [1, 4])
def test_look_ahead_is_bounded(workers: int) -> None:
    """Writers that fall behind hold up the readers: memory does not grow with the source."""
    batch, jobs = 3, 200
    # Two batches are read ahead, one is in the committer, and two wait for it.
    bound = 5 * batch
    bench, changed = Bench(), threading.Condition()
    most = 0
    prepare, commit = bench.prepare, bench.commit

    def counted(job: int) -> list[Slot | Row]:
        nonlocal most
        made = prepare(job)
        with changed:
            most = max(most, len(bench.prepared) - len(bench.rows))
            changed.notify_all()
        return made

    def slow(rows: Sequence[Row]) -> None:
        with changed:  # as slow as can be: until the readers have done all that they may
            assert changed.wait_for(
                lambda: len(bench.prepared) - len(bench.rows) >= bound - 1 or len(bench.prepared) == jobs, timeout=30
            )
        commit(rows)

    bench.prepare, bench.commit = counted, slow  # type: ignore[method-assign]
    bench.run(jobs, batch, workers)
    assert len(bench.rows) == jobs
    assert bound - 1 <= most <= bound


def fail_at(number: int, error: BaseException) -> Callable[[int], None]:
    def each(call: int) -> None:
        if call == number:
            raise error

    return each


def test_a_commit_that_fails_stops_the_run() -> None:
    bench = Bench()
    commit = bench.commit

    def full(rows: Sequence[Row]) -> None:
        if bench.commits == 2:
            raise WriteError("the disk is full")
        commit(rows)

    bench.commit = full  # type: ignore[method-assign]
    with pytest.raises(WriteError, match="the disk is full"):
        bench.run(400)
    assert [row.key for row in bench.rows] == [str(job) for job in range(8)]
    assert len(bench.prepared) < 100


def test_a_write_that_fails_stops_the_run() -> None:
    """And nothing of its batch is recorded as done."""
    bench = Bench()
    slot = bench.slot

    def breaking(row: Row, square: np.ndarray) -> Slot:
        def finish(pixels: np.ndarray) -> Row:
            raise WriteError("no permission")

        return replace(slot(row, square), finish=finish) if row.key == "9" else slot(row, square)

    bench.slot = breaking  # type: ignore[method-assign]
    with pytest.raises(WriteError, match="no permission"):
        bench.run(400)
    assert not {"8", "9", "10", "11"} & {row.key for row in bench.rows}
    assert {str(job) for job in range(8)} <= {row.key for row in bench.rows}
    assert len(bench.prepared) < 100


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), MemoryError()])
def test_an_engine_that_fails_stops_the_run(error: BaseException) -> None:
    bench = Bench(generator=Inverting(each=fail_at(3, error)))
    with pytest.raises(type(error)):
        bench.run(400)
    assert {row.key for row in bench.rows} <= {str(job) for job in range(8)}
    assert len(bench.prepared) < 100


def test_a_reader_that_fails_stops_the_run() -> None:
    bench = Bench(variants=lambda job: 1 // (10 - job) if job >= 10 else 1)
    with pytest.raises(ZeroDivisionError):
        bench.run(400)
    assert len(bench.prepared) < 100


def test_stop_finishes_what_is_in_flight() -> None:
    stop = threading.Event()
    bench = Bench(generator=Inverting(each=lambda call: stop.set() if call == 3 else None))
    bench.run(400, batch=4, stop=stop)
    assert [row.key for row in bench.rows] == [str(job) for job in range(12)]
    assert len(bench.finished) == 12
    assert len(bench.prepared) <= 12 + 2 * 4


def test_stop_within_the_variants_of_one_image() -> None:
    """What is left of that image is left for the next run; what was begun is recorded."""
    stop = threading.Event()
    bench = Bench(variants=lambda job: 10, generator=Inverting(each=lambda call: stop.set() if call == 2 else None))
    bench.run(5, batch=4, stop=stop)
    assert [(row.key, row.variant) for row in bench.rows] == [("0", variant) for variant in range(10)]


def test_stopped_before_it_began() -> None:
    stop = threading.Event()
    stop.set()
    bench = Bench()
    bench.run(10, stop=stop)
    assert bench.rows == []
    assert bench.generator.calls == []


class Fallbacks:
    """Makes fallbacks, and remembers them."""

    def __init__(self, bad: set[int]) -> None:
        self.bad = bad
        self.made: list[Inverting] = []

    def __call__(self) -> Inverting:
        self.made.append(Inverting(self.bad))
        return self.made[-1]


def test_values_that_are_not_finite_are_asked_for_again_in_fp32() -> None:
    hard, hopeless = {Bench.seed(job) for job in (1, 2, 6)}, {Bench.seed(6)}
    fallbacks = Fallbacks(hopeless)
    bench = Bench(generator=Inverting(hard), fallback=fallbacks)
    bench.run(10, batch=4)
    assert len(fallbacks.made) == 1  # opened when first needed, and kept
    (fallback,) = fallbacks.made
    assert fallback.calls == [[Bench.seed(1), Bench.seed(2), 0, 0], [Bench.seed(6), 0, 0, 0]]
    assert fallback.shapes == {(4, SIZE, SIZE, 3)}
    assert [row.key for row in bench.rows] == [str(job) for job in range(10)]
    failed = [row for row in bench.rows if row.status is Status.FAILED]
    assert [row.key for row in failed] == ["6"]
    assert "not finite, also in fp32" in failed[0].error
    assert "6/0" not in bench.finished  # a black image is never written
    for job in (1, 2):
        assert (bench.finished[f"{job}/0"] == 255 - job).all()


def test_no_fallback_is_made_when_all_is_well() -> None:
    fallbacks = Fallbacks(set())
    bench = Bench(fallback=fallbacks)
    bench.run(10)
    assert fallbacks.made == []


def test_without_a_fallback_they_fail() -> None:
    bench = Bench(generator=Inverting({Bench.seed(3)}))
    bench.run(6)
    assert [row.status for row in bench.rows].count(Status.FAILED) == 1
    assert bench.rows[3].error == "the engine gave values that are not finite"
    assert len(bench.finished) == 5


def test_padding_is_never_a_reason_to_ask_again() -> None:
    """The empty places of a padded batch have seed 0; what they give does not matter."""
    fallbacks = Fallbacks(set())
    bench = Bench(generator=Inverting({0}), fallback=fallbacks)
    bench.run(5, batch=4)
    assert fallbacks.made == []
    assert all(row.status is Status.OK for row in bench.rows)


def test_torchs_threads() -> None:
    """The sampler has the cores to itself; readers and writers take one each. The caller's are as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen: set[int] = set()
        bench = Bench(generator=Inverting(each=lambda call: seen.add(torch.get_num_threads())))
        stages = Stages(bench.prepare, bench.generator, None, bench.commit)
        stream(range(20), stages, 4, 2)
        assert seen == {3}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
