"""The figures of the paper, each alone and ready for print."""
