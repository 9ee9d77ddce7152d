"""Import the models of a deployment of Intel's Model Registry.

An optional package: of the registry, only `wiring` and `cli` use the import. `source` has the ports to the Intel
deployment, which `storage` implements.
"""
