"""The paper beside what was measured: published numbers, results of a workspace, claims, pages."""
