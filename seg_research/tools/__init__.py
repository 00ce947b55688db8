"""From an action to what the policy is shown for it."""
