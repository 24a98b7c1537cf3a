"""Compare the results of a workspace with the published numbers and claims, and write pages."""
