"""The study of the paper as steps over the public commands."""
