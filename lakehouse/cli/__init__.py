"""The `lakehouse` command: one program on top of all rooms."""

import os

# Arrow reads this when it is first imported. Its usual allocator keeps a heap per thread, and a gateway has a thread
# per open call: after a burst of 300 uploads and reads it held 2.5 GB, the system's allocator 0.3 GB.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
