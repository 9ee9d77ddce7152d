"""How much of a file is read, and how much of what it says is kept. A file is hostile until shown otherwise."""

SECONDS = 5.0
"""Longest that reading one artifact may take, but for a store that does not answer."""
STORED_BYTES = 64 * 1024 * 1024
"""Most bytes read from the store, compressed ones aside."""
INFLATED_BYTES = 256 * 1024 * 1024
"""Most bytes decompressed of one member of a ZIP."""
STEPS = 500_000
"""Most elements or fields looked at."""

KEPT_BYTES = 16 * 1024 * 1024
"""Most bytes of a file that are kept where it is read in any order."""

HEAD_BYTES = 8 * 1024 + 8
"""Of a file's beginning, what shows its format: of HDF5 also behind a user block of 8 KiB."""
USER_BLOCK_BYTES = 16 * 1024 * 1024
"""Largest user block behind which the signature of a file that is called HDF5 is looked for."""
DIRECTORY_BYTES = 1024 * 1024
"""Largest directory of a ZIP in which models are looked for."""
CANDIDATES = 16
"""Most members of a ZIP looked at to find the model."""
ARRAYS = 100
"""Most arrays of an `.npz` whose headers are read to find pickled objects."""

XML_BYTES = 64 * 1024 * 1024
XML_TOKEN_BYTES = 1024 * 1024
"""Largest tag, with its attributes."""
DEPTH = 64
"""Most XML elements, or messages of ONNX, inside one another."""
HEADER_BYTES = 8 * 1024 * 1024
"""Largest header of safetensors: that of 80,000 tensors."""

CONFIGURATION_BYTES = 256 * 1024
"""Largest configuration beside a model that is read."""

TEXT_LENGTH = 1_000
"""Most characters of any text that is kept; what is longer is cut."""
DIMENSIONS = 64
TENSORS = 1_000
"""Most inputs, outputs or weights that are kept, each."""
ENTRIES = 200
"""Most entries of metadata, and operator sets, that are kept."""
NAMES = 100_000
"""Most names remembered while a file is read."""
PROBLEMS = 20
SIGNATURE_BYTES = 64 * 1024
"""Largest signature, as JSON."""
