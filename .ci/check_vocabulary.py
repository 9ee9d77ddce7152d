"""Refuse retired words in the repository: one concept has one name, everywhere.

`make lint` runs this program. It prints each line with a retired word and the word to use, and exits with 1 if there
are any. A word may stay where it has its ordinary meaning: add a line to ALLOWED, with the reason.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

EXEMPT = {
    "LICENSE": "a legal text",
    "client/LICENSE": "a legal text",
    "CHANGELOG.md": "the changelog keeps the words of its time",
    "generated/*": "written by `make generate` from what is checked",
    "registry_service/storage/sql/migrations/versions/*": "a migration that exists is never changed",
    "requirements*.lock": "names of packages",
    "tests/rest_contract/cases.json": "recorded responses of Intel's service",
    "tests/data/intel_deployment/*": "recorded data of an Intel deployment",
    "tests/upgrade/*": "recorded data of an earlier version",
    "protos/google/*": "copied from Google",
    "*.svg": "pictures",
    "benchmarks/results/*": "recorded results",
    ".ci/check_vocabulary.py": "this list",
}


@dataclass(frozen=True)
class Term:
    """A retired word, and what to write instead."""

    pattern: str
    instead: str
    where: str = "*"
    """Where the word is retired; elsewhere, it has its ordinary meaning."""


TERMS = (
    Term(r"family|families|relatives", "lineage (ancestors, descendants)"),
    Term(r"legacy", "Intel deployment, `intel_`"),
    Term(r"documented_|the documented (API|REST|service)|Documented[A-Z]\w*", "Intel-compatible API, `compat_`"),
    Term(r"the original('s)?", "Intel deployment, Intel's service"),
    Term(r"adopt(s|ed|ing|ion)?", "import, `import-intel`"),
    Term(r"admission", "authentication"),
    Term(r"confin(e|es|ed|ing)", "authorization"),
    Term(r"patience|crowd", "concurrency limit"),
    Term(r"call[ _-]?ids?", "request id"),
    Term(r"sweep(s|er|ing)?|swept", "garbage collection"),
    Term(r"doom(ed|s)?", "mark for deletion"),
    Term(r"client[ _]?watch", "watchdog"),
    Term(r"consistency", "format warnings"),
    Term(r"bootstrap", "wiring"),
    Term(r"expect_\w+", "require_…, check_…", where="registry_service/*"),
    Term(r"introspection", "signature reading"),
    Term(r"ModelSchema|model_schema", "Signature"),
    Term(r"proceed|confirm(s|ed)?", "cancellation, `check_cancelled`", where="registry_service/*"),
    Term(r"(\.|def )hold\(", "`lock_for_share`, `lock_for_update`", where="registry_service/*"),
    Term(r"whoever", "name the subject: the caller, the client, the operator"),
    Term(r"alarms?", "alert"),
)

MODULES = Term(
    r"(changing|reading|registering|sweeping|uploading|aliasing|auditing|watching|confining|authenticating|adopting"
    r"|backing_up|comparing|verifying|measuring|running|resolving)\.py",
    "a noun of the field",
)
"""Names of modules that hide what is inside."""

ALLOWED: tuple[tuple[str, str, str], ...] = (
    # Pattern of the path, pattern of the line, reason.
    ("*", r"last_sweep_timestamp|swept_total|sweeps_total|sweep_object_failures", "names of metrics stay"),
    ("registry_service/observability/metrics.py", r"\"(sweeps|swept)\"|sweep\.$", "names of metrics stay"),
    ("*", r"ModelRegistryNotSweeping|#modelregistrynotsweeping", "the name of an alert stays"),
    ("*", r"documented_(precision|size)", "names of columns stay"),
    ("*", r"_adopt\b|\"adopt\"|alias `adopt`", "the former name of `import-intel` stays as an alias"),
    ("tests/e2e/test_import_and_backup.py", r"\d+ adopted", "the output of `import-intel` stays"),
    (
        "registry_service/intel_migration/imports.py",
        r"IMPORTED = \"adopted\"",
        "the value in the output of the command stays",
    ),
    ("*", r"false alarms", "an alarm that a model raises"),
    (
        "*",
        r"family=family|\bfamily\b.*(socket|address)|\(family\)|address_family|AddressFamily|AF_INET",
        "an address family of sockets",
    ),
    ("*", r"Envoy's bootstrap", "Envoy's own word"),
    ("*", r"TORCH_LEGACY", "PyTorch's own word"),
    ("*", r"metric_families|\.families|families = |self\.families", "Prometheus's own word"),
    ("*", r"legacy-poison-0001", "an id in recorded data"),
    ("*", r"crowd them out", "ordinary meaning"),
)


def main() -> int:
    """Print the faults, and return the exit code."""
    faults = [fault for path in _paths() for fault in _faults(path)]
    for fault in faults:
        print(fault)  # noqa: T201
    return 1 if faults else 0


def _paths() -> Iterator[str]:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    for path in tracked.stdout.splitlines():
        is_left_out = any(fnmatch(path, pattern) for pattern in EXEMPT)
        if not is_left_out and (ROOT / path).is_file():
            yield path


def _faults(path: str) -> Iterator[str]:
    if path.startswith(("client/modelreg/", "registry_service/")) and re.fullmatch(MODULES.pattern, Path(path).name):
        yield f"{path}: write {MODULES.instead} instead of {Path(path).name}"
    try:
        lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return
    for number, line in enumerate(lines, 1):
        for term in (term for term in TERMS if fnmatch(path, term.where)):
            # Also inside identifiers: sweep_objects, SweepReport.
            found = re.search(rf"(?<![a-z])({term.pattern})(?![a-z])", line, re.IGNORECASE)
            if found is not None and not _is_allowed(path, line):
                yield f"{path}:{number}: write {term.instead} instead of {found[1]!r}"


def _is_allowed(path: str, line: str) -> bool:
    return any(fnmatch(path, where) and re.search(pattern, line) for where, pattern, _ in ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
