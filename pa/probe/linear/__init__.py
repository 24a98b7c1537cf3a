"""The linear probe: a linear classifier on one stored vector per region."""
