"""What a dataset is: its protocol, records, metadata and data report."""
