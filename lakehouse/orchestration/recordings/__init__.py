"""Recordings (MCAP, ROS 1 bags, rosbag2) as topics of the lake.

containers.py      one `Recording` for every container format: channels and raw messages, in bounded memory
decoding/          raw messages -> Arrow columns, one decoder per encoding
ontology_mapping/  columns of known ROS messages -> columns of Mosaico ontology models
ingest.py          the whole way: a file in, a finalized session and a report out
"""
