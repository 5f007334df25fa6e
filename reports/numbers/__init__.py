"""What a report states, computed as plain tables."""
