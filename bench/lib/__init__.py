"""What the measuring commands of bench/ share."""
