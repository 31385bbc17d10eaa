"""Real pipelines over real video, to learn what configurations yield and cost: the edge of the offline phase."""
