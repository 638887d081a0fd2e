"""Speed and memory of the layers, as ratios measured in one run. Not part of what is installed."""
