"""The soak: readers over and over while everything around them fails."""
