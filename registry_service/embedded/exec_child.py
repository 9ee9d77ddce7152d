"""Becomes another program that gets a signal when our parent dies. Run as a script, by `process.spawn`.

Arguments: the parent's pid, the signal's number, `uid:gid` or `-`, and the program's path and arguments.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Never returns."""
    parent, death_signal, identity, *argv = sys.argv[1:]
    if identity != "-":
        uid, gid = map(int, identity.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After setuid, which clears it.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the parent died before its child began")
    try:
        os.execv(argv[0], argv)  # noqa: S606 (no shell is the point)
    except OSError as error:
        sys.exit(f"{argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
