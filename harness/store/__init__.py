"""What has run: records, logs and run folders, on disk."""
