"""`make demo`: starts the services, ingests a simulated drive, and reads it back. Not part of the product."""
