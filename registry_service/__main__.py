"""`python -m registry_service` is `model-registry`."""

import atexit
import gc

from registry_service.cli import main

# The interpreter collects garbage several times at its end, although the process then frees all memory anyway.
atexit.register(gc.freeze)

if __name__ == "__main__":
    main()
