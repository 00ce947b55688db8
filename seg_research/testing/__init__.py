"""A kit for testing policies, tools and rewards without a model, a search server or a data set."""
