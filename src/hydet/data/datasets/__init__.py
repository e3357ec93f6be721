"""The dataset interface, records, metadata and data reports."""
