"""`python -m modelreg` is `mreg`."""

from __future__ import annotations

from modelreg.cli import main

if __name__ == "__main__":
    main(prog_name="mreg")
