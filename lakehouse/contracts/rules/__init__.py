"""What can be asked of a topic or a sequence, one module per kind of question."""
