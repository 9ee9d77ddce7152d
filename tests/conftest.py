# In the order of their imports, so that pytest can rewrite the assertions of each.
pytest_plugins = [
    "tests.s3_server",
    "tests.fake_geti",
    "tests.postgres_server",
    "tests.registry",
    "tests.products",
    "tests.intel_deployment",
    "tests.identity_provider",
]
