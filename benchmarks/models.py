"""Insert hundreds of thousands of models: rows without artifacts, with plain SQL."""

from sqlalchemy import Engine, text

from benchmarks.load import DEEP_GROUP, DEEP_PRECISION, model_id

_FIRST = model_id(0).rstrip("0123456789")
_INSERT = rf"""
    INSERT INTO models (
        id, name, version, project_id, project_name, precision, target_device, format, category, architecture, score,
        overview, optimization_capabilities, labels, metrics, tags, provenance, created_date, last_updated_date,
        create_time, update_time, revision, creator, file_name, media_type, size, sha256, file_url, object_key
    )
    SELECT
        '{_FIRST}' || lpad(n::text, 10, '0'),
        'net-' || lpad((n % 1000000)::text, 6, '0') || '-' || substr(md5(n::text), 1, 6),
        (n % 50)::text || '.' || (n % 7)::text,
        CASE WHEN n % 3 = 0 THEN 'project-' || project::text END,
        CASE WHEN n % 3 = 0 THEN 'Project ' || project::text END,
        ARRAY[(ARRAY['fp32', 'fp16', 'int8', 'int4'])[1 + n % 4]],
        (ARRAY['CPU', 'GPU', 'NPU'])[1 + n % 3],
        (ARRAY['onnx', 'openvino', 'safetensors'])[1 + n % 3],
        (ARRAY['Detection', 'Classification', 'Segmentation', 'Anomaly'])[1 + n % 4],
        (ARRAY['YOLOX', 'ResNet', 'SSD', 'EfficientNet', 'ViT'])[1 + n % 5],
        (n % 1000) / 1000.0,
        '{{}}', '{{}}', '["cat", "dog"]',
        jsonb_build_object('mAP50', (n % 997) / 997.0),
        jsonb_build_object('team', 'team-' || (n % 20)::text),
        '{{}}', '2026-01-01', '2026-01-01',
        '2026-01-01Z'::timestamptz + n * interval '1 second', '2026-01-01Z'::timestamptz + n * interval '1 second',
        1, '', 'model.bin', 'application/octet-stream', 1024, repeat('0', 64),
        'minio://model-registry/' || n::text, 'artifacts/benchmark-' || n::text
    FROM (
        -- One project is large: it has a page of groups among the first thousand models.
        SELECT n, CASE WHEN n % 15 = 0 THEN 0 ELSE n % 1000 END AS project
        FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
    ) AS numbers
"""  # noqa: S608 - a constant text
# A group with one in a hundred of the models. Only its oldest version has other precisions.
_DEEP_GROUP = f"""
    INSERT INTO models (
        id, name, version, precision, metrics, tags, provenance, created_date, last_updated_date, create_time,
        update_time, revision, creator, file_name, media_type, size, sha256, file_url, object_key
    )
    SELECT
        'benchmark-deep-' || lpad(n::text, 10, '0'), '{DEEP_GROUP}', '1.' || n,
        CASE WHEN n = 0 THEN '{{{DEEP_PRECISION}}}' ELSE '{{fp16}}' END::text[], '{{}}', '{{}}', '{{}}', '', '',
        '2026-01-01Z', '2026-01-01Z', 1, '', 'model.bin', 'application/octet-stream', 1024, repeat('0', 64),
        'minio://model-registry/deep-' || n::text, 'artifacts/benchmark-deep-' || n::text
    FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
"""  # noqa: S608 - a constant text

_PART = 50_000
_GROUPS = (
    """
    INSERT INTO model_groups (name, project_id, project_name, owner, create_time)
    SELECT name, project_id, project_name, coalesce(min(tags ->> 'team'), ''), min(create_time)
    FROM models GROUP BY 1, 2, 3 ON CONFLICT DO NOTHING
    """,
    "DELETE FROM model_group_counts",
    """
    INSERT INTO model_group_counts (model_group_id, version_count)
    SELECT groups.id, every.version_count
    FROM (SELECT name, project_id, project_name, count(*) AS version_count FROM models GROUP BY 1, 2, 3) AS every
    JOIN model_groups AS groups ON model_group_key(groups.name, groups.project_id, groups.project_name)
        = model_group_key(every.name, every.project_id, every.project_name)
    """,
)


def lay_down(engine: Engine, first: int, count: int) -> None:
    """Insert the models from `first` up to `count`, and update Postgres's statistics."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL maintenance_work_mem = '1GB'"))
        # Creating inverted indexes afterwards takes a fraction of the time of updating them.
        inverted = connection.execute(
            text(
                "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'models' AND indexdef LIKE '%USING gin%'"
            )
        ).all()
        for index in inverted:
            connection.execute(text(f"DROP INDEX {index.indexname}"))
        # Creating all groups at once takes a fraction of the time of the triggers for each model.
        connection.execute(text("ALTER TABLE models DISABLE TRIGGER USER"))
        for start in range(first, count, _PART):
            connection.execute(text(_INSERT), {"first": start, "last": min(start + _PART, count) - 1})
        connection.execute(text(_DEEP_GROUP), {"first": first // 100, "last": count // 100 - 1})
        connection.execute(text("ALTER TABLE models ENABLE TRIGGER USER"))
        for statement in _GROUPS:
            connection.execute(text(statement))
        for index in inverted:
            connection.execute(text(index.indexdef))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))
