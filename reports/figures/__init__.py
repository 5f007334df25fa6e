"""What a report shows, drawn."""
