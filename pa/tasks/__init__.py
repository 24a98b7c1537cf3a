"""What the commands do, as functions: the command line parses and prints, these work.

One module per command. Each function takes the workspace's `Config` and plain values, and returns
data. This is the Python API that equals the command line.
"""
