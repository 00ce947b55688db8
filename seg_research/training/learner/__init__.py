"""From rewards to gradients: advantages, group filtering, guards, weight hand-over."""
