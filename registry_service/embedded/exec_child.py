"""Replace this process by a program that gets a signal when the parent dies. `process.spawn` runs it as a script.

Arguments: the parent's pid, the signal's number, `uid:gid` or `-`, and the program's path and arguments.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Execute the program; does not return."""
    parent, death_signal, identity, *argv = sys.argv[1:]
    if identity != "-":
        uid, gid = map(int, identity.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After setuid, which clears the setting.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the parent process exited before its child started")
    try:
        os.execv(argv[0], argv)  # noqa: S606 (no shell wanted)
    except OSError as error:
        sys.exit(f"{argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
