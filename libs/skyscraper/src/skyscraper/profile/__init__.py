"""The offline phase: knob search, content categories, forecaster, and the Profile that holds them."""
