"""Memory of processes, measured from outside."""

from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.products import Product


@dataclass
class PeakMemory:
    """Measure the peak memory of a product's processes, without Postgres, during the block."""

    product: Product

    def __enter__(self) -> "PeakMemory":
        for process in self._processes():
            Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")  # resets the peak
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def peaks(self) -> dict[str, float]:
        """Return the peak in bytes of the largest process of each role."""
        found: dict[str, float] = {}
        for process in self._processes():
            role = _role(process)
            found[role] = max(found.get(role, 0), _status(process, "VmHWM") * 1024)
        return found

    def _processes(self) -> list[psutil.Process]:
        return [process for process in self.product.processes() if process.name() != "postgres"]


@dataclass(frozen=True)
class Footprint:
    """The total memory of a product's processes, without Postgres, at one moment."""

    resident_bytes: float
    threads: int
    connections: int

    @classmethod
    def of(cls, product: Product) -> "Footprint":
        """Measure now."""
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
