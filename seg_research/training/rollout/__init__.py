"""Episodes inside verl: agent loop, conversation, tokens, records."""
