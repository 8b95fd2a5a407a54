"""How large a report is, and how long a browser takes to show it.

    python benchmarks/report_page.py --jobs FOLDER FOLDER

Each folder is one that `clean` or `variate` wrote. The report is written again and opened in Chromium without a window,
as often as `--times` says, each time by a browser with an empty profile. The time is that between the beginning of the
navigation and the end of the event `load`, as the page itself tells it (Navigation Timing); the start of the browser is
not in it. Other processes and the browser's own interface, which is drawn in software here, lengthen that time on few
cores. So the CPU time of the page's main thread is told beside it: what parsing, layout and images cost.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import write_result

from diffclean.report.write import facts_of, write_report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from browser import browser

LOADED_MS = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=Path, nargs="+", required=True, help="folders that `clean` or `variate` wrote")
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    figures: dict[str, Any] = {"times": options.times, "pages": [measured(job, options.times) for job in options.jobs]}
    write_result("report_page", figures, "the jobs that `pages` lists")


def measured(job: Path, times: int) -> dict[str, Any]:
    """The size of a job's report, and the milliseconds until it is loaded."""
    facts = facts_of(job)
    with tempfile.TemporaryDirectory() as work:
        page = Path(work) / "report.html"
        write_report(job, page)
        loads = [loaded(page, Path(work) / str(number)) for number in range(times)]
        found = facts.detection
        load_ms, main_thread_ms, elements = (list(column) for column in zip(*loads, strict=True))
        figures = {
            "job": facts.name,
            "images": facts.counts.images,
            "suspects": found.suspects if found is not None else 0,
            "bytes": page.stat().st_size,
            "elements": elements[0],
            "load_ms": load_ms,
            "median_load_ms": round(statistics.median(load_ms), 1),
            "main_thread_ms": main_thread_ms,
            "median_main_thread_ms": round(statistics.median(main_thread_ms), 1),
        }
    print(figures)
    return figures


def loaded(page: Path, profile: Path) -> tuple[float, float, int]:
    """Open the page in a new browser.

    Returns:
        The milliseconds until the page is loaded; the CPU milliseconds of its main thread; the number of its elements.
    """
    with browser(profile) as opened:
        opened.ask("Performance.enable", timeDomain="threadTicks")
        opened.show(page.as_uri(), 1400)
        opened.until(f"{LOADED_MS} > 0")
        told = {each["name"]: each["value"] for each in opened.ask("Performance.getMetrics")["metrics"]}
        elements = int(opened.value("document.querySelectorAll('*').length"))
        return round(float(opened.value(LOADED_MS)), 1), round(1000 * told["TaskDuration"], 1), elements


if __name__ == "__main__":
    main()
