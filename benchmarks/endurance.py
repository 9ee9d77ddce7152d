"""Mixed load over a longer time, and the gain of a second worker."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks.load import Load, run
from benchmarks.memory import Footprint
from benchmarks.results import Result
from tests.products import Product

_MIB = 2**20
# Buffers and pools fill during the first seconds; a leak continues.
_GROWTH_GOAL = 1.15
_CORES_FOR_WORKERS = 4


def mixed(product: Product, *, models: int, seconds: float) -> Iterator[Result]:
    """Run all operations at once, after a shorter warm-up with twice as many clients, which fills the pools."""
    _together(product, models, seconds / 4, times=2)
    before = Footprint.of(product)
    errors, calls = _together(product, models, seconds)
    after = Footprint.of(product)
    yield Result.of(
        f"mixed load, {seconds:g} s, errors",
        errors / max(calls, 1),
        "calls that failed, to all calls",
        at_most=0,
        calls=calls,
        errors=errors,
    )
    for name, now, then in (
        ("memory", after.resident_bytes / _MIB, before.resident_bytes / _MIB),
        ("threads", after.threads, before.threads),
        ("connections", after.connections, before.connections),
    ):
        yield Result.of(
            f"mixed load, {seconds:g} s, {name}",
            now / max(then, 1),
            f"{name} of all processes but Postgres' (memory in MiB) afterwards, to those after the warm-up",
            at_most=_GROWTH_GOAL,
            before=float(then),
            after=float(now),
        )


def _together(product: Product, models: int, seconds: float, times: int = 1) -> tuple[int, int]:
    """Return the numbers of failed calls and of all calls."""
    shares = (
        ("get", 12, False),
        ("get", 12, True),
        ("first page", 4, False),
        ("update", 4, False),
        ("register", 4, False),
    )
    loads = [
        Load(
            operation=operation,
            address=f"127.0.0.1:{product.rest_port}" if http else product.grpc_address,
            clients=clients * times,
            seconds=seconds,
            models=models,
            http=http,
        )
        for operation, clients, http in shares
    ]
    with ThreadPoolExecutor(len(loads)) as pool:
        found = list(pool.map(run, loads))
    errors = sum(measured.errors for measured in found)
    return errors, errors + sum(round(measured.per_second * seconds) for measured in found)


def workers(one: Product, two: Product, *, models: int, seconds: float) -> Iterator[Result]:
    """Compare two servers on one database: with one worker, and with two."""
    figures = {}
    for name, product in (("one", one), ("two", two)):
        load = Load(operation="get", address=product.grpc_address, clients=16, seconds=seconds, models=models)
        figures[name] = run(load).per_second
    cores = os.cpu_count() or 1
    yield Result.of(
        "two workers",
        figures["two"] / figures["one"],
        "calls per second, to those of one worker"
        + ("" if cores >= _CORES_FOR_WORKERS else f"; {cores} cores are for server, client and Postgres here: no goal"),
        at_least=1.5 if cores >= _CORES_FOR_WORKERS else None,
        **{f"{name}_per_s": figure for name, figure in figures.items()},
    )
