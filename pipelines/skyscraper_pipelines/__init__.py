"""The reference pipelines of Skyscraper."""
