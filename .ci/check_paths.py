"""Refuse documentation that names files which do not exist. `make lint` runs this program.

It checks each path in backticks that begins with a folder of the repository. It prints those that do not exist, and
exits with 1 if there are any.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "client/*.md", "docs/**/*.md", "examples/*.md", "benchmarks/*.md")
FOLDERS = "registry_service|tests|gateway|protos|deploy|docs|examples|benchmarks|generated|client|ui|integrations|[.]ci"
WRITTEN_AS_THEY_WERE = {"CHANGELOG.md"}


def main() -> int:
    """Print the faults, and return the exit code."""
    faults = [fault for pattern in PAGES for page in sorted(ROOT.glob(pattern)) for fault in _faults(page)]
    for fault in faults:
        print(fault)  # noqa: T201
    return 1 if faults else 0


def _faults(page: Path) -> Iterator[str]:
    if page.name in WRITTEN_AS_THEY_WERE:
        return
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        for path in re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", line):
            if not (ROOT / path).exists():
                yield f"{page.relative_to(ROOT)}:{number}: there is no {path}"


if __name__ == "__main__":
    sys.exit(main())
