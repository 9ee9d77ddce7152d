"""The settings of processes that work on a data folder of `model-registry up`."""

from pathlib import Path

from registry_service.embedded.postgres import PostgresAddress


def embedded_settings(data_dir: Path, address: PostgresAddress, **settings: object) -> dict[str, object]:
    """Return the settings that a server on a data folder takes in place of the environment's, by name."""
    return {
        **database_settings(address),
        "psql_data_dir": data_dir / "postgres",
        "artifact_store": "local",
        "artifact_dir": data_dir / "artifacts",
        **settings,
    }


def database_settings(address: PostgresAddress) -> dict[str, object]:
    """Return the settings that a process takes to connect to an embedded Postgres, by name."""
    return {
        "psql_hostname": str(address.socket_dir),
        "psql_port": address.port,
        "psql_database": address.database,
        "mr_user_name": address.user,
        "psql_password": "",
    }
