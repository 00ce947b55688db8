"""Looking things up: the client of the search tool server."""
