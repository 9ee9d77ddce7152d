"""What processes take, seen from outside."""

from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.products import Product


@dataclass
class PeakMemory:
    """Peaks of a product's processes, Postgres aside, while the block runs."""

    product: Product

    def __enter__(self) -> "PeakMemory":
        for process in self._processes():
            Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def peaks(self) -> dict[str, float]:
        """Peaks in bytes, of the largest process of each role."""
        found: dict[str, float] = {}
        for process in self._processes():
            role = _role(process)
            found[role] = max(found.get(role, 0), _status(process, "VmHWM") * 1024)
        return found

    def _processes(self) -> list[psutil.Process]:
        return [process for process in self.product.processes() if process.name() != "postgres"]


@dataclass(frozen=True)
class Footprint:
    """What a product's processes, Postgres aside, hold at one moment, all together."""

    resident_bytes: float
    threads: int
    connections: int

    @classmethod
    def of(cls, product: Product) -> "Footprint":
        """Looks."""
        processes = [process for process in product.processes() if process.name() != "postgres"]
        return cls(
            resident_bytes=sum(process.memory_info().rss for process in processes),
            threads=sum(process.num_threads() for process in processes),
            connections=sum(len(process.net_connections()) for process in processes),
        )


def _role(process: psutil.Process) -> str:
    return "Envoy" if process.name() == "envoy" else "the server"


def _status(process: psutil.Process, key: str) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
