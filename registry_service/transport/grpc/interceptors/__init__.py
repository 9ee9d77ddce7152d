"""The interceptors of every RPC, one concern per module.

An interceptor wraps a behaviour, grpcio's word for the function that takes requests and yields responses. `chain` says
in which order the interceptors run. `codec` reads and writes the messages for all of them.
"""
