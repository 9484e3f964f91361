"""Rows of the metadata that data sets publish, for their readers and for Open-ASQA."""
