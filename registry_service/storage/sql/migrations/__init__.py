def analyze(table: str) -> str:
    """Return a statement that collects the statistics of a table, unless the table is empty.

    With the statistics of an empty table, Postgres plans to read the whole table, and keeps that plan in functions and
    prepared statements while the first rows arrive: thousands within the minute until it collects statistics itself.
    """
    return f"DO $$ BEGIN IF EXISTS (SELECT FROM {table}) THEN ANALYZE {table}; END IF; END $$"
