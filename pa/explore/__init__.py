"""The explorer: a page on which any region of a store is clicked and its neighbours are seen."""
