"""What surrounds every RPC, one concern per module.

`chain` says in which order they run. Each module is readable without the others: it wraps a behaviour, which takes
what the interceptor around it hands on, and yields responses.
"""
