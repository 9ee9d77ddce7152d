"""`python -m registry_service` is `model-registry`."""

from registry_service.cli import main

main()
