"""What the policy may say and how it is read: actions, one linear-time parser, prompt texts."""
