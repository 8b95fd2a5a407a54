"""Renders the tables of `detection.py`: every cell, and the totals of the two halves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from render_gpu import table, where

from diffclean.detection.find import DEFAULT_DETECTOR

Cells = list[dict[str, Any]]

HALVES = ("chosen", "reported")
ENOUGH = 0.01
"""The poison rate from which on dirty labels are to be found."""
_KINDS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "no poison": lambda cell: cell["labels"] is None,
    "dirty labels, 1 % and more": lambda cell: _is_dirty(cell) and cell["rate"] >= ENOUGH,
    "dirty labels, below 1 %": lambda cell: _is_dirty(cell) and cell["rate"] < ENOUGH,
    "clean labels": lambda cell: cell["labels"] == "clean",
}


def detection_short(result: dict[str, Any]) -> str:
    """The README's table: what the default detector finds, a line for each kind of poison, both halves side by side."""
    cells = [cell for cell in result["figures"]["cells"] if cell["detector"] == DEFAULT_DETECTOR]
    rows = []
    for kind, belongs in _KINDS.items():
        own = [_of_half([cell for cell in cells if belongs(cell) and cell["half"] == half]) for half in HALVES]
        rows += [[kind, *own[0], *own[1]]] if any(belongs(cell) for cell in cells) else []
    head = [f"{half}: {what}" for half in HALVES for what in ("found", "wrongly listed")]
    lines = [
        f"What the default detector, `{DEFAULT_DETECTOR}`, finds ({_data(result)}; {where(result)}). Its settings were "
        "chosen on the pairs of data set and attack under *chosen*; those under *reported* had no part in any choice. "
        "*Found* is the share of the poisoned images that are listed, *wrongly listed* that of the clean ones: the "
        f"median of the runs, and the worst of them.{_counted(cells)}{_states(cells)}",
        "",
        *table(["poison", *head], rows),
    ]
    return "\n".join(lines) + "\n" if rows else ""


def _of_half(cells: Cells) -> list[str]:
    """What is found and what is wrongly listed, with the number of runs."""
    runs, found, least, wrong, most, *_ = _summed(cells, DEFAULT_DETECTOR)
    if runs == "0":
        return ["not measured", ""]
    counted = f"{runs} run{'s' * (runs != '1')}"
    return [
        f"{found}, worst {least} ({counted})" if found else f"({counted})",
        f"{wrong}, worst {most}" if wrong else "",
    ]


def detection_summary(result: dict[str, Any]) -> str:
    """What each half comes to: how much is found, how much is listed wrongly, and what training anew is worth."""
    cells = result["figures"]["cells"]
    lines = [
        f"**What is found** ({_data(result)}; {where(result)}). Every setting was chosen on the half *chosen*; the "
        "half *reported* had no part in any choice. A hash of the names of data set and attack says which pair is in "
        "which half (of clean data, the seed), but pairs that somebody looked at too early count as chosen. TPR is the "
        "share of the poisoned "
        f"images that are listed, FPR that of the clean ones.{_counted(cells)}{_states(cells)} The last two columns "
        "compare the teacher that was trained anew, without the listed images, with one that was trained on clean "
        "data: attack success in points above it, clean accuracy in points below it. They tell the worst run. Every "
        "single run stands in [evidence](evidence.md).",
    ]
    for detector in _different(cells, "detector"):
        head = ["kind", "half", "runs", "TPR, median", "TPR, least", "FPR, median", "FPR, most"]
        rows = [
            [kind, half, *_summed([cell for cell in cells if belongs(cell) and cell["half"] == half], detector)]
            for kind, belongs in _KINDS.items()
            for half in HALVES
        ]
        rows = [row for row in rows if row[2] != "0"]
        lines += ["", f"`{detector}`:", "", *table([*head, "ASR above clean, most", "CA below clean, most"], rows)]
    return "\n".join(lines) + "\n"


def detection_table(result: dict[str, Any]) -> str:
    """Every data set, attack and rate; over several seeds the mean and the range."""
    figures = result["figures"]
    cells, training = figures["cells"], figures["training"]
    lines = [
        f"**Detection, attack by attack** ({_data(result)}; {where(result)}). A rate in brackets is what clean labels "
        "leave of it: at most half of the target class is poisoned. Covers carry the trigger and keep their label, and "
        "count neither as poisoned nor as clean. CPU seconds are those of the detector, on the threads named there. "
        "CA / ASR in %: of the teacher on the suspect data (an ASR below 80 % is marked: the attack did not fire), of "
        "the teacher anew without the listed images, of a teacher on clean data, and of a student of the teacher anew "
        f"({training['arch']}, for images of more than 64 px {training['large_arch']}; {training['epochs']} epochs, a "
        f"student {training['student_epochs']}). Over several seeds: the mean, and the range in brackets."
        f"{_states(cells)}",
    ]
    for detector in _different(cells, "detector"):
        own = [cell for cell in cells if cell["detector"] == detector]
        lines += ["", f"`{detector}`:", "", *_rows(own)]
    failed = [f"{each['cell']} ({each['why']})" for each in figures["failed"]]
    return "\n".join([*lines, *(["", f"Not measured: {'; '.join(failed)}."] if failed else [])]) + "\n"


def _rows(cells: Cells) -> list[str]:
    """The table of one detector, without columns that are empty."""
    groups: dict[tuple[Any, ...], Cells] = {}
    for cell in cells:
        groups.setdefault((cell["data"], cell["attack"], cell["rate"], cell["half"]), []).append(cell)
    order = {name: list(_different(cells, name)) for name in ("data", "attack")}
    places = {key: (order["data"].index(key[0]), order["attack"].index(key[1]), -(key[2] or 0)) for key in groups}
    head = ["data", "attack", "rate", "half", "seeds", "listed", "TPR", "FPR", "AUROC", "covers listed"]
    head += ["before", "anew", "clean", "student", "CPU s"]
    rows = [_row(key, groups[key]) for key in sorted(groups, key=places.__getitem__)]
    kept = [column for column in range(len(head)) if any(row[column] for row in rows)]
    return table([head[column] for column in kept], [[row[column] for column in kept] for row in rows])


def _row(key: tuple[Any, ...], cells: Cells) -> list[str]:
    data, attack, rate, half = key
    silent = any(_fired(cell) is False for cell in cells)
    capped = {f"{cell['real_rate']:.2%}" for cell in cells if rate is not None and cell["real_rate"] != rate}
    shown = "" if rate is None else f"{rate:.1%}" + (f" ({', '.join(sorted(capped))})" if capped else "")
    covers = [cell["covers_listed"] / cell["covers"] for cell in cells if cell["covers"]]
    threads = "/".join(str(count) for count in _different(cells, "threads"))
    row = [data, attack + (" (did not fire)" if silent else ""), shown, half]
    row += [", ".join(str(cell["seed"]) for cell in cells), _spread([cell["listed"] for cell in cells], "{:,.0f}")]
    row += [_percent([cell[name] for cell in cells]) for name in ("tpr", "fpr")]
    row += [_spread([cell["auroc"] for cell in cells], "{:.4f}"), _percent(covers)]
    for name in ("before", "anew", "clean"):
        row.append(_ca_asr([cell["teachers"][name] for cell in cells if "teachers" in cell]))
    row.append(_ca_asr([cell["student"] for cell in cells if "student" in cell]))
    return [*row, f"{_spread([cell['cpu_s'] for cell in cells], '{:.0f}')} on {threads}"]


def _summed(cells: Cells, detector: str) -> list[str]:
    """Runs, TPR, FPR, and the teacher anew against a clean one; attacks that did not fire are left out."""
    cells = [cell for cell in cells if cell["detector"] == detector and _fired(cell) is not False]
    found = [cell["tpr"] for cell in cells if cell["tpr"] is not None]
    wrong = [cell["fpr"] for cell in cells if cell["fpr"] is not None]
    taught = [cell["teachers"] for cell in cells if "teachers" in cell]
    success = [each["anew"]["asr"] - each["clean"]["asr"] for each in taught if "asr" in each["anew"]]
    accuracy = [each["clean"]["ca"] - each["anew"]["ca"] for each in taught]
    row = [str(len(cells))]
    for values, worst in ((found, min), (wrong, max)):
        row += [f"{median(values):.1%}", f"{worst(values):.1%}"] if values else ["", ""]
    return [*row, *(f"{100 * max(values):+.1f}" if values else "" for values in (success, accuracy))]


def _counted(cells: Cells) -> str:
    """Which runs a summary counts."""
    attacked = [cell for cell in cells if cell["labels"] is not None]
    unknown = sum(_fired(cell) is None for cell in attacked)
    silent = sum(_fired(cell) is False for cell in attacked)
    text = f" {silent} runs are left out because their attack did not fire." if silent else ""
    if unknown:
        counted = len(attacked) - silent
        text += (
            f" That its attack fires was measured for {counted - unknown} of the {counted} poisoned runs that count."
        )
    return text


def _states(cells: Cells) -> str:
    """On how many states of the detectors' code the runs were measured, where there was more than one."""
    codes = list(_different(cells, "code"))
    detectors = len(list(_different(cells, "detector")))
    if len(codes) <= detectors:
        return ""
    return f" The runs were measured on {len(codes)} states of the code, whose digests are in the result file."


def _fired(cell: dict[str, Any]) -> bool | None:
    """Whether the attack works on an undefended teacher; None: there is no attack, or it was not measured."""
    if cell["labels"] is None or "teachers" not in cell:
        return None
    return bool(cell["teachers"]["fired"])


def _is_dirty(cell: dict[str, Any]) -> bool:
    return cell["labels"] not in (None, "clean")


def _data(result: dict[str, Any]) -> str:
    parts = []
    for name, data in result["figures"]["data"].items():
        least, most = data["smallest_class"], data["largest_class"]
        sizes = f"{least}" if least == most else f"{least} to {most}"
        parts.append(f"{name}: {data['images']:,} images, {data['classes']} classes of {sizes}")
    return "; ".join(parts)


def _different(cells: Cells, name: str) -> Iterable[Any]:
    return dict.fromkeys(cell[name] for cell in cells)


def _spread(values: Iterable[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    mean, least, most = (form.format(value) for value in (sum(known) / len(known), min(known), max(known)))
    return mean if least == most else f"{mean} ({least}-{most})"


def _percent(values: Iterable[float | None]) -> str:
    return _spread(values, "{:.1%}")


def _ca_asr(rates: Cells) -> str:
    """Clean accuracy / attack success, of which a benign run has none."""
    both = (_spread([100 * each[name] for each in rates if name in each], "{:.1f}") for name in ("ca", "asr"))
    return " / ".join(text for text in both if text)
