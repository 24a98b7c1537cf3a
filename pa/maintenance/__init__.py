"""Work on a whole workspace: the state of its stores, verification, repair, garbage collection."""
