"""Tables of scores in the report, for a page and a terminal."""
