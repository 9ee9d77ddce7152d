"""Several Python processes that do the same at the same moment."""

import subprocess
import sys

_START = (
    "import modelreg, pathlib; from modelreg.profiles import Profile, Profiles; print('ready', flush=True); input(); "
)


def run_together(*programs: str, seconds: float = 60) -> list[str]:
    """Run programs, which may use `modelreg`, `Profile`, `Profiles` and `pathlib`, and return what each prints.

    They begin together, once all of them have started.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _START + program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for program in programs
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=seconds)[0].strip() for process in processes]
        assert [process.returncode for process in processes] == [0] * len(processes)
        return outputs
    finally:
        for process in processes:
            process.kill()
            process.wait()
