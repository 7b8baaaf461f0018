"""The main job from start to end by itself: orders of every kind, faults on every side, then an audit."""
