"""Commands that work on the data of a registry."""

import json
from contextlib import ExitStack
from copy import copy as copy_of
from dataclasses import asdict
from pathlib import Path

import click

from registry_service import jobs, logs
from registry_service.cli.data_dir import data_dir_option
from registry_service.cli.errors import user_errors
from registry_service.domain.caller import acting_as_registry
from registry_service.intel_migration.imports import Outcome
from registry_service.services.backup import CopyReport
from registry_service.services.verification import Finding
from registry_service.settings import DatabaseSettings, IntelSourceSettings, Settings, load
from registry_service.wiring import (
    build_verification,
    migrate_database,
    open_backup,
    open_intel_import,
    open_registry,
    open_restore,
)


@click.command
@user_errors
def migrate() -> None:
    """Migrate the database to the schema of this version. The server also does so at its start."""
    settings = load(DatabaseSettings)
    logs.configure(settings.min_log_level)
    click.echo(f"The database is at revision {migrate_database(settings)}.")


@click.command
@click.option("--dry-run", is_flag=True, help="Print what would be removed, and remove nothing.")
@user_errors
def gc(dry_run: bool) -> None:
    """Remove unreferenced objects and expired uploads. The server also does so periodically."""
    settings = load(Settings)
    logs.configure(settings.min_log_level)
    with open_registry(settings) as registry, acting_as_registry():
        report = registry.services.garbage_collector.collect(dry_run=dry_run)
    for kind, names in (
        ("upload", report.uploads),
        ("object", report.objects),
        ("unfinished object", report.unfinished),
        ("failed object", report.failed),
    ):
        for name in names:
            click.echo(f"{kind} {name}")
    verb = "would be removed" if dry_run else "removed"
    click.echo(f"{len(report.uploads)} expired uploads and {len(report.objects)} objects {verb}.")
    if report.failed:
        raise click.ClickException(f"{len(report.failed)} objects could not be deleted.")


@click.command("import-intel")
@click.option("--source-host", "source_psql_hostname", help="Host of the Intel deployment's Postgres.")
@click.option("--source-port", "source_psql_port", type=click.IntRange(1, 65535), help="Port of that Postgres.")
@click.option("--source-database", "source_psql_database", help="Database of the Intel deployment.")
@click.option("--source-user", "source_psql_user", help="User of that database.")
@click.option("--source-bucket", "source_minio_bucket_name", help="Bucket of the Intel deployment's artifacts.")
@click.option("--copy", is_flag=True, help="Copy every artifact, even if it can stay in the Intel deployment's bucket.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, without reading artifacts.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each model, and a last one of totals.")
@data_dir_option
@user_errors
def import_intel(data_dir: Path | None, copy: bool, dry_run: bool, as_json: bool, **source: object) -> None:
    """Import the models of a deployment of Intel's Model Registry.

    The Intel deployment is not changed. Set SOURCE_* to its address and credentials;
    passwords have no options. The command can be repeated. It exits with 1 if a model
    could not be imported.
    """
    given = {name: value for name, value in source.items() if value is not None}
    counts = dict.fromkeys(Outcome, 0)
    copied = 0
    with ExitStack() as stack:
        settings = stack.enter_context(jobs.open_settings(data_dir, allow_empty=True))
        migrate_database(settings)
        registry = stack.enter_context(open_registry(settings))
        import_models = stack.enter_context(
            open_intel_import(registry, settings, load(IntelSourceSettings, **given), copy=copy)
        )
        for result in import_models.run(dry_run=dry_run):
            counts[result.outcome] += 1
            copied += result.copied and result.outcome is not Outcome.FAILED
            if as_json:
                click.echo(json.dumps(asdict(result), ensure_ascii=False))
            elif result.outcome is not Outcome.UNCHANGED:
                click.echo(" ".join(filter(None, (result.outcome, result.model_id, result.reason))))
    if as_json:
        click.echo(json.dumps({"dry_run": dry_run, "copied": copied, **counts}))
    else:
        totals = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        click.echo(
            f"{sum(counts.values())} models{' would be' if dry_run else ''}: {totals}; {copied} artifacts copied."
        )
    if counts[Outcome.FAILED]:
        raise SystemExit(1)


# The command's first name.
former_import_intel = copy_of(import_intel)
former_import_intel.hidden = True


@click.command
@click.option(
    "--to", "folder", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the backup."
)
@click.option("--trust-copies", is_flag=True, help="Check objects that the folder has by size, and not by SHA-256.")
@data_dir_option
@user_errors
def backup(folder: Path, trust_copies: bool, data_dir: Path | None) -> None:
    """Back up the registry to a folder, while it is in use.

    A further backup to the same folder copies only objects that are new, or damaged
    in the folder. The previous backup stays complete until the new one is. The
    command exits with 1 if an object of the registry is missing or damaged.
    """
    with (
        jobs.open_settings(data_dir) as settings,
        open_backup(settings, folder.resolve(), is_thorough=not trust_copies) as back_up,
    ):
        _echo_report("backed up", back_up())


@click.command
@click.option(
    "--from", "folder", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the backup."
)
@click.option("--accept-damage", is_flag=True, help="Restore the rest if the backup has missing or damaged objects.")
@data_dir_option
@user_errors
def restore(folder: Path, accept_damage: bool, data_dir: Path | None) -> None:
    """Restore a backup into an empty database.

    The command checks the whole backup first, and copies only the objects that the
    artifact store lacks. An interrupted restore can be repeated. The command exits
    with 1 if the backup lacks an object.
    """
    with (
        jobs.open_settings(data_dir, allow_empty=True) as settings,
        open_restore(settings, folder.resolve(), accepts_damage=accept_damage) as restore_all,
    ):
        _echo_report("restored", restore_all())


def _echo_report(verb: str, report: CopyReport) -> None:
    for problem in report.problems:
        click.echo(f"object {problem}")
    for damage in report.mended:
        click.echo(f"repaired: {damage}")
    click.echo(
        f"{report.objects - len(report.problems)} of {report.objects} objects {verb},"
        f" {report.copied} of them ({report.copied_bytes} bytes) copied."
    )
    click.echo(f"The audit log ends with event {report.log_head.sequence}, hash {report.log_head.hash}.")
    if report.problems:
        raise SystemExit(1)


@click.command
@click.option("--model", "model_ids", multiple=True, metavar="ID", help="Check only this model. Can be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each finding, and a last one of totals.")
@data_dir_option
@user_errors
def verify(model_ids: tuple[str, ...], as_json: bool, data_dir: Path | None) -> None:
    """Check all artifacts and the audit log.

    The command checks the SHA-256 of every artifact and the hash chain of the audit
    log, and finds unreferenced objects. It exits with 1 if something is missing or
    damaged.
    """
    counts = dict.fromkeys(Finding, 0)
    size = 0
    with jobs.open_settings(data_dir) as settings, open_registry(settings) as registry, acting_as_registry():
        for result in build_verification(registry).run(model_ids):
            counts[result.finding] += 1
            size += result.size
            if as_json:
                click.echo(json.dumps(asdict(result), ensure_ascii=False))
            elif result.finding is not Finding.INTACT:
                click.echo(f"{result.finding} {result.subject}: {result.detail}")
    if as_json:
        click.echo(json.dumps({"bytes": size, **counts}))
    else:
        click.echo(f"{', '.join(f'{count} {finding}' for finding, count in counts.items())}; {size} bytes read.")
    if any(count and finding.is_wrong for finding, count in counts.items()):
        raise SystemExit(1)
