"""A page that needs no other file: its frame, its looks, and tables that sort and filter."""
