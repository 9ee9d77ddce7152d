"""How much of a file is read, and how much of its content is kept. Any file may be hostile."""

SECONDS = 5.0
"""Longest time to read one artifact, apart from a read that a slow store blocks."""
STORED_BYTES = 64 * 1024 * 1024
"""Most bytes read from the store. Compressed members of a ZIP do not count."""
INFLATED_BYTES = 256 * 1024 * 1024
"""Most bytes decompressed of one member of a ZIP."""
STEPS = 500_000
"""Most elements or fields read."""

KEPT_BYTES = 16 * 1024 * 1024
"""Most bytes of a file kept in memory for random access."""

HEAD_BYTES = 8 * 1024 + 8
"""First bytes of a file that identify its format, also an HDF5 file with a user block of up to 8 KiB."""
USER_BLOCK_BYTES = 16 * 1024 * 1024
"""Largest user block after which a file named as HDF5 is searched for its magic number."""
DIRECTORY_BYTES = 1024 * 1024
"""Largest central directory of a ZIP that is searched for models."""
CANDIDATES = 16
"""Most members of a ZIP that are examined to find the model."""
ARRAYS = 100
"""Most arrays of an `.npz` whose headers are searched for pickled objects."""

XML_BYTES = 64 * 1024 * 1024
"""Most bytes of XML read."""
XML_TOKEN_BYTES = 1024 * 1024
"""Largest tag of XML, including its attributes."""
DEPTH = 64
"""Deepest nesting of XML elements. For ONNX and GGUF, a quarter of it."""
HEADER_BYTES = 8 * 1024 * 1024
"""Largest header of safetensors: enough for 80,000 tensors."""

CONFIGURATION_BYTES = 256 * 1024
"""Largest configuration file beside a model that is read."""

TEXT_LENGTH = 1_000
"""Most characters kept of any text. Longer texts are cut."""
DIMENSIONS = 64
"""Most dimensions of a tensor."""
TENSORS = 1_000
"""Most inputs kept, and most outputs, and most weights."""
ENTRIES = 200
"""Most metadata entries kept, and most operator sets."""
NAMES = 100_000
"""Most names remembered while a file is read."""
PROBLEMS = 20
"""Most problems kept."""
SIGNATURE_BYTES = 64 * 1024
"""Largest signature, as JSON."""
