"""Other engines on the lake's tables: what is installed, and how each is started."""
