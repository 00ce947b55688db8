"""From predictions to masks: a box and points on one frame become a mask on every frame."""
